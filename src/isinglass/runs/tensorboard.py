"""Scalars that TensorBoard shows: loss, learning rate and speed while a run is trained, its scores when it ends."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isinglass.errors import MissingDependencyError
from isinglass.results import RunResult
from isinglass.training.observers import Observer, Progress, StepRecord


class TensorBoardLog(Observer):
    """An observer that writes the events of one run; `with` closes its file also where the run fails.

    Args:
        directory: made for the first event. Events of an earlier run in it are removed: TensorBoard would draw both as one
            curve.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise MissingDependencyError(
                "--log-to tensorboard needs tensorboardX, which is not installed: `pip install 'isinglass[tensorboard]'`."
            ) from None
        self._directory = directory
        self._steps = 0

    def on_step_end(self, progress: Progress, steps: Sequence[StepRecord]) -> None:
        """Write loss and learning rate of each step, and the speed."""
        for step in steps:
            self._writer.add_scalar("train/loss", step.loss, step.step)
            self._writer.add_scalar("train/learning_rate", step.learning_rate, step.step)
        self._steps = progress.done
        self._writer.add_scalar("train/tokens_per_second", progress.tokens_per_second, self._steps - 1)

    def on_train_end(self, result: RunResult) -> None:
        """Write the scores at the last step; NaN is left out."""
        for split, scores in result.scores.items():
            for metric, score in scores.items():
                if score.value is not None:
                    self._writer.add_scalar(f"{split}/{metric}", score.value, self._steps)
        self.close()

    def close(self) -> None:
        """Write what is buffered, and close the file if there is one."""
        if "_writer" in self.__dict__:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def _writer(self) -> Any:
        from tensorboardX import SummaryWriter

        for events in self._directory.glob("events.out.tfevents.*"):
            events.unlink()
        return SummaryWriter(str(self._directory))
