"""Choose the probability above which an example of a multi-label task has a label.

With many labels that few examples have, most probabilities stay below 0.5, also of labels that are right.

Shapes: N examples, K labels.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from isinglass.metrics import Metric, scores
from isinglass.tasks.kinds import EVEN

CANDIDATES: Final = sorted((percent / 100 for percent in range(5, 100, 5)), key=lambda threshold: abs(threshold - EVEN))
"""The nearest to 0.5 first. They are coarse, since a few hundred examples do not tell finer ones apart."""

LabelledSet = tuple[Float[np.ndarray, "_ K"], Bool[np.ndarray, "_ K"]]
"""The probability of each label, and whether an example has it: (N, K) both, with an N of each set's own."""


def best_threshold(sets: Sequence[LabelledSet], metric: Metric) -> float:
    """Return the threshold of the best mean score over the sets, of equal ones the nearest to 0.5."""

    def rank(threshold: float) -> float:
        found = (scores([metric], truth, probabilities > threshold) for probabilities, truth in sets)
        return sum(metric.rank(score[metric]) for score in found)

    return max(CANDIDATES, key=rank)
