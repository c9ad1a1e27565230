"""`isinglass submit`."""

from pathlib import Path
from typing import Annotated

import typer

from isinglass.cli.display import show_submission
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import Partial
from isinglass.errors import ConfigError, DataError
from isinglass.names import printable


def submit(
    directory: Annotated[
        Path | None, typer.Argument(help="A directory that `isinglass bench --predict-test` wrote.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The zip.")] = Path("submission.zip"),
    partial: Annotated[
        Partial, typer.Option(help="Files that no run answers: `absent`, or filled with the `majority` label.")
    ] = "refuse",
    backend: Annotated[str | None, typer.Option(help="Only runs of this backend.")] = None,
    precision: Annotated[str | None, typer.Option(help="Only runs of this precision.")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs of this seed.")] = None,
    check: Annotated[Path | None, typer.Option(help="Judge this zip, by whatever tool it was made.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zip that --output names.")] = False,
) -> None:
    """Write the zip that GLUE's server takes, from the runs that are best on dev; or judge one with --check."""
    with errors_in_one_line():
        from isinglass.report.submission import check_submission, write_submission

        if (directory is None) == (check is None):
            raise ConfigError("Name either a directory to make a submission of, or a zip to --check.")
        if check is not None:
            problems = check_submission(check)
            for problem in problems:
                print(printable(str(problem)))
            if problems:
                raise DataError(f"{check} would not be taken: {len(problems)} problems.")
            print(printable(f"{check}: eleven files, each with the right rows, order and alphabet."))
            return
        assert directory is not None
        chosen = {"backend": backend, "precision": precision, "model": model, "seed": seed}
        written = write_submission(directory, output, partial=partial, overwrite=overwrite, select=chosen)
        show_submission(written)
