"""The sections on predictions: predicted against true labels, and the most confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from isinglass.names import printable
from isinglass.report import plots
from isinglass.report.bench import Bench, Run, grouped
from isinglass.report.page import Plot, Section
from isinglass.statistics import Answers
from isinglass.tables import Table
from isinglass.tasks import MULTILABEL, REGRESSION, Task

MOST_CONFUSIONS: Final = 20
MOST_LABELS: Final = 12  # of a matrix that can be read
HARD_EXAMPLES: Final = 10
LONGEST_TEXT: Final = 600
Rows = list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One split's answers, of the first seed of one configuration."""

    run: Run
    split: str
    answers: Answers

    @property
    def task(self) -> Task:
        """The task of the run."""
        return self.run.task

    @property
    def title(self) -> str:
        """`MRPC`, or `MNLI dev_matched` where there are several sets."""
        return f"{self.task.title} {self.split}" if len(self.run.result.scores) > 1 else self.task.title

    @property
    def has_matrix(self) -> bool:
        """Whether a matrix of all pairs of labels can be read."""
        return self.task.kind is not MULTILABEL and 0 < len(self.task.labels or ()) <= MOST_LABELS

    @property
    def labels(self) -> list[str]:
        """The names of the labels: `entailment`; where they are numbers, `1 (equivalent)`."""
        labels = self.task.labels or ()
        words = zip(labels, self.task.label_words or labels, strict=True)
        return [name if word == name else f"{name} ({word})" for name, word in words]

    def confusion(self) -> plots.Confusion:
        """Count how often each true label (rows) got each prediction (columns)."""
        counts: plots.Confusion = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(counts, (self.answers.truth.astype(np.int64), self.answers.predicted.astype(np.int64)), 1)
        return counts


def shown_answers(bench: Bench) -> list[Shown]:
    """Return the predictions of the first seed of each configuration, for each scored split."""
    shown = []
    for runs in bench.tasks.values():
        first = grouped((run for run in runs if not run.unread), lambda run: run.series)
        for split in runs[0].result.scores:
            for run, *_ in first.values():
                shown.append(Shown(run=run, split=split, answers=bench.answers(run.result, split)))
    return shown


def confusions(shown: Sequence[Shown]) -> Section:
    """Return plots and tables of predictions against labels."""
    tables = []
    for title, several in grouped(shown, lambda one: one.title).items():
        columns, _ = _counts(several[0])
        rows = tuple((one.run.series.label, *row) for one in several for row in _counts(one)[1])
        tables.append(Table(title=f"{title} in figures", columns=("configuration", *columns), rows=rows))
    drawn = [Plot(_plot(one)) for one in shown if one.task.kind is REGRESSION or one.has_matrix]
    return Section(key="answers", plots=drawn, narrow=True, folded=tables)


def _plot(shown: Shown) -> str:
    series, answers = shown.run.series, shown.answers
    key = f"answers-{shown.task.name}-{shown.split}-{series.colour}"
    if shown.has_matrix:
        return plots.confusion_matrix(key, shown.title, series, shown.labels, shown.confusion())
    pairs = np.stack([answers.truth, answers.predicted], 1).astype(np.float64)
    low, high = shown.task.score_range
    ends = (low, high) if high < np.inf else (float(pairs[:, 0].min()), float(pairs[:, 0].max()))  # a user's own: no bounds
    return plots.value_scatter(key, shown.title, series, pairs, ends)


def _counts(shown: Shown) -> tuple[tuple[str, ...], Rows]:
    """Return columns and rows: a matrix; of many labels, the pairs that are confused most often; or a summary."""
    truth, predicted, names = shown.answers.truth, shown.answers.predicted, shown.labels
    if shown.task.kind is REGRESSION:
        errors = np.abs(predicted.astype(np.float64) - truth)
        return ("examples", "mean absolute error"), [(f"{len(errors):,}", f"{errors.mean():.3f}")]
    if shown.task.kind is MULTILABEL:
        counts = np.stack([(truth > 0).sum(0), (predicted > 0).sum(0), ((truth > 0) & (predicted > 0)).sum(0)], 1)
        return ("label", "true", "predicted", "both"), _rows(names, counts)
    confusion = shown.confusion()
    if shown.has_matrix:
        return ("true label", *(f"predicted {name}" for name in names)), _rows(names, confusion)
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(names)) for place in order]
    most: Rows = [(names[i], names[j], f"{confusion[i, j]:,}") for i, j in pairs if confusion[i, j]]
    return ("true label", "predicted label", "examples"), most


def _rows(names: Sequence[str], counts: Int64[np.ndarray, "rows columns"]) -> Rows:
    return [(name, *(f"{count:,}" for count in row)) for name, row in zip(names, counts.tolist(), strict=True)]


def hard_examples(shown: Sequence[Shown]) -> Section:
    """Return the examples of each task that models were most confidently wrong about."""
    tables = [_mistakes(task, several) for task, several in grouped(shown, lambda one: one.task).items()]
    return Section(key="mistakes", facts={"most": HARD_EXAMPLES}, folded=tables)


def _mistakes(task: Task, shown: Sequence[Shown]) -> Table:
    mistakes: dict[tuple[str, int], list[tuple[float, Shown]]] = {}  # (split, example) -> weight and model of each
    for one in shown:
        weights = _weights(one.answers)
        for i in np.flatnonzero(weights).tolist():
            mistakes.setdefault((one.split, i), []).append((float(weights[i]), one))
    worst = {example: max(wrong, key=lambda mistake: mistake[0]) for example, wrong in mistakes.items()}
    hardest = sorted(worst, key=lambda example: -worst[example][0])[:HARD_EXAMPLES]
    models = len({one.run.series for one in shown})
    is_regression = task.kind is REGRESSION
    rows: Rows = []
    for split, i in hardest:
        weight, model = worst[split, i]
        answers = model.answers
        told = [_label(labels[i], model.labels) for labels in (answers.truth, answers.predicted)]
        told += [f"{weight:.2f}"] if is_regression else [f"{100 * weight:.1f}", f"{len(mistakes[split, i])} of {models}"]
        rows.append((*told, *map(_cut, answers.texts[i]), model.run.series.label, split, str(i)))
    which = "largest errors" if is_regression else f"of {len(worst):,} that a model got wrong"
    weight_columns = ("error",) if is_regression else ("probability (%)", "wrong in")
    columns = ("label", "answer", *weight_columns, *task.column_names, "configuration", "set", "row")
    title = f"{task.title}: {len(hardest)} {which}"
    return Table(title=title, columns=columns, rows=tuple(rows), notes=("Rows count from 0.",))


def _label(label: Any, names: Sequence[str]) -> str:
    """Return the name of a label, or of several given as 0 and 1 for each; a number where there are no names."""
    if not names:
        return f"{label:.2f}"
    if np.ndim(label) == 0:
        return names[int(label)]
    return ", ".join(names[c] for c in np.flatnonzero(label).tolist()) or "none"


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT].rstrip()}…"


def _weights(answers: Answers) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the probability of each wrong prediction, or the size of a regression's error; 0 where it is right."""
    if answers.probabilities is None:
        weights = np.abs(answers.predicted.astype(np.float64) - answers.truth)
    elif answers.truth.ndim == 2:  # of several labels, the one that is wrong most confidently
        chances = np.where(answers.predicted > 0, answers.probabilities, 1 - answers.probabilities)
        weights = np.where(answers.predicted == answers.truth, 0, chances).max(1, initial=0)
    else:
        weights = np.where(answers.is_right, 0, answers.probabilities.max(1, initial=0))
    return np.nan_to_num(weights)
