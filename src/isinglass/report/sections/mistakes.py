"""The most confident mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from isinglass.names import printable
from isinglass.report.own_tasks import text_columns
from isinglass.report.sections.answers import Shown, label_names
from isinglass.report.sections.parts import Section, cut
from isinglass.tables import Table
from isinglass.tasks import REGRESSION, Task

HARD_EXAMPLES: Final = 10


def hard_examples(shown: Sequence[Shown]) -> Section:
    """Return the examples of each task that models were most confidently wrong about."""
    tasks: dict[str, list[Shown]] = {}
    for one in shown:
        tasks.setdefault(one.run.result.task, []).append(one)
    return Section(
        key="mistakes",
        title="The most confident mistakes",
        lead=f"Of the models above, taken together: up to {HARD_EXAMPLES} examples for each task, by the probability of the "
        "wrong answer; for a regression, by the size of the error. Each example stands once, with the configuration that "
        "was most confident, and how many of them were wrong. A label that all of them contradict may itself be wrong.",
        folded=[_mistakes(some[0].task, some) for some in tasks.values()],
    )


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One model's wrong answer: `weight` is its probability, or the size of a regression's error."""

    shown: Shown
    example: int
    weight: float


def _mistakes(task: Task, shown: Sequence[Shown]) -> Table:
    worst: dict[tuple[str, int], Mistake] = {}
    wrong: dict[tuple[str, int], int] = {}
    for mistake in (mistake for one in shown for mistake in _wrong_answers(one)):
        key = (mistake.shown.split, mistake.example)
        wrong[key] = wrong.get(key, 0) + 1
        if key not in worst or mistake.weight > worst[key].weight:
            worst[key] = mistake
    hardest = sorted(worst.items(), key=lambda item: -item[1].weight)[:HARD_EXAMPLES]
    models = len({one.run.series for one in shown})
    told = ("error",) if task.kind is REGRESSION else ("probability (%)", "wrong in")
    which = "largest errors" if task.kind is REGRESSION else f"of {len(worst):,} that a model got wrong"
    return Table(
        title=f"{task.title}: {len(hardest)} {which}",
        columns=("label", "answer", *told, *text_columns(task), "configuration", "set", "row"),
        rows=tuple(_mistake_row(task, mistake, f"{wrong[key]} of {models}") for key, mistake in hardest),
        notes=("Rows count from 0.",),
    )


def _mistake_row(task: Task, mistake: Mistake, wrong: str) -> tuple[str, ...]:
    answers, i, names = mistake.shown.answers, mistake.example, label_names(task)
    texts = (cut(printable(text)) for text in answers.texts[i])
    where = (mistake.shown.run.series.label, mistake.shown.split, str(i))
    if task.kind is REGRESSION:
        return (f"{answers.truth[i]:.2f}", f"{answers.predicted[i]:.2f}", f"{mistake.weight:.2f}", *texts, *where)
    label, answer = (_answer(labels[i], names) for labels in (answers.truth, answers.predicted))
    return (label, answer, f"{100 * mistake.weight:.1f}", wrong, *texts, *where)


def _answer(label: Any, names: Sequence[str]) -> str:
    """Return the name of a label, or of several given as 0 and 1 for each."""
    return (
        names[int(label)] if np.ndim(label) == 0 else ", ".join(names[c] for c in np.flatnonzero(label).tolist()) or "none"
    )


def _wrong_answers(shown: Shown) -> list[Mistake]:
    """Return every wrong prediction; for a regression, every error."""
    answers = shown.answers
    if answers.probabilities is None:
        weights = np.abs(answers.predicted.astype(np.float64) - answers.truth)
    elif answers.truth.ndim == 2:  # of several labels, the one that is wrong most confidently
        chances = np.where(answers.predicted > 0, answers.probabilities, 1 - answers.probabilities)
        weights = np.where(answers.predicted == answers.truth, 0, chances).max(1, initial=0)
    else:
        weights = np.where(answers.is_right, 0, answers.probabilities.max(1, initial=0))
    weights = np.nan_to_num(weights)
    return [Mistake(shown=shown, example=int(i), weight=float(weights[i])) for i in np.flatnonzero(weights)]
