"""Show how far runs are: bars on a terminal, lines of text elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
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
        is_training = progress.loss is not None
        epoch = f"epoch {progress.epoch + 1}/{progress.epochs}" if is_training else ""
        loss = f"loss {progress.loss:.3f}, " if is_training else ""
        figures = f"{loss}{progress.tokens_per_second:,.0f} tokens/s"
        key = (label, progress.stage)
        if sys.stderr and sys.stderr.isatty():
            if key not in self._bars:
                self._bars[key] = self._display.add_task(label, total=progress.total, figures="")
            description = f"{label}{epoch or progress.stage}"
            self._display.update(self._bars[key], completed=progress.done, description=description, figures=figures)
            return
        tenths, now = 10 * progress.done // progress.total, time.monotonic()
        printed_tenths, printed_at = self._printed.get(key, (-1, now))
        if tenths > printed_tenths or now - printed_at >= LOG_SECONDS:
            self._printed[key] = (tenths, now)
            parts = [f"{label}{progress.stage} {progress.done}/{progress.total}", epoch, figures]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def end(self, label: str) -> None:
        """Remove the bars of a run."""
        self._printed = {key: printed for key, printed in self._printed.items() if key[0] != label}
        for key in [key for key in self._bars if key[0] == label]:
            self._display.remove_task(self._bars.pop(key))

    @cached_property
    def _display(self) -> Any:
        """Open the display of rich when there is something to show: while it is open, prints go through it."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        figures = TextColumn("{task.fields[figures]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures, TimeRemainingColumn())
        return self.enter_context(Progress(*columns, console=console))


@contextmanager
def progress() -> "Iterator[Observer]":
    """Yield an observer that shows the progress of one run."""
    from isinglass.training.observers import ProgressObserver

    with RunBars() as bars:
        yield ProgressObserver(partial(bars.show, ""))
