"""Observers: objects that a run tells about its progress.

Their methods have the names of the callbacks of `transformers`, and get small records.

    class PrintEpochs(Observer):
        def on_epoch_end(self, state: RunState) -> None:
            print(f"{state.epochs_done} of {state.epochs} epochs are done")

    isinglass.train(config, [PrintEpochs()])

Only the main process of a run calls them, in the order in which they are listed. An exception that an observer raises ends
the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from isinglass.errors import MissingDependencyError
from isinglass.results import RunResult
from isinglass.training.preparation import PreparedRun

REPORT_SECONDS: Final = 0.2
"""The shortest time between two calls of `on_step_end` or `on_prediction_step`: reading a loss waits for the device."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One training step: `epoch` and `step` count from 0, `loss` is the mean over the examples of the step."""

    epoch: int
    step: int
    learning_rate: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the training is, or the prediction of one split.

    Attributes:
        stage: `train`, or `evaluate SPLIT`.
        epoch, epochs: of the newest step, counted from 0, and their number; both 0 in a prediction.
        done, total: training steps, or examples of the split.
        loss: mean of the newest 20 finite losses, NaN if there are none; None in a prediction.
        tokens_per_second: real tokens, since this process began the stage.
        seconds_left: of training, with the scoring between epochs, at the speed so far; None at its very beginning and in a
            prediction.
    """

    stage: str
    epoch: int = 0
    epochs: int = 0
    done: int
    total: int
    loss: float | None = None
    tokens_per_second: float
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run between two training steps.

    Attributes:
        step: number of steps done; those of an earlier process count where the run was resumed.
        epochs_done: number of complete epochs.
        metric: name of the metric that picks the best epoch.
        epoch_scores: that metric after each epoch so far, averaged over the dev sets; empty if no best epoch is picked.
        checkpoint: the newest checkpoint that this process has written.
    """

    step: int
    total_steps: int
    epochs_done: int
    epochs: int
    metric: str
    epoch_scores: tuple[float, ...]
    checkpoint: Path | None


class Observer:
    """Base class of observers: every method does nothing until it is overridden."""

    def on_train_begin(self, run: PreparedRun, state: RunState) -> None:
        """Called before the first training step, with the data and the model."""

    def on_step_end(self, progress: Progress, steps: Sequence[StepRecord]) -> None:
        """Called with the training steps since the last call: every REPORT_SECONDS, and after the last step of all."""

    def on_epoch_end(self, state: RunState) -> None:
        """Called after the last step of each epoch, before the epoch is evaluated."""

    def on_prediction_step(self, progress: Progress) -> None:
        """Called while a split is predicted: every REPORT_SECONDS, and after its last batch."""

    def on_evaluate(self, state: RunState) -> None:
        """Called after the evaluation of an epoch, where the best epoch is picked."""

    def on_save(self, state: RunState) -> None:
        """Called after a checkpoint was written."""

    def on_train_end(self, result: RunResult) -> None:
        """Called after the final evaluation, before anything of the run is written."""


Observers = Sequence[Observer]


class ProgressObserver(Observer):
    """An observer that hands the progress of all stages to one function."""

    def __init__(self, show: Callable[[Progress], None]) -> None:
        self._show = show

    def on_step_end(self, progress: Progress, steps: Sequence[StepRecord]) -> None:  # noqa: ARG002
        """Show the progress of the training."""
        self._show(progress)

    def on_prediction_step(self, progress: Progress) -> None:
        """Show the progress of a prediction."""
        self._show(progress)


class TensorBoardLog(Observer):
    """An observer that writes the events of one run. `close` it also where the run fails.

    Args:
        directory: made when training begins. Events of an earlier run in it are removed: TensorBoard would draw both as one
            curve.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        if find_spec("tensorboardX") is None:
            raise MissingDependencyError(
                "--log-to tensorboard needs tensorboardX, which is not installed: `pip install 'isinglass[tensorboard]'`."
            )
        self._directory = directory
        self._writer: Any = None
        self._steps = 0

    def on_train_begin(self, run: PreparedRun, state: RunState) -> None:  # noqa: ARG002
        """Begin the file of events."""
        from tensorboardX import SummaryWriter

        for events in self._directory.glob("events.out.tfevents.*"):
            events.unlink()
        self._writer = SummaryWriter(str(self._directory))

    def on_step_end(self, progress: Progress, steps: Sequence[StepRecord]) -> None:
        """Write loss and learning rate of each step, and the speed."""
        for step in steps:
            self._writer.add_scalar("train/loss", step.loss, step.step)
            self._writer.add_scalar("train/learning_rate", step.learning_rate, step.step)
        self._steps = progress.done
        self._writer.add_scalar("train/tokens_per_second", progress.tokens_per_second, self._steps - 1)

    def on_train_end(self, result: RunResult) -> None:
        """Write the scores at the last step; NaN is left out."""
        for split, metric, score in result.each_score():
            if score.value is not None:
                self._writer.add_scalar(f"{split}/{metric}", score.value, self._steps)
        self.close()

    def close(self) -> None:
        """Write what is buffered, and close the file if there is one."""
        if self._writer is not None:
            self._writer.close()
