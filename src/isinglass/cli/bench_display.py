"""Print what a person sees of a bench: its plan, each run, the time that is left, and in the end its tables."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from isinglass.bench.harness import BenchObserver
from isinglass.bench.own_data import OwnData
from isinglass.bench.plan import Plan, PlannedRun
from isinglass.cli.display import show_facts, show_table
from isinglass.cli.progress import RunBars
from isinglass.config import TrainConfig
from isinglass.names import duration, printable
from isinglass.report.answers import read_answers
from isinglass.report.own_tasks import tasks_of
from isinglass.report.tables import pytorch_table, scores_table, speed_table, tensorflow_table
from isinglass.results import FailedRun, RunResult, read_records, run_key
from isinglass.tables import Table
from isinglass.training.observers import Progress
from isinglass.training.timing import CLOCK


class BenchDisplay(BenchObserver):
    """Prints the progress of a bench, to standard error.

    The time that is left is the sum of the estimates, corrected by how the runs so far compare with theirs.
    """

    def __init__(self, bars: RunBars) -> None:
        self._bars = bars
        self._at_once = 1
        self._remaining: dict[str, float] = {}  # key of a run that has not ended -> estimated seconds
        self._seconds = self._estimated_seconds = 0.0  # of the runs that have ended
        self._begun_at: dict[str, float] = {}
        self._labels: dict[str, str] = {}

    def on_connect(self, summary: str) -> None:
        """Print what the cluster has."""
        self._bars.share()
        _print(summary)

    def on_data(self, data: OwnData) -> None:
        """Print the facts about your own files."""
        show_facts(data.notes, data.facts)

    def on_plan(self, plan: Plan, estimates: Mapping[str, float], at_once: int) -> None:
        """Print the plan."""
        self._at_once = at_once
        self._remaining = dict(estimates)
        show_table(plan_table(plan, estimates, at_once), stderr=True)

    def on_run_begin(self, run: PlannedRun, number: int, total: int) -> None:
        """Print the run, and the time that is left."""
        self._begun_at[run.key] = time.monotonic()
        self._labels[run.key] = self._bars.label(f"{number}/{total}")
        correction = self._seconds / self._estimated_seconds if self._estimated_seconds else 1.0
        seconds_left = sum(self._remaining.values()) * correction / min(self._at_once, len(self._remaining))
        _print(f"[{number}/{total}] {run.title}: {_about(seconds_left)} left")
        self._bars.begin()

    def on_progress(self, run: PlannedRun, progress: Progress) -> None:
        """Show how far a run is."""
        self._bars.show(self._labels[run.key], progress)

    def on_run_end(self, run: PlannedRun, record: RunResult | FailedRun) -> None:
        """Print the scores of a run, or why it failed."""
        label = self._labels.pop(run.key)
        self._bars.end(label)
        estimate = self._remaining.pop(run.key)
        if not math.isnan(estimate):
            self._seconds += time.monotonic() - self._begun_at[run.key]
            self._estimated_seconds += estimate
        if isinstance(record, FailedRun):
            _print(f"{label}failed: {record.error}")
        else:
            _print(f"{label}trained in {duration(record.train_seconds)}: {_scores_text(record)}")


def _print(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _scores_text(result: RunResult) -> str:
    scores = [pair for split in result.scores.values() for pair in split.items()]
    return ", ".join(f"{metric} {metric.text(score.value)}" for metric, score in scores)


def plan_table(plan: Plan, estimates: Mapping[str, float], at_once: int) -> Table:
    """Return the runs of a bench, one row for the seeds of a configuration, and how long they are likely to take.

    Args:
        estimates: key of each remaining run -> seconds.
        at_once: the number of runs that are performed at the same time.
    """
    configurations: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in plan.runs:
        configurations.setdefault(_configuration(run), []).append(run)
    rows = [(*configuration, *_figures(runs, estimates)) for configuration, runs in configurations.items()]
    columns = ("task", "model", "start from", "backend", "precision", "compiler", "seeds", "done", "to do", "estimate")
    notes = []
    if estimates:
        total = _about(sum(estimates.values()) / min(at_once, len(estimates)))
        notes.append(f"{len(estimates)} of {len(plan.runs)} runs to do, {total}, by a few timed steps of each kind.")
    return Table(title="Plan", columns=columns, rows=tuple(rows), notes=(*notes, *plan.skipped))


def _configuration(run: PlannedRun) -> tuple[str, ...]:
    config = run.config
    return config.task, config.model, run.start_task or "-", config.backend, config.precision, _compiler(config)


def _compiler(config: TrainConfig) -> str:
    if config.xla:
        return "XLA"
    return "torch.compile" if config.compile else "-"


def _figures(runs: Sequence[PlannedRun], estimates: Mapping[str, float]) -> tuple[str, ...]:
    """Return seeds, number of runs that are done and to do, and the estimate, of the runs of one configuration."""
    to_do = [estimates[run.key] for run in runs if run.key in estimates]
    seeds = ", ".join(str(run.config.seed) for run in runs)
    return seeds, str(len(runs) - len(to_do)), str(len(to_do)), duration(sum(to_do)) if to_do else "-"


def _about(seconds: float) -> str:
    return "an unknown time" if math.isnan(seconds) else f"about {duration(seconds)}"


def bench_tables(plan: Plan, directory: Path, kind: str, *, with_published: bool) -> Sequence[Table]:
    """Return the tables of the runs of a plan, whatever else their directory holds.

    Args:
        kind: `pytorch` or `tensorflow` for the layout of the published table; any other for scores and speed.
    """
    keys = {run.key for run in plan.runs}
    tasks = tasks_of(directory, (run.config.task for run in plan.runs))
    records = read_records(directory)
    results = [result for result in records.results if run_key(result.config, result.start_from) in keys]
    failed = [failure for failure in records.failed if run_key(failure.config, failure.start_from) in keys]
    if kind == "tensorflow":
        return [tensorflow_table(results, failed, with_published=with_published, tasks=tasks)]
    published = pytorch_table(results, failed, clock=CLOCK, with_published=with_published, tasks=tasks)
    if kind == "pytorch":
        return [published]
    scores = scores_table(results, partial(read_answers, directory), failed, tasks=tasks)
    tables = [scores, speed_table(results, clock=CLOCK, tasks=tasks)]
    return [published, *tables] if with_published else tables
