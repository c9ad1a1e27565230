"""Choose the probability above which an example of a multi-label task has a label.

With many labels that few examples have, most probabilities stay below 0.5, also of labels that are right.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from isinglass.metrics import Metric
from isinglass.tasks import MULTILABEL, Task
from isinglass.tasks.kinds import EVEN
from isinglass.training.evaluation import Scored, score

CANDIDATES: Final = tuple(percent / 100 for percent in range(5, 100, 5))
"""Coarse, since a few hundred examples do not tell finer ones apart."""


def with_best_threshold(task: Task, scored: Sequence[Scored], metric: Metric) -> list[Scored]:
    """Return splits of a multi-label task with the threshold of the best mean score, of equal ones the nearest to 0.5."""
    if task.kind is not MULTILABEL:
        return [*scored]

    def at(threshold: float) -> list[Scored]:
        return [replace(one, threshold=threshold) for one in scored]

    def rank(threshold: float) -> float:
        values = (score(task, one)[metric].value for one in at(threshold))
        return sum(map(metric.rank, values))

    return at(max(sorted(CANDIDATES, key=lambda threshold: abs(threshold - EVEN)), key=rank))
