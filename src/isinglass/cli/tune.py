"""`isinglass tune`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isinglass.cli.exits import announce
from isinglass.cli.options import TABLE_SETTINGS, ClusterOptions, SourceOptions, TaskArgument, command
from isinglass.config.setting import setting
from isinglass.config.settings import AT_LEAST_1

_TABLES: Final = [name for name in TABLE_SETTINGS if name not in ("test_file", "validation_fraction")]


@dataclass(frozen=True, kw_only=True)
class TuneOptions(ClusterOptions, SourceOptions):
    """What to search, and where."""

    trials: int = setting(20, AT_LEAST_1)
    """Number of runs in all, those of an earlier call included."""
    output: Path | None = setting(None, metavar="DIR", unset="tune/TASK")
    """Directory of the study. A study in it is continued."""
    search: str | None = setting(None, metavar="SPACE")
    """Settings to search, some or all of learning_rate=1e-5:5e-4,epochs=2:5,batch_size=16:32:64,seed. A name alone has its
    usual range.
    """


@command("data_dir", *_TABLES, "model", "backend", "precision")
def tune(options: TuneOptions, settings: dict[str, Any], task: TaskArgument = None) -> None:
    """Search learning rate, epochs and batch size on held-out data, resumably; the best become a recipe file."""
    from isinglass.cli.progress import RunBars
    from isinglass.cli.tune_display import TuneDisplay, show_tuned
    from isinglass.training.interruption import Interruption
    from isinglass.tuning import SearchSpace
    from isinglass.tuning import tune as run_search

    config = options.resolve(task, settings)
    space = SearchSpace() if options.search is None else SearchSpace.parse(options.search)
    cluster = options.cluster()
    with Interruption(announce) as interruption, RunBars() as bars:
        tuned = run_search(
            config,
            trials=options.trials,
            directory=options.output or Path("tune") / config.task,
            space=space,
            observer=TuneDisplay(bars, options.trials),
            cluster=cluster,
            interruption=interruption,
        )
    show_tuned(tuned)
