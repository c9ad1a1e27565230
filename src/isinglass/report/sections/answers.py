"""Predictions against labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.report import plots
from isinglass.report.answers import Answers
from isinglass.report.runs import Bench, Reader, Run, by_series
from isinglass.report.sections.parts import Plot, Section
from isinglass.tables import Table
from isinglass.tasks import MULTILABEL, REGRESSION, Task

MOST_CONFUSIONS: Final = 20
MOST_LABELS: Final = 12  # of a matrix that can be read


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One split's answers, of the first seed of one configuration."""

    run: Run
    task: Task
    split: str
    answers: Answers

    @property
    def title(self) -> str:
        """`MRPC`, or `MNLI dev_matched` where there are several sets."""
        return f"{self.task.title} {self.split}" if len(self.run.result.scores) > 1 else self.task.title


def shown_answers(bench: Bench, reader: Reader) -> list[Shown]:
    """Return the predictions of the first seed of each configuration, for each scored split."""
    return [
        Shown(run=run, task=bench.described[name], split=split, answers=reader(run.result, split))
        for name, runs in bench.tasks.items()
        for split in runs[0].result.scores
        for run in [some[0] for some in by_series([run for run in runs if not reader.error(run)]).values()]
    ]


def confusions(shown: Sequence[Shown]) -> Section:
    """Return plots and tables of predictions against labels."""
    tables: dict[str, list[Table]] = {}
    for one in shown:
        tables.setdefault(one.title, []).append(_answers_table(one))
    return Section(
        key="answers",
        title="Predicted against true",
        lead="One model for each configuration: that of its first seed. Each row of a matrix is one true label, and its "
        "percentages add up to 100; scores of a regression are dots, right on the dashed line.",
        plots=[Plot(_answers_plot(one)) for one in shown if one.task.kind is REGRESSION or _has_matrix(one.task)],
        narrow=True,
        folded=[
            Table(title=f"{title} in figures", columns=some[0].columns, rows=tuple(row for one in some for row in one.rows))
            for title, some in tables.items()
        ],
    )


def _answers_plot(shown: Shown) -> str:
    series, answers = shown.run.series, shown.answers
    key = f"answers-{shown.task.name}-{shown.split}-{series.colour}"
    if shown.task.kind is REGRESSION:
        truth, predicted = answers.truth.astype(np.float64), answers.predicted.astype(np.float64)
        low, high = shown.task.score_range
        ends = (low, high) if high < np.inf else (float(truth.min()), float(truth.max()))  # the user's own have no bounds
        return plots.value_scatter(key, shown.title, series, truth, predicted, ends)
    return plots.confusion_matrix(key, shown.title, series, label_names(shown.task), _confusion(answers))


def _has_matrix(task: Task) -> bool:
    return task.kind is not MULTILABEL and len(task.labels or ()) <= MOST_LABELS


def _answers_table(shown: Shown) -> Table:
    if shown.task.kind is REGRESSION:
        return _scatter_table(shown)
    if shown.task.kind is MULTILABEL:
        return _label_table(shown)
    return _confusion_table(shown) if _has_matrix(shown.task) else _frequent_confusions(shown)


def _label_table(shown: Shown) -> Table:
    """Return for each label how often it was true, predicted, and both."""
    truth, given = shown.answers.truth > 0, shown.answers.predicted > 0
    counts = zip(label_names(shown.task), truth.sum(0), given.sum(0), (truth & given).sum(0), strict=True)
    return Table(
        title=shown.title,
        columns=("configuration", "label", "true", "predicted", "both"),
        rows=tuple((shown.run.series.label, name, *(f"{count:,}" for count in found)) for name, *found in counts),
    )


def _frequent_confusions(shown: Shown) -> Table:
    """Return the pairs of labels that are confused most often."""
    names, counts = label_names(shown.task), _confusion(shown.answers)
    np.fill_diagonal(counts, 0)
    most = [divmod(int(place), len(names)) for place in np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]]
    return Table(
        title=shown.title,
        columns=("configuration", "true label", "predicted label", "examples"),
        rows=tuple((shown.run.series.label, names[i], names[j], f"{counts[i, j]:,}") for i, j in most if counts[i, j]),
    )


def _scatter_table(shown: Shown) -> Table:
    errors = np.abs(shown.answers.predicted.astype(np.float64) - shown.answers.truth)
    row = (shown.run.series.label, f"{len(errors):,}", f"{errors.mean():.3f}")
    return Table(title=shown.title, columns=("configuration", "examples", "mean absolute error"), rows=(row,))


def _confusion_table(shown: Shown) -> Table:
    names = label_names(shown.task)
    counts = zip(names, _confusion(shown.answers), strict=True)
    return Table(
        title=shown.title,
        columns=("configuration", "true label", *(f"predicted {name}" for name in names)),
        rows=tuple((shown.run.series.label, name, *(f"{count:,}" for count in row)) for name, row in counts),
    )


def label_names(task: Task) -> list[str]:
    """Return `entailment`; where labels are numbers, `1 (equivalent)`."""
    words = task.label_words or task.labels or ()
    return [name if word == name else f"{name} ({word})" for name, word in zip(task.labels or (), words, strict=True)]


def _confusion(answers: Answers) -> Int64[np.ndarray, "true predicted"]:
    """Count how often each true label (rows) got each prediction (columns)."""
    size = len(answers.labels or ())
    counts: Int64[np.ndarray, "true predicted"] = np.zeros((size, size), np.int64)
    np.add.at(counts, (answers.truth.astype(np.int64), answers.predicted.astype(np.int64)), 1)
    return counts
