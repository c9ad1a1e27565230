"""`isinglass tune`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from isinglass.cli.display import connected, show_tuned, trial_events
from isinglass.cli.exits import announce, errors_in_one_line
from isinglass.cli.options import (
    TABLE_SETTINGS,
    Assignments,
    ClusterOptions,
    ConfigFile,
    TaskArgument,
    resolve_options,
    with_options,
)

_SETTINGS: Final = (
    "data_dir",
    *(name for name in TABLE_SETTINGS if name not in ("test_file", "validation_fraction")),
    "model",
    "backend",
    "precision",
)


@with_options(*_SETTINGS)
def tune(
    task: TaskArgument = None,
    *,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of runs in all, those of an earlier call included.")
    ] = 20,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the study. A study in it is continued.  [default: tune/TASK]"),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="SPACE",
            help="Settings to search, some or all of learning_rate=1e-5:5e-4,epochs=2:5,batch_size=16:32:64,seed. A name "
            "alone has its usual range.",
        ),
    ] = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    settings: dict[str, Any],
    cluster_options: ClusterOptions,
) -> None:
    """Search learning rate, epochs and batch size on held-out data, resumably; the best become a recipe file."""
    with errors_in_one_line():
        from functools import partial

        from isinglass.training.interruption import Interruption
        from isinglass.training.observers import ProgressObserver
        from isinglass.tuning import WORKER, Elsewhere, SearchSpace
        from isinglass.tuning import tune as run_tuning

        base = resolve_options(task, settings, config, assignments)
        directory = output or Path("tune") / base.task
        space = SearchSpace() if search is None else SearchSpace.parse(search)
        place = cluster_options.place()
        with ExitStack() as stack:
            cluster = None if place is None else stack.enter_context(connected(place, directory, WORKER))
            interruption = stack.enter_context(Interruption(announce))
            on_trial, on_progress = stack.enter_context(trial_events(trials, several=cluster is not None))
            found = run_tuning(
                base,
                trials=trials,
                directory=directory,
                space=space,
                on_trial=on_trial,
                observers=[ProgressObserver(partial(on_progress, 0))],
                interruption=interruption,
                elsewhere=None if cluster is None else Elsewhere(executor=cluster, on_progress=on_progress),
            )
        show_tuned(found)
