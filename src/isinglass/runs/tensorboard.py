"""Scalars that TensorBoard shows: loss, learning rate and speed as a run goes on, its dev scores when it ends."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isinglass.errors import MissingDependencyError
from isinglass.results import RunResult, by_split
from isinglass.training.progress import Progress


class TensorBoardLog:
    """A directory of events, made when there is the first one to write; `with` closes it.

    Args:
        directory: events of an earlier run that lie there are removed: TensorBoard would draw both as one curve.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
        OSError: the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise MissingDependencyError(
                "--log-to tensorboard needs tensorboardX, which is not installed: `pip install 'isinglass[tensorboard]'`."
            ) from None
        self._open: Callable[[str], Any] = SummaryWriter
        self._directory = directory
        self._steps = 0

    def after(self, on_progress: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """A callback that calls `on_progress` and then writes."""

        def both(now: Progress) -> None:
            on_progress(now)
            self.progress(now)

        return both

    def progress(self, now: Progress) -> None:
        """Write the steps since the last call; evaluation has none."""
        for step in now.steps:
            self._writer.add_scalar("train/loss", step.loss, step.step)
            self._writer.add_scalar("train/learning_rate", step.learning_rate, step.step)
        if now.steps:
            self._steps = now.steps[-1].step + 1
            self._writer.add_scalar("train/tokens_per_second", now.tokens_per_second, self._steps - 1)

    def result(self, result: RunResult) -> None:
        """Write the scores at the last step; NaN is left out."""
        for split, scores in by_split(result.metrics, result.split.split("+")).items():
            for name, value in scores.items():
                if value is not None:
                    self._writer.add_scalar(f"{split}/{name}", value, self._steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._steps:
            self._writer.close()

    @cached_property
    def _writer(self) -> Any:
        for events in self._directory.glob("events.out.tfevents.*"):
            events.unlink()
        return self._open(str(self._directory))
