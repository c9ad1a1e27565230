"""`isinglass push`."""

from dataclasses import dataclass
from typing import Annotated

import typer

from isinglass.cli.options import RunDir, command
from isinglass.config.setting import Settings, setting
from isinglass.names import printable


@dataclass(frozen=True, kw_only=True)
class PushOptions(Settings):
    """What the repository on the hub is like."""

    private: bool = setting(False)
    """Create the repository as private."""
    revision: str | None = setting(None, metavar="BRANCH", unset="main")
    """Branch of the repository."""
    license: str | None = setting(None, metavar="NAME")
    """License of the model, for its card, such as mit."""


@command()
def push(
    run_dir: RunDir,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the hub; created if it does not exist.")],
    options: PushOptions,
) -> None:
    """Send a run's model and its card to the hub, in one commit; nothing else of the run is sent."""
    from isinglass.export.push import push_run

    pushed = push_run(run_dir, repo, private=options.private, revision=options.revision, license=options.license)
    print(printable(f"{pushed.url} (commit {pushed.commit})"))
