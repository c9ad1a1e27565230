"""What the clock covers: one definition, for every figure in seconds or per second."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final

CLOCK: Final = (
    "Training time is the wall clock of all training steps with their input, the device synchronised before each reading; "
    "tokenizing, evaluation and writing are not in it. Compile time falls in the first epoch and is part of it."
)


class EpochClock:
    """A stopwatch: `with clock:` around each epoch, and `clock.seconds` has one figure for each.

    Args:
        synchronize: waits until the device has finished all its work.
        seconds: of the epochs that an earlier process finished.
        carried: of the epoch that it left unfinished.
    """

    def __init__(self, synchronize: Callable[[], None], seconds: Sequence[float] = (), *, carried: float = 0.0) -> None:
        self.seconds = list(seconds)
        self._carried = carried
        self._started: float | None = None
        self._synchronize = synchronize

    def __enter__(self) -> None:
        self._synchronize()
        self._started = time.perf_counter() - self._carried
        self._carried = 0.0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        now = self.read()
        self._started = None
        if kind is None:
            self.seconds = now
        else:
            self._carried = now[-1]

    def read(self) -> list[float]:
        """Return the seconds of each epoch, those of an unfinished one included."""
        if self._started is None:
            return [*self.seconds, self._carried] if self._carried else list(self.seconds)
        self._synchronize()
        return [*self.seconds, time.perf_counter() - self._started]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        self._synchronize()
        paused = time.perf_counter()
        try:
            yield
        finally:
            if self._started is not None:
                self._started += time.perf_counter() - paused
