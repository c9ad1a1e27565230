"""`isinglass train`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isinglass.cli.display import show_repetitions, show_result
from isinglass.cli.exits import announce, how_to_resume, processes
from isinglass.cli.options import SourceOptions, TaskArgument, command
from isinglass.cli.progress import progress
from isinglass.config import SETTINGS, TrainConfig
from isinglass.config.setting import Panel, setting
from isinglass.config.settings import AT_LEAST_1
from isinglass.errors import ConfigError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.backends.process_group import ProcessGroup
    from isinglass.results import RunResult
    from isinglass.runs.perform import Saving
    from isinglass.training.observers import Observer


@dataclass(frozen=True, kw_only=True)
class TrainOptions(SourceOptions):
    """Where a run goes, what is kept of it, and what is shown."""

    output_dir: Path | None = setting(None, panel=Panel.MOST_USED, unset="a new directory in runs/", metavar="DIR")
    """Directory of the run."""
    overwrite: bool = setting(False, panel=Panel.OUTPUT)
    """Replace the run in --output-dir."""
    resume: bool = setting(False, panel=Panel.OUTPUT)
    """Resume the run in --output-dir from its last checkpoint."""
    checkpoint_every: str = setting("10min", panel=Panel.OUTPUT, metavar="INTERVAL")
    """Time between checkpoints: 200steps, 1epoch, 5min, or never."""
    keep_checkpoints: int = setting(2, AT_LEAST_1, panel=Panel.OUTPUT)
    """Number of newest checkpoints to keep."""
    runs: int = setting(1, AT_LEAST_1, panel=Panel.OUTPUT)
    """Number of runs; each uses the next seed."""
    log_to: Literal["tensorboard"] | None = setting(None, panel=Panel.OUTPUT)
    """Write scalars to tensorboard/RUN, beside the run."""
    check_only: bool = setting(False)
    """Read, tokenize and check the data, report what was found, and stop."""
    json: bool = setting(False)
    """Print one JSON object, and nothing else, on standard output."""

    def saving(self) -> "Saving":
        """Return how the run is saved.

        Raises:
            ConfigError: options that exclude or need one another.
        """
        from isinglass.runs.perform import Saving

        names = ("resume", "overwrite", "checkpoint_every", "keep_checkpoints")
        saving = Saving(**{name: getattr(self, name) for name in names})
        if self.resume and self.output_dir is None:
            raise ConfigError("--resume needs --output-dir, the directory of the run to continue.")
        return saving


@command(*(name for name, setting in SETTINGS.items() if setting.panel), panels=True, shared=True)
def train(settings: dict[str, Any], options: TrainOptions, task: TaskArgument = None) -> None:
    """Fine-tune a model on a task, score its dev set(s), and write a run directory."""
    from isinglass.backends.process_group import number_of_processes
    from isinglass.backends.registry import check_installed
    from isinglass.cli.own_data import show_data_facts
    from isinglass.runs.directory import new_run_name, repetitions

    config = options.resolve(task, settings)
    saving = options.saving()
    if options.check_only:
        show_data_facts(config)
        return
    if options.output_dir is None and number_of_processes(config.backend) > 1:
        raise ConfigError("Processes that share a run need --output-dir, so that all know where its checkpoints lie.")
    check_installed(config.backend)
    planned = repetitions(config, options.output_dir or Path("runs") / new_run_name(config), options.runs)
    with processes(config.backend) as group:
        results = _perform_all(planned, saving, group, log_to=options.log_to, as_json=options.json)
        if options.runs > 1 and group.rank == 0 and not options.json:
            show_repetitions(results)


def _perform_all(
    planned: "Sequence[tuple[TrainConfig, Path]]",
    saving: "Saving",
    group: "ProcessGroup",
    *,
    log_to: str | None,
    as_json: bool,
) -> "list[RunResult]":
    """Perform one run after another, and show the result of each as soon as it is known."""
    from isinglass.runs.perform import RunNotWrittenError, perform
    from isinglass.training.interruption import Interruption

    leads = group.rank == 0
    if leads:
        for _, directory in planned:
            saving.check(directory, group)
    results = []
    with Interruption(announce if leads else lambda _: None, repeated=group.has_launcher) as interruption:
        for config, directory in planned:
            try:
                with _observers(log_to, directory, leads=leads) as observers, how_to_resume(directory):
                    run = perform(config, directory, observers, saving=saving, interruption=interruption, group=group)
            except RunNotWrittenError as error:
                show_result(error.result, None, as_json=as_json)  # the scores at least are not lost
                raise
            results.append(run.result)
            if not leads:
                continue
            if run.trained is None:
                print(printable(f"{directory} is finished already; this is its result."), file=sys.stderr)
            show_result(run.result, directory, as_json=as_json)
    return results


@contextmanager
def _observers(log_to: str | None, directory: Path, *, leads: bool) -> "Iterator[list[Observer]]":
    """Yield what shows and logs a run. Only the process that leads has any, because only its observers are called."""
    from isinglass.cli.own_data import OwnDataFacts
    from isinglass.runs.tensorboard import TensorBoardLog

    if not leads:
        yield []
        return
    with progress() as bar:
        if log_to is None:
            yield [bar, OwnDataFacts()]
            return
        with TensorBoardLog(directory.parent / "tensorboard" / directory.name) as log:
            yield [bar, OwnDataFacts(), log]
