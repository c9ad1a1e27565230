"""Throughput and training time."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

from isinglass.report import plots
from isinglass.report.own_tasks import title_of
from isinglass.report.plots import Panel
from isinglass.report.runs import Bench, by_series
from isinglass.report.sections.parts import Plot, Section
from isinglass.report.tables import speed_table
from isinglass.results import CLOCK, RunResult

MEASURES: Final[Mapping[str, Callable[[RunResult], float]]] = {
    "examples/s": lambda result: result.examples_per_second,
    "real tokens/s": lambda result: result.tokens_per_second,
    "training (minutes)": lambda result: result.train_seconds / 60,
}


def speed(bench: Bench) -> Section:
    """Return throughput and training time, as bars and in figures."""
    found = []
    for name, runs in bench.tasks.items():
        timed = by_series([run for run in runs if run.result.epoch_seconds])
        if timed:
            panels = [
                Panel(label=label, values={series: [measure(run.result) for run in some] for series, some in timed.items()})
                for label, measure in MEASURES.items()
            ]
            found.append(Plot(plots.speed_bars(f"speed-{name}", title_of(name), panels)))
    return Section(
        key="speed",
        title="Throughput and training time",
        lead=f"Bars are means over the seeds, thin lines reach from the lowest run to the highest. {CLOCK}",
        plots=found,
        folded=[
            dataclasses.replace(
                speed_table(bench.records.results, clock=CLOCK, tasks=bench.described), title="Speed in figures"
            )
        ],
    )
