"""Show how far a fit is: a bar on a terminal and in a notebook, else a line every ten percent."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from isinglass.training.observers import Progress

logger = logging.getLogger(__name__)


@contextmanager
def fit_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield the function that shows progress on the standard error stream, and logs it at the level INFO."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bars = Bars(*columns, TextColumn("{task.fields[loss]}"), console=console)
    has_bars = console.is_terminal or console.is_jupyter
    shown: dict[str, Any] = {}  # stage -> its bar, or the tenths that were printed

    def show(progress: Progress) -> None:
        stage, done, total = progress.stage, progress.done, progress.total
        loss = "" if progress.loss is None else f"loss {progress.loss:.4f}"
        line = ", ".join(filter(None, (f"{stage}: {done} of {total}", loss)))
        logger.info(line)
        if has_bars:
            if stage not in shown:
                shown[stage] = bars.add_task(stage, total=total, loss="")
            bars.update(shown[stage], completed=done, total=total, loss=loss)
        elif shown.get(stage) != 10 * done // total:
            shown[stage] = 10 * done // total
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    if not has_bars:
        yield show
        return
    with bars:
        yield show
