"""`isinglass report`."""

from pathlib import Path
from typing import Annotated

import typer

from isinglass.cli.options import command
from isinglass.errors import DataError
from isinglass.names import printable


@command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that `isinglass bench` wrote.")],
    published: Annotated[bool, typer.Option("--published", help="Show the published figure beside each row.")] = False,
) -> None:
    """Make one HTML page, and Markdown, of a bench: tables, curves, intervals, differences, mistakes."""
    from isinglass.report.html import write_report
    from isinglass.results import read_records

    for path in write_report(directory, with_published=published):
        print(printable(str(path)))
    damaged = read_records(directory).damaged
    if damaged:
        lines = ", ".join(f"line {line.number} ({line.reason})" for line in damaged)
        raise DataError(
            f"{directory / 'results.jsonl'} is damaged at {lines}: the report shows the rest; `isinglass bench` on it "
            f"sets such lines aside and makes their runs again."
        )
