"""Training and dev set out of one."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Int64

from isinglass.data.examples import Examples, encode_labels
from isinglass.errors import DataError
from isinglass.tasks import Task

QUANTILES: Final = 10  # of a regression's scores, from each of which the dev set takes its share


def divide(examples: Examples, task: Task, fraction: float, seed: int) -> tuple[Examples, Examples, str]:
    """Training and dev set out of one, both in the order of the file, and a note on it.

    Each label, or each part of a regression's range, gives `fraction` of its rows: at least one where it has two.

    Raises:
        DataError: a label or score is not the task's, or there are too few rows.
    """
    labels = encode_labels(examples, task, task.labels)
    parts = max(1, min(QUANTILES, int(len(labels) * fraction)))
    if task.kind == "classification":
        strata, how = labels.astype(np.int64), "of each label"
    elif task.kind == "regression":
        ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        strata, how = ranks * parts // len(labels), "of each part of the range"
    else:
        strata, how = np.zeros(len(labels), np.int64), "at random"
    held = hold_out(strata, fraction, seed)
    if not held.any():
        raise DataError(f"{examples.origin}: too few rows to hold some back for validation: give a --validation-file.")
    dev, train = np.flatnonzero(held), np.flatnonzero(~held)
    note = (
        f"The dev set is {len(dev):,} of {len(held):,} training rows, {fraction:.0%} {how} (split_seed {seed}); "
        f"{len(train):,} are trained on."
    )
    return examples.take(train), examples.take(dev), note


def hold_out(strata: Int64[np.ndarray, " N"], fraction: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Which rows are held back: `fraction` of each stratum, rounded, but at least one, and never all.

    Scikit-learn's split refuses strata of one row; here they stay in training.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(strata), bool)
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held[rng.choice(rows, count, replace=False)] = True
    return held
