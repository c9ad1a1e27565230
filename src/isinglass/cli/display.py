"""Print what a person sees of a run: how far it is, facts about its data, its scores."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.baselines import title_of, verdicts
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.checks import DataFacts, cut_shares, inspect_data
from isinglass.metrics import Metric
from isinglass.models.source import load_model
from isinglass.names import printable
from isinglass.results import RunResult
from isinglass.tables import Table
from isinglass.tasks import TASKS
from isinglass.training.observers import Observer, Progress, ProgressObserver, RunState
from isinglass.training.preparation import PreparedRun, prepare_texts

LOG_SECONDS: Final = 60.0  # the longest time between two lines of progress
COLLAPSE_ADVICE: Final = (
    "Collapsed: the model gives every example the same label. Train with --recipe auto, without --head-start and "
    "--learning-rate, or on more rows."
)
LONG_SECONDS: Final = 10.0  # a training that takes longer is announced


class RunBars(ExitStack):
    """The progress of one run after another, or of several at the same time.

    A line says how long the training will take as soon as its speed is known. On a terminal each stage of a run has a bar,
    until the run ends. Elsewhere lines are printed: the first report of a stage, every ten percent, and each minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_shared = False
        self._bars: dict[tuple[str, str], Any] = {}  # label of a run and its stage -> bar
        self._announced: set[str] = set()  # labels of runs whose time was said
        self._printed: dict[tuple[str, str], tuple[int, float]] = {}  # the same -> tenths done and time, when printed

    def on_connect(self, summary: str) -> None:
        """Print what a cluster has, and expect runs at the same time: each line names its run."""
        self._is_shared = True
        print(summary, file=sys.stderr, flush=True)

    def label(self, name: str) -> str:
        """Return what the lines of a run begin with."""
        return f"[{name}] " if self._is_shared else ""

    def show(self, label: str, progress: Progress) -> None:
        """Show how far a run is."""
        epoch, figures = "", f"{progress.tokens_per_second:,.0f} tokens/s"
        if progress.loss is not None:
            epoch = f"epoch {progress.epoch + 1}/{progress.epochs}"
            figures = f"loss {progress.loss:.3f}, {figures}"
        if progress.seconds_left is not None:
            self._announce(label, progress)
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
            left = f"{spoken(progress.seconds_left)} left" if progress.seconds_left else ""
            parts = [f"{label}{progress.stage} {progress.done}/{progress.total}", epoch, figures, left]
            print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)

    def _announce(self, label: str, progress: Progress) -> None:
        """Say once how long a training will take."""
        assert progress.seconds_left is not None
        if label not in self._announced and progress.seconds_left > LONG_SECONDS:
            steps = progress.total - progress.done
            line = f"{label}The training takes about {spoken(progress.seconds_left)} from here on ({steps:,} steps)."
            print(line, file=sys.stderr, flush=True)
        self._announced.add(label)

    def end(self, label: str) -> None:
        """Remove the bars of a run."""
        self._announced.discard(label)
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


def spoken(seconds: float) -> str:
    """Return a time as people say it, rounded as an estimate deserves.

    >>> spoken(8), spoken(52), spoken(128), spoken(3_780)
    ('8 s', '50 s', '2 min 10 s', '1 h 3 min')
    """
    if seconds < 30:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(10 * round(seconds / 10), 60)
    hours, minutes_of_hour = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes_of_hour} min"
    return " ".join(part for part in (f"{minutes} min" if minutes else "", f"{rest} s" if rest else "") if part)


@contextmanager
def progress() -> Iterator[Observer]:
    """Yield an observer that shows the progress of one run."""
    with RunBars() as bars:
        yield ProgressObserver(partial(bars.show, ""))


class OwnDataFacts(Observer):
    """An observer that shows what may spoil the result of a run on a user's own data."""

    def on_train_begin(self, run: PreparedRun, state: RunState) -> None:  # noqa: ARG002
        """Show the facts, on standard error; nothing for a published task."""
        if run.task.name not in TASKS:
            facts = inspect_data({split.name: split.examples for split in run.splits}, run.task)
            truncated = cut_shares({split.name: split.tokens for split in run.splits})
            show_facts((), replace(facts, truncated=truncated))


def show_data_facts(config: TrainConfig) -> None:
    """Read, tokenize and check the data of a run, and show what was found. Facts known without the model come first."""
    data = open_data(config)
    splits = {split.name: data.read(split) for split in data.task.splits}
    facts = inspect_data(splits, data.task)
    try:
        checkpoint = load_model(config.model)
        tokens = {name: prepare_texts(examples, config, checkpoint) for name, examples in splits.items()}
        facts = replace(facts, truncated=cut_shares(tokens))
    finally:
        show_facts(data.notes, facts)


def show_facts(notes: Iterable[str], facts: DataFacts) -> None:
    """Print what was found in a user's data, on standard error."""
    for line in (*notes, *facts.lines()):
        print(printable(line), file=sys.stderr, flush=True)


def show_result(result: RunResult, directory: Path | None, *, as_json: bool) -> None:
    """Print a result: scores beside those of a constant prediction, notes, speed; or one JSON object.

    Args:
        directory: where the run was written; None: nowhere.
    """
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    task = TASKS[result.task].title if result.task in TASKS else result.task
    rows = []
    for split, metric, score in result.each_score():
        beside = (baseline.score(split, metric) for baseline in result.baselines.values())
        values = map(metric.text, (score.value, score.majority, *beside))
        rows.append((split, str(result.examples[split]), metric, *values))
    constant = "mean" if any(Metric.RMSE in row for row in rows) else "majority"
    title = f"{task}: {result.model}, {result.precision}, seed {result.seed}"
    columns = ("split", "examples", "metric", "result", constant, *map(title_of, result.baselines))
    print(Table(title=title, columns=columns, rows=tuple(rows), notes=tuple(result.notes)).to_text(), end="")
    if result.threshold is not None:
        print(f"An example has the labels whose probability is above {result.threshold:g}.")
    for sentence in verdicts(result.baselines):
        print(sentence)
    if result.collapsed:
        print(COLLAPSE_ADVICE)
    if result.epoch_seconds:
        print(
            f"Trained {result.train_seconds:.1f} s ({result.examples_per_second:.1f} examples/s, "
            f"{result.tokens_per_second:,.0f} tokens/s) on {printable(result.device)}; {result.padding_avoided:.0%} of the "
            f"tokens of padding to {result.config['max_length']} not computed, {result.truncated_share:.1%} of the training "
            f"examples truncated."
        )
    if directory is not None:
        print(f"Run written to {printable(str(directory))}")


def show_repetitions(results: Sequence[RunResult]) -> None:
    """Print the seconds of each epoch and the scores of each run. Tracing and compiling fall into the first epoch."""
    first = results[0]
    epochs = range(len(first.epoch_seconds))
    columns = [["run", *(f"seed {run.seed}" for run in results), "mean ± sd"]]
    columns += [[f"epoch {i + 1} (s)", *(f"{run.epoch_seconds[i]:.1f}" for run in results), ""] for i in epochs]
    for split, metric in ((split, metric) for split, scores in first.scores.items() for metric in scores):
        values = np.array([run.scores[split][metric].value for run in results], np.float64)  # None becomes NaN
        spread = f"{metric.text(values.mean())} ± {metric.text(values.std(ddof=1))}"
        columns.append([f"{split} {metric}", *map(metric.text, values), spread])
    head, *rows = zip(*columns, strict=True)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    title = f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {first.device}"
    print(Table(title=title, columns=head, rows=tuple(rows)).to_text(), end="")
