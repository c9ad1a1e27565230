"""Show how far runs are: bars on a terminal, lines of text elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from isinglass.cli.display import console

if TYPE_CHECKING:
    from isinglass.training.observers import Observer, Progress

LOG_SECONDS: Final = 60.0  # the longest time between two lines of progress


class _TerminalBars:
    """Bars of the stages of runs, in a display of rich."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._bars: dict[tuple[str, str], Any] = {}  # label of a run and its stage -> bar

    def show(self, label: str, progress: "Progress") -> None:
        key = (label, progress.stage)
        if key not in self._bars:
            self._bars[key] = self._display.add_task(label, total=progress.total, figures="")
        stage = progress.stage if progress.loss is None else f"epoch {progress.epoch + 1}/{progress.epochs}"
        figures = _figures(progress)
        self._display.update(self._bars[key], completed=progress.done, description=f"{label}{stage}", figures=figures)

    def end(self, label: str) -> None:
        for key in [*self._bars]:
            if key[0] == label:
                self._display.remove_task(self._bars.pop(key))


class _Lines:
    """Lines on standard error: the first report of a stage, every ten percent, and each minute."""

    def __init__(self) -> None:
        self._printed: dict[tuple[str, str], tuple[int, float]] = {}  # run and stage -> tenths done and time, when printed

    def show(self, label: str, progress: "Progress") -> None:
        key, tenths, now = (label, progress.stage), 10 * progress.done // progress.total, time.monotonic()
        if key in self._printed:
            printed_tenths, printed_at = self._printed[key]
            if tenths <= printed_tenths and now - printed_at < LOG_SECONDS:
                return
        self._printed[key] = (tenths, now)
        epoch = "" if progress.loss is None else f", epoch {progress.epoch + 1}/{progress.epochs}"
        line = f"{label}{progress.stage} {progress.done}/{progress.total}{epoch}, {_figures(progress)}"
        print(line, file=sys.stderr, flush=True)

    def end(self, label: str) -> None:
        self._printed = {key: printed for key, printed in self._printed.items() if key[0] != label}


def _figures(progress: "Progress") -> str:
    loss = "" if progress.loss is None else f"loss {progress.loss:.3f}, "
    return f"{loss}{progress.tokens_per_second:,.0f} tokens/s"


@contextmanager
def _open_bars() -> Iterator[_TerminalBars | _Lines]:
    if not (sys.stderr and sys.stderr.isatty()):
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    figures = TextColumn("{task.fields[figures]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn())
    with ProgressBar(*columns, console=console(stderr=True)) as display:
        yield _TerminalBars(display)


class RunBars:
    """The bars of the runs of a bench or a search.

    A run that has the screen for itself has bars from its begin to its end. Runs that are performed at the same time share a
    display that stays, and each line names its run.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bars: _TerminalBars | _Lines | None = None
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
            self._bars = self._stack.enter_context(_open_bars())

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


@contextmanager
def progress() -> "Iterator[Observer]":
    """Yield an observer that shows the progress of one run."""
    from isinglass.training.observers import ProgressObserver

    with RunBars() as bars:
        bars.begin()
        yield ProgressObserver(partial(bars.show, ""))
