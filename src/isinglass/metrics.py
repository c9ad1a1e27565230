"""Metrics by scikit-learn and SciPy, and what an answer that looks at no text would score."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Int64

Scores = dict[str, float]

LOWER_IS_BETTER: Final = frozenset({"rmse"})


def classification_scores(
    metrics: Sequence[str], labels: Int64[np.ndarray, " N"], predicted: Int64[np.ndarray, " N"], positive: int
) -> Scores:
    """The `metrics` among accuracy, f1, macro_f1 and matthews, from 0 to 1 (matthews: -1 to 1).

    F1 is that of the label `positive`, 0 if it is never predicted; macro_f1 is the mean of the F1 of each label that is
    there or predicted. Matthews is 0 where one label only is predicted.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef  # a second to import: not before a score is due

    known = {
        "accuracy": lambda: accuracy_score(labels, predicted),
        "f1": lambda: f1_score(labels == positive, predicted == positive, zero_division=0),
        "macro_f1": lambda: f1_score(labels, predicted, average="macro", zero_division=0),
        "matthews": lambda: matthews_corrcoef(labels, predicted),
    }
    return {name: float(known[name]()) for name in metrics}


def multilabel_scores(metrics: Sequence[str], labels: Bool[np.ndarray, "N K"], predicted: Bool[np.ndarray, "N K"]) -> Scores:
    """The `metrics` among micro_f1, macro_f1 and accuracy, from 0 to 1; accuracy asks for the whole set of an example."""
    from sklearn.metrics import accuracy_score, f1_score

    known = {
        "accuracy": lambda: accuracy_score(labels, predicted),
        "micro_f1": lambda: f1_score(labels, predicted, average="micro", zero_division=0),
        "macro_f1": lambda: f1_score(labels, predicted, average="macro", zero_division=0),
    }
    return {name: float(known[name]()) for name in metrics}


def regression_scores(
    metrics: Sequence[str], labels: Float32[np.ndarray, " N"], predicted: Float32[np.ndarray, " N"]
) -> Scores:
    """The `metrics` among pearson and spearman, -1 to 1, and rmse, in the unit of the labels.

    The correlations are NaN where the predictions, or the labels, are all the same.
    """
    from scipy.stats import pearsonr, spearmanr

    x, y = labels.astype(np.float64), predicted.astype(np.float64)
    constant = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
    known = {
        "pearson": lambda: float("nan") if constant else float(pearsonr(x, y).statistic),
        "spearman": lambda: float("nan") if constant else float(spearmanr(x, y).statistic),
        "rmse": lambda: float(np.sqrt(np.mean((x - y) ** 2))),
    }
    return {name: known[name]() for name in metrics}


def majority_scores(metrics: Sequence[str], labels: Int64[np.ndarray, " N"], positive: int) -> Scores:
    """The scores of always answering the most frequent of `labels` (of several, the first)."""
    answer = int(np.bincount(labels).argmax())
    return classification_scores(metrics, labels, np.full(len(labels), answer, np.int64), positive)


def majority_multilabel_scores(metrics: Sequence[str], labels: Bool[np.ndarray, "N K"]) -> Scores:
    """The scores of always answering the labels that at least half of the examples have, or else the most frequent one."""
    share = labels.mean(0)
    answer = share >= min(0.5, share.max())
    return multilabel_scores(metrics, labels, np.broadcast_to(answer, labels.shape))


def constant_scores(metrics: Sequence[str], labels: Float32[np.ndarray, " N"]) -> Scores:
    """The scores of always answering the mean of `labels`: NaN for correlations, for rmse the standard deviation."""
    mean = np.full(len(labels), labels.mean(dtype=np.float64), np.float32)
    return regression_scores(metrics, labels, mean)
