"""The progress of many runs: one after another, or several at the same time."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from isinglass.cli.display import Bars, progress_bars

if TYPE_CHECKING:
    from isinglass.training.observers import Progress


class RunBars:
    """The bars of the runs of a bench or a search.

    A run that has the screen for itself has bars from its begin to its end. Runs that are performed at the same time share a
    display that stays, and each line names its run.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bars: Bars | None = None
        self._is_shared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def share(self) -> None:
        """Expect runs that are performed at the same time."""
        self._is_shared = True

    def label(self, name: str) -> str:
        """Return what the lines of a run begin with."""
        return f"[{name}] " if self._is_shared else ""

    def begin(self) -> None:
        """Open the bars of a run."""
        if self._bars is None:
            self._bars = self._stack.enter_context(progress_bars())

    def show(self, label: str, progress: "Progress") -> None:
        """Show how far a run is."""
        if self._bars is not None:
            self._bars.show(label, progress)

    def end(self, label: str) -> None:
        """Remove the bars of a run."""
        if self._is_shared and self._bars is not None:
            self._bars.end(label)
            return
        self._stack.close()
        self._bars = None
