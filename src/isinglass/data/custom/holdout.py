"""Hold a dev set back from the training set."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Int64

from isinglass.data.examples import Examples, encode_labels
from isinglass.errors import DataError
from isinglass.tasks import Task

QUANTILES: Final = 10  # parts of a regression's range, from each of which the dev set takes its share


def divide(examples: Examples, task: Task, fraction: float, seed: int) -> tuple[Examples, Examples, str]:
    """Divide examples into a training and a dev set, both in the order of the file.

    Each label, or each part of a regression's range, gives `fraction` of its rows: at least one where it has two.

    Returns:
        The training set, the dev set, and a sentence about them.

    Raises:
        DataError: a label or score is not the task's, or there are too few rows.
    """
    parts = max(1, min(QUANTILES, int(len(examples) * fraction)))
    strata, description = task.kind.strata(encode_labels(examples, task, task.labels), parts)
    is_dev = hold_out(strata, fraction, seed)
    if not is_dev.any():
        raise DataError(f"{examples.origin}: too few rows to hold some back for validation: give a --validation-file.")
    dev, train = np.flatnonzero(is_dev), np.flatnonzero(~is_dev)
    note = (
        f"The dev set is {len(dev):,} of {len(examples):,} training rows, {fraction:.0%} {description} (split_seed {seed}); "
        f"{len(train):,} are trained on."
    )
    return examples.take(train), examples.take(dev), note


def hold_out(strata: Int64[np.ndarray, " N"], fraction: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Return which rows are held back: `fraction` of each stratum, rounded, at least one, and never all.

    Scikit-learn's split refuses strata of one row; here such rows are trained on.
    """
    rng = np.random.default_rng(seed)
    is_held = np.zeros(len(strata), bool)
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        is_held[rng.choice(rows, count, replace=False)] = True
    return is_held
