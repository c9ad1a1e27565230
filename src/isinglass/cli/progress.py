"""Show how far runs are: bars on a terminal, lines of text elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from isinglass.training.observers import Observer, Progress

LOG_SECONDS: Final = 60.0  # the longest time between two lines of progress


class RunBars(ExitStack):
    """The progress of one run after another, or of several at the same time.

    On a terminal each stage of a run has a bar, until the run ends. Elsewhere lines are printed: the first report of a
    stage, every ten percent, and each minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_shared = False
        self._display: Any = None  # of rich, from the first report on
        self._bars: dict[tuple[str, str], Any] = {}  # label of a run and its stage -> bar
        self._printed: dict[tuple[str, str], tuple[int, float]] = {}  # the same -> tenths done and time, when printed

    def on_connect(self, summary: str) -> None:
        """Print what a cluster has, and expect runs at the same time: each line names its run."""
        self._is_shared = True
        print(summary, file=sys.stderr, flush=True)

    def label(self, name: str) -> str:
        """Return what the lines of a run begin with."""
        return f"[{name}] " if self._is_shared else ""

    def show(self, label: str, progress: "Progress") -> None:
        """Show how far a run is."""
        loss = "" if progress.loss is None else f"loss {progress.loss:.3f}, "
        figures = f"{loss}{progress.tokens_per_second:,.0f} tokens/s"
        epoch = "" if progress.loss is None else f"epoch {progress.epoch + 1}/{progress.epochs}"
        if sys.stderr and sys.stderr.isatty():
            self._draw(label, progress, epoch or progress.stage, figures)
        else:
            self._print(label, progress, epoch and f", {epoch}", figures)

    def end(self, label: str) -> None:
        """Remove the bars of a run."""
        self._printed = {key: printed for key, printed in self._printed.items() if key[0] != label}
        for key in [key for key in self._bars if key[0] == label]:
            self._display.remove_task(self._bars.pop(key))

    def _draw(self, label: str, progress: "Progress", stage: str, figures: str) -> None:
        key = (label, progress.stage)
        if self._display is None:
            self._display = self.enter_context(_open_display())
        if key not in self._bars:
            self._bars[key] = self._display.add_task(label, total=progress.total, figures="")
        self._display.update(self._bars[key], completed=progress.done, description=f"{label}{stage}", figures=figures)

    def _print(self, label: str, progress: "Progress", epoch: str, figures: str) -> None:
        key, tenths, now = (label, progress.stage), 10 * progress.done // progress.total, time.monotonic()
        printed_tenths, printed_at = self._printed.get(key, (-1, now))
        if tenths > printed_tenths or now - printed_at >= LOG_SECONDS:
            self._printed[key] = (tenths, now)
            line = f"{label}{progress.stage} {progress.done}/{progress.total}{epoch}, {figures}"
            print(line, file=sys.stderr, flush=True)


def _open_display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    figures = TextColumn("{task.fields[figures]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False))


@contextmanager
def progress() -> "Iterator[Observer]":
    """Yield an observer that shows the progress of one run."""
    from isinglass.training.observers import ProgressObserver

    with RunBars() as bars:
        yield ProgressObserver(partial(bars.show, ""))
