"""`isinglass tune`."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

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
        from isinglass.cli.run_bars import RunBars
        from isinglass.cli.tune_display import TuneDisplay, show_tuned
        from isinglass.training.interruption import Interruption
        from isinglass.tuning import SearchSpace
        from isinglass.tuning import tune as run_search

        base = resolve_options(task, settings, config, assignments)
        space = SearchSpace() if search is None else SearchSpace.parse(search)
        cluster = cluster_options.cluster()
        with Interruption(announce) as interruption, RunBars() as bars:
            tuned = run_search(
                base,
                trials=trials,
                directory=output or Path("tune") / base.task,
                space=space,
                observer=TuneDisplay(bars, trials),
                cluster=cluster,
                interruption=interruption,
            )
        show_tuned(tuned)
