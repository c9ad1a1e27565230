"""Print what a person sees of a bench or a search: plan, runs, the time that is left, and in the end the tables."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from isinglass.bench.harness import BenchObserver
from isinglass.bench.own_data import OwnData
from isinglass.bench.plan import Plan, PlannedRun
from isinglass.cli.display import RunBars, show_facts
from isinglass.names import duration, printable
from isinglass.report.answers import Reader, tasks_of
from isinglass.report.bench import groups_of
from isinglass.report.tables import pytorch_table, scores_table, speed_table, tensorflow_table
from isinglass.results import FailedRun, RunResult, read_records, run_key
from isinglass.tables import Table
from isinglass.training.observers import Progress
from isinglass.tuning import Tuned, TunedTrial, TuningObserver


class BenchDisplay(RunBars, BenchObserver):
    """Prints the progress of a bench, to standard error.

    The time that is left is the sum of the estimates, corrected by how the runs so far compare with theirs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._at_once = 1
        self._remaining: dict[str, float] = {}  # key of a run that has not ended -> estimated seconds
        self._seconds = self._estimated_seconds = 0.0  # of the runs that have ended
        self._begun: dict[str, tuple[str, float]] = {}  # key of a run -> its label, and the time when it began

    def on_data(self, data: OwnData) -> None:
        """Print the facts about your own files."""
        show_facts(data.notes, data.facts)

    def on_plan(self, plan: Plan, estimates: Mapping[str, float], at_once: int) -> None:
        """Print the plan."""
        self._at_once = at_once
        self._remaining = dict(estimates)
        print(_plan_table(plan, estimates, at_once).to_text(), file=sys.stderr)

    def on_run_begin(self, run: PlannedRun, number: int, total: int) -> None:
        """Print the run, and the time that is left."""
        self._begun[run.key] = (self.label(f"{number}/{total}"), time.monotonic())
        correction = self._seconds / self._estimated_seconds if self._estimated_seconds else 1.0
        seconds_left = sum(self._remaining.values()) * correction / min(self._at_once, len(self._remaining))
        _print(f"[{number}/{total}] {run.title}: {_about(seconds_left)} left")

    def on_progress(self, run: PlannedRun, progress: Progress) -> None:
        """Show how far a run is."""
        self.show(self._begun[run.key][0], progress)

    def on_run_end(self, run: PlannedRun, record: RunResult | FailedRun) -> None:
        """Print the scores of a run, or why it failed."""
        label, begun_at = self._begun.pop(run.key)
        self.end(label)
        estimate = self._remaining.pop(run.key)
        if not math.isnan(estimate):
            self._seconds += time.monotonic() - begun_at
            self._estimated_seconds += estimate
        if isinstance(record, FailedRun):
            _print(f"{label}failed: {record.error}")
            return
        pairs = [pair for scores in record.scores.values() for pair in scores.items()]
        text = ", ".join(f"{metric} {metric.text(score.value)}" for metric, score in pairs)
        _print(f"{label}trained in {duration(record.train_seconds)}: {text}")


class TuneDisplay(RunBars, TuningObserver):
    """Prints the progress of a search, to standard error.

    Args:
        trials: number of finished trials to reach.
    """

    def __init__(self, trials: int) -> None:
        super().__init__()
        self._trials = trials

    def on_trial_begin(self, trial: TunedTrial) -> None:
        """Print the settings of a trial."""
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.settings.items())
        _print(f"[trial {trial.number + 1}, {self._trials} asked for] {settings}")

    def on_progress(self, number: int, progress: Progress) -> None:
        """Show how far a trial is."""
        self.show(self.label(f"trial {number + 1}"), progress)

    def on_trial_end(self, trial: TunedTrial) -> None:
        """Print the score of a trial."""
        label = self.label(f"trial {trial.number + 1}")
        self.end(label)
        score = "" if trial.score is None else f": {trial.score:.4f}"
        _print(f"{label}{trial.state}{score} after {duration(trial.seconds)}")


def _print(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _about(seconds: float) -> str:
    return "an unknown time" if math.isnan(seconds) else f"about {duration(seconds)}"


def _plan_table(plan: Plan, estimates: Mapping[str, float], at_once: int) -> Table:
    """Return the runs of a bench, one row for the seeds of a configuration, and how long they are likely to take.

    Args:
        estimates: key of each remaining run -> seconds.
        at_once: the number of runs that are performed at the same time.
    """
    configurations: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in plan.runs:
        config = run.config
        compiler = "XLA" if config.xla else "torch.compile" if config.compile else "-"
        key = (config.task, config.model, run.start_task or "-", config.backend, config.precision, compiler)
        configurations.setdefault(key, []).append(run)
    rows: list[tuple[str, ...]] = []
    for configuration, runs in configurations.items():
        to_do = [estimates[run.key] for run in runs if run.key in estimates]
        seeds = ", ".join(str(run.config.seed) for run in runs)
        estimate = duration(sum(to_do)) if to_do else "-"
        rows.append((*configuration, seeds, str(len(runs) - len(to_do)), str(len(to_do)), estimate))
    columns = ("task", "model", "start from", "backend", "precision", "compiler", "seeds", "done", "to do", "estimate")
    notes = [*plan.skipped]
    if estimates:
        total = _about(sum(estimates.values()) / min(at_once, len(estimates)))
        notes.insert(0, f"{len(estimates)} of {len(plan.runs)} runs to do, {total}, by a few timed steps of each kind.")
    return Table(title="Plan", columns=columns, rows=tuple(rows), notes=tuple(notes))


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
    groups = groups_of(results, failed, tasks)
    if kind == "tensorflow":
        return [tensorflow_table(groups, with_published=with_published)]
    published = pytorch_table(groups, with_published=with_published)
    if kind == "pytorch":
        return [published]
    tables = [scores_table(groups, Reader(directory)), speed_table(groups)]
    return [published, *tables] if with_published else tables


def tuned_table(tuned: Tuned) -> Table:
    """Return the trials of a search, the best first."""
    rows = []
    for trial in sorted(tuned.trials, key=lambda trial: tuned.metric.rank(trial.score), reverse=True):
        score = "-" if trial.score is None else tuned.metric.text(trial.score)
        settings = [f"{value:.3g}" for value in trial.settings.values()]
        rows.append((str(trial.number + 1), trial.state, *settings, score, f"{trial.seconds:.1f}"))
    columns = ("trial", "state", *tuned.best.settings, tuned.metric, "seconds")
    return Table(columns=tuple(name.replace("_", " ") for name in columns), rows=tuple(rows), notes=tuple(tuned.notes))
