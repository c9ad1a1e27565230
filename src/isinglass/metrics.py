"""GLUE's metrics, by scikit-learn and SciPy, and what always answering the most frequent label would score."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

Scores = dict[str, float]


def classification_scores(
    metrics: Sequence[str], labels: Int64[np.ndarray, " N"], predicted: Int64[np.ndarray, " N"], positive: int
) -> Scores:
    """The `metrics` among accuracy, f1 and matthews, from 0 to 1 (matthews: -1 to 1).

    F1 is that of the label `positive`, 0 if it is never predicted. Matthews is 0 where one label only is predicted.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef  # a second to import: not before a score is due

    known = {
        "accuracy": lambda: accuracy_score(labels, predicted),
        "f1": lambda: f1_score(labels == positive, predicted == positive, zero_division=0),
        "matthews": lambda: matthews_corrcoef(labels, predicted),
    }
    return {name: float(known[name]()) for name in metrics}


def regression_scores(
    metrics: Sequence[str], labels: Float32[np.ndarray, " N"], predicted: Float32[np.ndarray, " N"]
) -> Scores:
    """Pearson's and Spearman's correlation, -1 to 1; NaN where the predictions, or the labels, are all the same."""
    from scipy.stats import pearsonr, spearmanr

    if len(labels) < 2 or np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return dict.fromkeys(metrics, float("nan"))
    x, y = labels.astype(np.float64), predicted.astype(np.float64)
    known = {"pearson": pearsonr, "spearman": spearmanr}
    return {name: float(known[name](x, y).statistic) for name in metrics}  # type: ignore[operator]


def majority_scores(metrics: Sequence[str], labels: Int64[np.ndarray, " N"], positive: int) -> Scores:
    """The scores of always answering the most frequent of `labels` (of several, the first)."""
    answer = int(np.bincount(labels).argmax())
    return classification_scores(metrics, labels, np.full(len(labels), answer, np.int64), positive)
