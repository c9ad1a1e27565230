"""The command line: parses, calls and prints, and nothing else.

Results go to standard output; progress, notes and errors to standard error. What takes time to import is imported inside
the commands, so that `--help` answers at once.
"""

from typing import Annotated

import typer

from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.finished import evaluate, export, predict, push, report, submit
from isinglass.cli.options import PanelCommand, PanelGroup
from isinglass.cli.training import bench, tasks, train, tune

app = typer.Typer(
    name="isinglass",
    cls=PanelGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for _command in (train, evaluate, predict, bench, report, submit, tune, export, push, tasks):
    app.command(cls=PanelCommand)(_command)


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Fine-tune BERT-like text classifiers on GLUE and your own data, without paying for padding."""
    if version:
        from importlib.metadata import version as installed

        with errors_in_one_line():
            print(installed("isinglass"))
        raise typer.Exit


def main() -> None:
    """Entry point of the `isinglass` command."""
    app()
