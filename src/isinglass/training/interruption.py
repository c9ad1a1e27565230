"""SIGTERM and Ctrl-C: the first asks the run to stop where nothing is lost, the second ends it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to end. `number` is that of the signal; the message says what was saved, if anything was."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


class Interruption:
    """Whether one of the two signals has arrived. `with` listens to them.

    Outside of `deferred` a signal raises Interrupted where it arrives. Within it is noted, and `check` raises.

    Attributes:
        number: of the signal that has arrived; 0 if none has.

    Args:
        announce: tells the user that a signal has arrived and waits. It is called in the middle of whatever runs, a print
            included, and must not use what that may hold: a buffered stream, a lock.
        repeated: whether a launcher repeats its own signals to this process. Then only the first counts, and the launcher
            ends a process that does not end.
    """

    def __init__(self, announce: Callable[[str], None] = lambda _: None, *, repeated: bool = False) -> None:
        self._announce = announce
        self._repeated = repeated
        self.number = 0
        self._deferring = False

    def __enter__(self) -> "Interruption":
        """Listen, where Python lets it: in the main thread."""
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._arrived) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self, message: str = "") -> Iterator[None]:
        """Within the block, let a signal wait for `check`, or for the end of the block, where the error has the message."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check(message)

    def check(self, message: str = "") -> None:
        """Raise Interrupted if a signal has arrived."""
        if self.number:
            raise Interrupted(self.number, message)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        later_signals = signal.SIG_IGN if self._repeated else signal.SIG_DFL
        signal.signal(signal.SIGINT, later_signals)
        signal.signal(signal.SIGTERM, later_signals)
        self.number = number
        if not self._deferring:
            raise Interrupted(number)
        once_more = "" if self._repeated else "; once more ends at once"
        self._announce(f"{signal.Signals(number).name}: ending after what is under way{once_more}.")
