"""`isinglass push`."""

from typing import Annotated

import typer

from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import RunDir
from isinglass.names import printable


def push(
    run_dir: RunDir,
    repo: Annotated[str, typer.Argument(help="USER/NAME on the hub, made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch.  [default: main]")] = None,
    license_name: Annotated[str | None, typer.Option("--license", help="Of the model, for its card: mit, say.")] = None,
) -> None:
    """Send a run's model and its card to the hub, in one commit; nothing else of the run is sent."""
    with errors_in_one_line():
        from isinglass.export.push import push_run

        pushed = push_run(run_dir, repo, private=private, revision=revision, license=license_name)
        print(printable(f"{pushed.url} (commit {pushed.commit})"))
