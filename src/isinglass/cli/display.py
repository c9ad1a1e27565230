"""Print what a person sees of a command: progress, results, tables."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from isinglass.names import percent, printable

if TYPE_CHECKING:
    from isinglass.data.checks import DataFacts
    from isinglass.export.compare import Compared
    from isinglass.export.onnx import Exported
    from isinglass.report.submission import Submission
    from isinglass.results import RunResult
    from isinglass.tables import Table
    from isinglass.training.observers import Observer, Progress

LOG_SECONDS: Final = 60.0  # where there is no terminal, the longest time between two lines of progress


class Bars(Protocol):
    """The progress of several runs at once, told apart by a label."""

    def show(self, label: str, now: "Progress") -> None:
        """Where the run stands."""
        ...

    def end(self, label: str) -> None:
        """The run is shown no more."""
        ...


class _TerminalBars:
    def __init__(self, display: Any) -> None:
        self._display = display
        self._bars: dict[tuple[str, str], Any] = {}

    def show(self, label: str, now: "Progress") -> None:
        key = (label, now.stage)
        if key not in self._bars:
            self._bars[key] = self._display.add_task(f"{label}{now.stage}", total=now.total, figures="")
        name = now.stage if now.loss is None else f"epoch {now.epoch + 1}/{now.epochs}"
        self._display.update(self._bars[key], completed=now.done, description=f"{label}{name}", figures=_figures(now))

    def end(self, label: str) -> None:
        for key in [key for key in self._bars if key[0] == label]:
            self._display.remove_task(self._bars.pop(key))


class _Lines:
    """The first report, every ten percent, and each minute."""

    def __init__(self) -> None:
        self._printed: dict[tuple[str, str], tuple[int, float]] = {}  # tenths done, and time, of the last line

    def show(self, label: str, now: "Progress") -> None:
        tenth, clock = 10 * now.done // now.total, time.monotonic()
        last = self._printed.get((label, now.stage))
        if last is None or tenth > last[0] or clock - last[1] >= LOG_SECONDS:
            self._printed[label, now.stage] = (tenth, clock)
            epoch = "" if now.loss is None else f", epoch {now.epoch + 1}/{now.epochs}"
            print(f"{label}{now.stage} {now.done}/{now.total}{epoch}, {_figures(now)}", file=sys.stderr, flush=True)

    def end(self, label: str) -> None:
        self._printed = {key: last for key, last in self._printed.items() if key[0] != label}


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars on a terminal, plain lines elsewhere."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=console(stderr=True)) as display:
        yield _TerminalBars(display)


@contextmanager
def progress() -> "Iterator[Observer]":
    """Yield an observer that shows the progress of one run."""
    from isinglass.training.observers import ProgressObserver

    with progress_bars() as bars:
        yield ProgressObserver(partial(bars.show, ""))


def _figures(now: "Progress") -> str:
    loss = "" if now.loss is None else f"loss {now.loss:.3f}, "
    return f"{loss}{now.tokens_per_second:,.0f} tokens/s"


def show_result(result: "RunResult", directory: Path | None, *, as_json: bool) -> None:
    """Print a result: scores beside the majority, speed, notes; or one JSON object."""
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    from rich.table import Table

    from isinglass.metrics import Metric
    from isinglass.tasks import TASKS

    title = TASKS[result.task].title if result.task in TASKS else result.task
    table = Table()
    for column in ("split", "examples", "metric"):
        table.add_column(column)
    table.add_column("result", justify="right")
    is_regression = any(Metric.RMSE in scores for scores in result.scores.values())
    table.add_column("mean" if is_regression else "majority", justify="right")  # what an answer without a look scores
    for split, scores in result.scores.items():
        for metric, score in scores.items():
            figures = metric.text(score.value), metric.text(score.majority)
            table.add_row(split, str(result.examples[split]), metric, *figures)
    out = console(stderr=False)
    out.print(f"{title}: {printable(result.model)}, {result.precision}, seed {result.seed}")
    out.print(table)
    if result.collapsed:
        out.print("Collapsed: the model gives every example the same label.")
    if result.epoch_seconds:
        out.print(
            f"Trained {result.train_seconds:.1f} s ({result.examples_per_second:.1f} examples/s, "
            f"{result.tokens_per_second:,.0f} tokens/s) on {printable(result.device)}; {result.padding_avoided:.0%} of the "
            f"tokens of padding to {result.config['max_length']} not computed, {result.truncated_share:.1%} of the training "
            f"examples truncated."
        )
    for note in result.notes:
        out.print(f"Note: {printable(note)}")
    if directory is not None:
        out.print(f"Run written to {printable(str(directory))}")


def show_facts(notes: Iterable[str], facts: "DataFacts") -> None:
    """Print what was found in a user's data, on standard error."""
    for line in (*notes, *facts.lines()):
        print(printable(line), file=sys.stderr, flush=True)


def show_export(exported: "Exported") -> None:
    """Print the files of an export and how they are called."""
    for path in exported.files:
        print(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    axes = "; ".join(f"{name} int64 ({', '.join(found)})" for name, found in exported.inputs.items())
    print(f"ONNX opset {exported.opset}; inputs {axes}: both axes are free, padding follows the tokens.")
    labels = "one value" if exported.label_names is None else ", ".join(map(printable, exported.label_names))
    print(f"Output logits float32 (batch, labels): {labels}; trained on up to {exported.max_length} tokens.")


def show_comparison(compared: "list[Compared]") -> None:
    """Print what each file scores on the dev set, and how far its probabilities are from the model's."""
    from rich.table import Table

    table = Table()
    for column in ("split", "rows", "file"):
        table.add_column(column, no_wrap=True)
    for name in (*compared[0].scores, "largest difference", "same answers"):
        table.add_column(name.replace("_", " "), justify="right")
    for one in compared:
        scores = (metric.text(score.value) for metric, score in one.scores.items())
        agreement = "-" if one.agreement != one.agreement else f"{one.agreement:.1%}"
        table.add_row(one.split, str(one.examples), one.file, *scores, f"{one.difference:.1e}", agreement)
    console(stderr=False).print(table)


def show_repetitions(results: "list[RunResult]") -> None:
    """Seconds of each epoch and scores of each run: the first epoch has the tracing and compiling in it."""
    from statistics import mean, stdev

    from rich.table import Table

    first = results[0]
    columns = [(split, metric) for split, scores in first.scores.items() for metric in scores]
    values = [[one.scores[split][metric].value for split, metric in columns] for one in results]
    table = Table()
    table.add_column("run")
    for epoch in range(1, len(first.epoch_seconds) + 1):
        table.add_column(f"epoch {epoch} (s)", justify="right")
    for split, metric in columns:
        table.add_column(f"{split} {metric}", justify="right")
    for one, row in zip(results, values, strict=True):
        seconds = [f"{value:.1f}" for value in one.epoch_seconds]
        figures = [metric.text(value) for (_, metric), value in zip(columns, row, strict=True)]
        table.add_row(f"seed {one.seed}", *seconds, *figures)
    spread = []
    for (_, metric), column in zip(columns, zip(*values, strict=True), strict=True):
        known = [value for value in column if value is not None]
        whole = len(known) == len(column)
        spread.append(f"{metric.text(mean(known))} ± {metric.text(stdev(known))}" if whole else "NaN")
    table.add_row("mean ± sd", *("" for _ in first.epoch_seconds), *spread)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    out = console(stderr=False)
    out.print(f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {printable(first.device)}")
    out.print(table)


def show_submission(submission: "Submission") -> None:
    """Print where each of the eleven files comes from."""
    from isinglass.tables import Table

    rows = []
    for file in submission.files:
        run = file.run
        if run is None:
            source = "absent" if file.filled is None else f"every row {file.filled}"
            rows.append((file.name, source, "-", "-"))
            continue
        source = f"{run.model} {run.backend} {run.precision} seed {run.seed}"
        rows.append((file.name, source, percent(file.dev_score), f"best of {file.candidates}"))
    note = "The best of several runs on dev flatters its dev score: the server's will be lower."
    several = any(file.candidates > 1 for file in submission.files)
    columns = ("file", "predictions of", "dev", "chosen as")
    show_table(Table(title=str(submission.path), columns=columns, rows=tuple(rows), notes=(note,) if several else ()))


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print a table as plain text."""
    print(table.to_text(), file=sys.stderr if stderr else sys.stdout)


def console(*, stderr: bool) -> Any:
    """A console that prints texts as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
