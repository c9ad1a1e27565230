"""What the clock covers: one definition, for every figure in seconds or per second."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

CLOCK: Final = (
    "Training time is the wall clock of all training steps with their input, the device synchronised before each reading; "
    "tokenizing, evaluation and writing are not in it. Compile time falls in the first epoch and is part of it."
)


class EpochClock:
    """`with clock:` around each epoch; `clock.seconds` has one figure for each.

    Args:
        synchronize: waits until the device has done all that was asked of it.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self._synchronize = synchronize

    def __enter__(self) -> None:
        self._synchronize()
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._synchronize()
            self.seconds.append(time.perf_counter() - self._started)
