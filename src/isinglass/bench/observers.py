"""Observers of a bench: objects that are told how it goes on."""

from collections.abc import Mapping

from isinglass.bench.own_data import OwnData
from isinglass.bench.plan import Plan, PlannedRun
from isinglass.results import FailedRun, RunResult
from isinglass.training.observers import Progress


class BenchObserver:
    """Base class of a bench's observers: every method does nothing until it is overridden."""

    def on_connect(self, summary: str) -> None:
        """Called when a cluster is ready; `summary` says in one line what it has."""

    def on_data(self, data: OwnData) -> None:
        """Called with what is known about your own files, before they are trained on."""

    def on_plan(self, plan: Plan, estimates: Mapping[str, float], at_once: int) -> None:
        """Called before the first run.

        Args:
            estimates: key of each remaining run -> seconds that it is likely to take; NaN where that is not known.
            at_once: the number of runs that are performed at the same time.
        """

    def on_run_begin(self, run: PlannedRun, number: int, total: int) -> None:
        """Called when a run begins: the `number`-th, from 1, of `total` remaining runs."""

    def on_progress(self, run: PlannedRun, progress: Progress) -> None:
        """Called while a run is trained and evaluated."""

    def on_run_end(self, run: PlannedRun, record: RunResult | FailedRun) -> None:
        """Called when the record of a run is written."""
