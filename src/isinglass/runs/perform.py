"""One way to perform a run: take the lock, resume, train, evaluate, write."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isinglass.backends.process_group import ProcessGroup, joined
from isinglass.backends.registry import check_installed
from isinglass.config import TrainConfig
from isinglass.config.settings import SavingSettings
from isinglass.data.examples import Source
from isinglass.errors import StorageError
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT, check_output, finished_result, locked_run, write_run
from isinglass.training.checkpoints import CHECKPOINTS, Checkpoints, Interval
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import Observers
from isinglass.training.trainer import TrainedRun, train


class Saving(SavingSettings):
    """How a run is saved while it is trained, and what may stand in its directory before.

    Attributes:
        checkpoints: those of a run without a directory; None: it has none.

    Raises:
        ConfigError: `checkpoint_every` is no interval, or both `resume` and `overwrite` are set.
    """

    checkpoints: Checkpoints | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        Interval.parse(self.checkpoint_every)

    def resumes(self, directory: Path, group: ProcessGroup) -> bool:
        """Tell whether the run in `directory` is continued.

        Processes that a launcher has started again continue even where they were told to overwrite, once the run that they
        replace has checkpoints of its own.
        """
        if self.resume or not group.restarted:
            return self.resume
        return not self.overwrite or any((directory / CHECKPOINTS).glob("*"))

    def check(self, directory: Path, group: ProcessGroup) -> None:
        """Refuse, before any work is done, a directory that the run cannot be written to.

        Raises:
            OutputExistsError, ConfigError: as `check_output`.
        """
        resumes = self.resumes(directory, group)
        check_output(directory, overwrite=self.overwrite and not resumes, resume=resumes)


class RunNotWrittenError(StorageError):
    """A run was trained and scored, but could not be written; `result` is its result."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        directory: where it was written; None: nowhere.
        trained: its model and outputs; None where the run had been finished before.
    """

    result: RunResult
    directory: Path | None = None
    trained: TrainedRun | None = None


def perform(
    config: TrainConfig,
    directory: str | Path | None = None,
    observers: Observers = (),
    *,
    saving: Saving = Saving(),
    data: Source | None = None,
    first_weights: str | None = None,
    interruption: Interruption | None = None,
    group: ProcessGroup | None = None,
) -> Run:
    """Train and score a model, and write the run to its directory: what `isinglass train` does.

    While it is trained, the directory is locked and holds checkpoints. At SIGTERM and Ctrl-C a last checkpoint is written.
    Processes that torchrun started, or that TF_CONFIG names, share the run; process 0 alone writes and calls the observers.

    Example: `perform(resolve(task="mrpc"), "runs/mrpc", saving=Saving(resume=True))`.

    Args:
        directory: None: nothing is written.
        data: the task and its examples; None: what `config` names.
        first_weights: the model to begin with, if it is not `config.model` itself but one fine-tuned from it before.
        interruption: tells that the process was asked to end; None: the signals are listened to if the run has a directory
            and this is the main thread.
        group: the processes that share the run; None: those that the environment names.

    Raises:
        OutputExistsError: the directory holds something else, or another process holds it.
        RunNotWrittenError: the disk is full, say; the error has the result.
        IsinglassError: of the kind that says what is wrong with the settings, the data or the model.
        Interrupted: the process was asked to end.
    """
    check_installed(config.backend)
    with ExitStack() as stack:
        if group is None:
            group = stack.enter_context(joined(config.backend))
        if interruption is None and directory is not None:
            interruption = stack.enter_context(_listening(group))
        training = partial(
            train, config, observers, data=data, first_weights=first_weights, interruption=interruption, group=group
        )
        if directory is None or interruption is None:
            trained = training(checkpoints=saving.checkpoints)
            return Run(result=trained.result, trained=trained)
        return _perform_in(Path(directory), config, training, saving, interruption, group)


def _perform_in(
    directory: Path,
    config: TrainConfig,
    training: Callable[..., TrainedRun],
    saving: Saving,
    interruption: Interruption,
    group: ProcessGroup,
) -> Run:
    """Train with checkpoints in the directory, and write the run there. Process 0 alone looks at it and writes to it."""
    leads = group.rank == 0
    finished = finished_result(config, directory) if leads and saving.resume else None
    if _in_any_process(group, finished is not None):
        return Run(result=finished or RunResult.read(directory / RESULT), directory=directory)
    resumes = _in_any_process(group, leads and saving.resumes(directory, group))
    lock: AbstractContextManager[Path] = nullcontext(directory / CHECKPOINTS)
    if leads:
        lock = locked_run(directory, overwrite=saving.overwrite and not resumes, resume=resumes)
    with lock as checkpoints:
        trained = training(
            checkpoints=Checkpoints(
                directory=checkpoints,
                every=Interval.parse(saving.checkpoint_every),
                keep=saving.keep_checkpoints,
                resume=resumes,
            )
        )
        result = _write(trained, directory, interruption) if leads else trained.result
    return Run(result=result, directory=directory, trained=trained)


def _write(trained: TrainedRun, directory: Path, interruption: Interruption) -> RunResult:
    try:
        with interruption.deferred():
            return write_run(trained, directory, overwrite=True)
    except StorageError as error:
        raise RunNotWrittenError(str(error), trained.result) from error
    except Interrupted as interrupted:
        raise Interrupted(interrupted.number, f"the run is finished, and written to {directory}.") from None


def _in_any_process(group: ProcessGroup, value: bool) -> bool:
    return any(group.largest(int(value)))


@contextmanager
def _listening(group: ProcessGroup) -> Iterator[Interruption]:
    """Yield an interruption that listens to the signals, where Python lets it: in the main thread."""
    interruption = Interruption(repeated=group.has_launcher)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    with interruption:
        yield interruption
