"""`isinglass submit`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from isinglass.cli.display import show_submission
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import with_options
from isinglass.errors import ConfigError, DataError
from isinglass.names import printable


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs of a bench may be submitted."""

    backend: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this backend.")] = None
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this precision.")] = None
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this model.")] = None
    seed: Annotated[int | None, typer.Option(metavar="N", help="Only runs of this seed.")] = None


@with_options()
def submit(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Directory that `isinglass bench --predict-test` wrote.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Zip to write.")] = Path("submission.zip"),
    partial: Annotated[
        Literal["refuse", "absent", "majority"],
        typer.Option(help="Files that no run predicts: refuse them, leave them out, or fill them with the majority label."),
    ] = "refuse",
    only: RunFilter,
    check: Annotated[Path | None, typer.Option(metavar="FILE", help="Check this zip, made by any tool, instead.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zip that --output names.")] = False,
) -> None:
    """Write the zip that GLUE's server takes, from the runs that are best on dev; or check one with --check."""
    with errors_in_one_line():
        from isinglass.report.submission import write_submission

        if check is not None and directory is None:
            _check(check)
        elif directory is not None and check is None:
            show_submission(write_submission(directory, output, partial=partial, overwrite=overwrite, select=asdict(only)))
        else:
            raise ConfigError("Name either a directory to make a submission of, or a zip to --check.")


def _check(path: Path) -> None:
    """Print what is wrong with a zip.

    Raises:
        DataError: the server would not take it.
    """
    from isinglass.report.submission import check_submission

    problems = check_submission(path)
    for problem in problems:
        print(printable(str(problem)))
    if problems:
        raise DataError(f"{path} would not be taken: {len(problems)} problems.")
    print(printable(f"{path}: eleven files, each with the right rows, order and alphabet."))
