"""`isinglass push`."""

from typing import Annotated

import typer

from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import RunDir
from isinglass.names import printable


def push(
    run_dir: RunDir,
    repo: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="Repository on the hub; it is created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch of the repository.  [default: main]")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="License of the model, for its card, such as mit.")
    ] = None,
) -> None:
    """Send a run's model and its card to the hub, in one commit; nothing else of the run is sent."""
    with errors_in_one_line():
        from isinglass.export.push import push_run

        pushed = push_run(run_dir, repo, private=private, revision=revision, license=license_name)
        print(printable(f"{pushed.url} (commit {pushed.commit})"))
