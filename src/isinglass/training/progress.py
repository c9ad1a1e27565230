"""How far a run is, in one record for all its stages."""

from collections.abc import Callable
from dataclasses import dataclass

from isinglass.training.observers import Observer, PredictionStep, StepEnd


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, as displays show it and messages between processes carry it.

    Attributes:
        stage: `train`, or `evaluate SPLIT`.
        epoch, epochs: counted from 0, and their number; both 0 in an evaluation.
        done, total: steps of the training, or examples of the split.
        loss: None in an evaluation.
    """

    stage: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    tokens_per_second: float


class ProgressObserver(Observer):
    """An observer that hands training and prediction steps to one function.

    Args:
        show: called with the progress after each report.
    """

    def __init__(self, show: Callable[[Progress], None]) -> None:
        self._show = show

    def on_step_end(self, event: StepEnd) -> None:
        """Show the training steps."""
        self._show(
            Progress(
                stage="train",
                epoch=event.epoch,
                epochs=event.epochs,
                done=event.step,
                total=event.total_steps,
                loss=event.loss,
                tokens_per_second=event.tokens_per_second,
            )
        )

    def on_prediction_step(self, event: PredictionStep) -> None:
        """Show the predicted examples."""
        self._show(
            Progress(
                stage=f"evaluate {event.split}",
                epoch=0,
                epochs=0,
                done=event.done,
                total=event.total,
                loss=None,
                tokens_per_second=event.tokens_per_second,
            )
        )
