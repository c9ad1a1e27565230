"""The score of each seed."""

from collections.abc import Sequence

from isinglass.metrics import Metric
from isinglass.report import plots
from isinglass.report.plots import Panel, Series
from isinglass.report.runs import Bench, Run
from isinglass.report.sections.parts import Plot, Section


def scores(bench: Bench) -> Section:
    """Return a plot for each task: a dot for each seed, and what the most frequent label scores."""
    found = []
    for name, runs in bench.tasks.items():
        task = bench.described[name]
        panels = [_score_panel(runs, split, metric) for split in runs[0].result.scores for metric in task.metrics]
        found.append(Plot(plots.seed_scores(f"scores-{name}", task.title, panels), task.warning or ""))
    return Section(
        key="scores",
        title="Score of each seed",
        lead="A dot is one seed; the dashed line is what always answering the most frequent label would score. A run that "
        "sits on it answers no better than that, whatever its number looks like.",
        plots=found,
    )


def _score_panel(runs: Sequence[Run], split: str, metric: Metric) -> Panel:
    scores: dict[Series, list[float | None]] = {}
    majority = None
    for run in runs:
        score = run.result.scores[split][metric]
        scores.setdefault(run.series, []).append(None if score.value is None else metric.scale * score.value)
        if score.majority is not None and not metric.lower_is_better:
            majority = metric.scale * score.majority
    several = len(runs[0].result.scores) > 1
    prefix = f"{split.removeprefix('dev_')}, " if several else ""
    return Panel(label=f"{prefix}{metric.axis}", values=scores, majority=majority)
