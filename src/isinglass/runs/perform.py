"""One way to perform a run: take the lock, resume, train, evaluate, write."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from isinglass.backends.process_group import ProcessGroup, joined
from isinglass.backends.protocol import check_installed
from isinglass.config import TrainConfig, as_dict, identifying
from isinglass.config.settings import SavingSettings
from isinglass.data.examples import Source
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT, check_output, locked_run, write_run
from isinglass.training.checkpoints import CHECKPOINTS, Checkpoints, Interval, compare_identity
from isinglass.training.interruption import Interruption
from isinglass.training.observers import Observers
from isinglass.training.preparation import FirstWeights
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
        check_output(directory, overwrite=self.overwrite, resume=self.resumes(directory, group))


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
    first_weights: FirstWeights | None = None,
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
        if interruption is None:
            interruption = Interruption(repeated=group.has_launcher)
            if directory is not None:
                stack.enter_context(interruption)
        checkpoints = saving.checkpoints
        if directory is not None:
            directory = Path(directory)
            finished = _finished_result(config, first_weights, directory, group) if saving.resume else None
            if finished is not None:
                return Run(result=finished, directory=directory)
            checkpoints = _open_checkpoints(stack, directory, saving, group)
        trained = train(
            config,
            observers,
            data=data,
            first_weights=first_weights,
            checkpoints=checkpoints,
            interruption=interruption,
            group=group,
        )
        result = trained.result
        if directory is not None and group.rank == 0:
            with interruption.deferred(f"the run is finished, and written to {directory}."):
                result = write_run(trained, directory, overwrite=True)
    return Run(result=result, directory=directory, trained=trained)


def _finished_result(
    config: TrainConfig, first_weights: FirstWeights | None, directory: Path, group: ProcessGroup
) -> RunResult | None:
    """Return the result in `directory`, or None if there is no finished run. Process 0 alone looks whether there is one.

    Raises:
        ConfigError: the run was made with other settings.
    """
    is_finished = (directory / RESULT).is_file() and not (directory / CHECKPOINTS).exists()
    if not any(group.largest(int(is_finished and group.rank == 0))):
        return None
    result = RunResult.read(directory / RESULT)
    saved = identifying(result.config) | {"start_from": result.start_from}
    current = identifying(as_dict(config)) | {"start_from": first_weights.task if first_weights else None}
    compare_identity(saved, current, directory / RESULT)
    return result


def _open_checkpoints(stack: ExitStack, directory: Path, saving: Saving, group: ProcessGroup) -> Checkpoints:
    """Return the checkpoints in the directory of a run. Process 0 alone looks at it and writes to it; it locks it."""
    leads, checkpoints = group.rank == 0, directory / CHECKPOINTS
    resumes = any(group.largest(int(leads and saving.resumes(directory, group))))
    if leads:
        checkpoints = stack.enter_context(locked_run(directory, overwrite=saving.overwrite, resume=resumes))
    every = Interval.parse(saving.checkpoint_every)
    return Checkpoints(directory=checkpoints, every=every, keep=saving.keep_checkpoints, resume=resumes)
