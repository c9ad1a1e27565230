"""The learning curves."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from isinglass.errors import DataError
from isinglass.names import shortened
from isinglass.report import plots
from isinglass.report.own_tasks import title_of
from isinglass.report.plots import Series
from isinglass.report.runs import Bench
from isinglass.report.sections.parts import Plot, Section, name_of
from isinglass.results import RunResult, file_below
from isinglass.tables import Table


def curves(bench: Bench) -> Section:
    """Return the training loss of each seed against its steps."""
    found, notes, rows = [], [], []
    for name, runs in bench.tasks.items():
        losses: dict[Series, list[Float64[np.ndarray, " steps"]]] = {}
        for run in runs:
            try:
                losses.setdefault(run.series, []).append(_losses(bench.directory, run.result))
            except DataError as error:
                notes.append(f"{name_of(run)} is left out: {error}")
        losses = {series: some for series, some in losses.items() if some}
        for series, some in losses.items():
            ends = [(float(smoothed[0]), float(smoothed[-1])) for smoothed in map(plots.smooth, some)]
            first, last = np.mean(ends, 0)
            rows.append((title_of(name), series.label, str(len(some)), str(len(some[0])), f"{first:.3f}", f"{last:.3f}"))
        if losses:
            found.append(Plot(plots.learning_curves(f"curves-{name}", title_of(name), losses)))
    table = Table(
        title="Training loss in figures",
        columns=("task", "configuration", "seeds", "steps", "loss at the first steps", "loss at the last steps"),
        rows=tuple(rows),
        notes=("Means over the seeds of the smoothed loss.",),
    )
    return Section(
        key="curves",
        title="Learning curves",
        lead="Strong lines: the training loss of each seed, each step averaged with its neighbours (a twentieth of all "
        "steps together). Faint line: the loss of the first seed's own steps.",
        notes=notes,
        plots=found,
        folded=[table] if rows else [],
    )


def _losses(directory: Path, result: RunResult) -> Float64[np.ndarray, " steps"]:
    if not result.predictions:
        raise DataError("its result names no files.")
    name = str(Path(next(iter(result.predictions.values()))).parent / "steps.jsonl")
    path = file_below(directory, name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        losses = np.array([float(json.loads(line)["loss"]) for line in lines])
    except FileNotFoundError:
        raise DataError(f"{name} does not exist.") from None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(f"{name} cannot be read: {shortened(str(error), 200)}.") from None
    if not len(losses) or not np.isfinite(losses).all():
        raise DataError(f"{name} has no steps, or a loss that is no number.")
    return losses
