"""Observers: objects that a run tells how it goes on.

Their methods have the names of the callbacks of `transformers`. Each gets one small record.

    class PrintEpochs(Observer):
        def on_epoch_end(self, event: EpochEnd) -> None:
            print(f"epoch {event.epoch + 1} of {event.epochs}")

    isinglass.train(config, [PrintEpochs()])

Only the main process of a run calls them, in the order in which they are listed. An exception that an observer raises ends
the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isinglass.config import TrainConfig
from isinglass.results import RunResult
from isinglass.tasks import Task
from isinglass.training.preparation import PreparedSplit

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
class TrainBegin:
    """What a run is about to do.

    Attributes:
        splits: name -> what is trained on, scored or predicted.
        step: number of steps that an earlier process did; 0 unless the run is resumed.
    """

    config: TrainConfig
    task: Task
    splits: Mapping[str, PreparedSplit]
    step: int
    total_steps: int


@dataclass(frozen=True, kw_only=True)
class StepEnd:
    """The training steps since the last call.

    Attributes:
        epoch: of the newest step, counted from 0.
        step: number of steps done.
        loss: mean of the newest 20 finite losses; NaN if there is none.
        tokens_per_second: real tokens, since this process began to train.
        steps: the new steps, the oldest first.
    """

    epoch: int
    epochs: int
    step: int
    total_steps: int
    loss: float
    tokens_per_second: float
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """An epoch whose last step is done: `epoch` counts from 0, `step` is the number of steps done."""

    epoch: int
    epochs: int
    step: int


@dataclass(frozen=True, kw_only=True)
class PredictionStep:
    """How far the prediction of one split is: `done` of `total` examples."""

    split: str
    done: int
    total: int
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """The scores after an epoch.

    Attributes:
        metric: name of the metric that picks the best epoch.
        epoch_scores: that metric, averaged over the dev sets, after each epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    metric: str
    epoch_scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Save:
    """A checkpoint that was written after `step` steps."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class TrainEnd:
    """A run that is trained and scored, before anything of it is written."""

    result: RunResult


class Observer:
    """Base class of observers: every method does nothing until it is overridden."""

    def on_train_begin(self, event: TrainBegin) -> None:
        """Called before the first training step."""

    def on_step_end(self, event: StepEnd) -> None:
        """Called with the training steps since the last call: every REPORT_SECONDS, and after the last step of all."""

    def on_epoch_end(self, event: EpochEnd) -> None:
        """Called after the last step of each epoch, before the epoch is evaluated."""

    def on_prediction_step(self, event: PredictionStep) -> None:
        """Called while a split is predicted: every REPORT_SECONDS, and after its last batch."""

    def on_evaluate(self, event: Evaluate) -> None:
        """Called after the evaluation of an epoch, where the best epoch is picked."""

    def on_save(self, event: Save) -> None:
        """Called after a checkpoint was written."""

    def on_train_end(self, event: TrainEnd) -> None:
        """Called after the final evaluation."""


Observers = Sequence[Observer]
