"""`isinglass submit`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from isinglass.cli.display import show_submission
from isinglass.cli.options import command
from isinglass.config.setting import Settings, setting
from isinglass.errors import ConfigError, DataError
from isinglass.names import printable


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(Settings):
    """Which runs to submit, and how."""

    output: Path = setting(Path("submission.zip"), metavar="FILE")
    """Zip to write."""
    partial: Literal["refuse", "absent", "majority"] = setting("refuse")
    """Files that no run predicts: refuse them, leave them absent, or fill them with the majority label."""
    backend: str | None = setting(None, metavar="NAME")
    """Only runs of this backend."""
    precision: str | None = setting(None, metavar="NAME")
    """Only runs of this precision."""
    model: str | None = setting(None, metavar="NAME")
    """Only runs of this model."""
    seed: int | None = setting(None)
    """Only runs of this seed."""
    check: Path | None = setting(None, metavar="FILE")
    """Check this zip, made by any tool, instead of writing one."""
    overwrite: bool = setting(False)
    """Replace the zip that --output names."""


@command()
def submit(
    options: SubmitOptions,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Directory that `isinglass bench --predict-test` wrote.")
    ] = None,
) -> None:
    """Write the zip that GLUE's server takes, from the runs that are best on dev; or check one with --check."""
    from isinglass.submission import write_submission

    if (directory is None) == (options.check is None):
        raise ConfigError("Name either a directory to make a submission of, or a zip to --check.")
    if directory is None:
        _check(Path(str(options.check)))
        return
    select = {name: getattr(options, name) for name in ("backend", "precision", "model", "seed")}
    partial, overwrite = options.partial, options.overwrite
    show_submission(write_submission(directory, options.output, partial=partial, overwrite=overwrite, select=select))


def _check(path: Path) -> None:
    """Print what is wrong with a zip.

    Raises:
        DataError: the server would not take it.
    """
    from isinglass.submission import check_submission

    problems = check_submission(path)
    for problem in problems:
        print(printable(str(problem)))
    if problems:
        raise DataError(f"{path} would not be taken: {len(problems)} problems.")
    print(printable(f"{path}: eleven files, each with the right rows, order and alphabet."))
