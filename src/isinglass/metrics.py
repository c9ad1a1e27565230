"""The metrics, as values that know their names, their unit and their formula (scikit-learn's and SciPy's)."""

import math
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
"""Labels or predictions of N examples: int64 (N,) classes, bool (N, K) sets of labels, or float32 (N,) numbers."""


class Metric(StrEnum):
    """A metric. It is equal to its name in results and settings: `Metric.F1 == "f1"`.

    Attributes:
        heading: of a column of a table.
        full_name: in a model's card.
        axis: below a plot.
        hub_type: its identifier in the hub's metadata.
        average: how F1 is averaged over the labels; None for the other metrics.
    """

    heading: str
    full_name: str
    axis: str
    hub_type: str
    average: str | None

    def __new__(cls, name: str, *texts: str) -> "Metric":
        """Return the member of that name."""
        metric = str.__new__(cls, name)
        metric._value_ = name
        metric.heading, metric.full_name, metric.axis, metric.hub_type = texts[:4]
        metric.average = texts[4] if len(texts) > 4 else None
        return metric

    ACCURACY = "accuracy", "Accuracy", "Accuracy", "accuracy (%)", "accuracy"
    F1 = "f1", "F1", "F1", "F1 (%)", "f1"
    MATTHEWS = "matthews", "Matthews corr.", "Matthews correlation", "Matthews, in hundredths", "matthews_correlation"
    MACRO_F1 = "macro_f1", "Macro F1", "Macro F1", "macro F1 (%)", "f1", "macro"
    MICRO_F1 = "micro_f1", "Micro F1", "Micro F1", "micro F1 (%)", "f1", "micro"
    PEARSON = "pearson", "Pearson", "Pearson correlation", "Pearson, in hundredths", "pearsonr"
    SPEARMAN = "spearman", "Spearman", "Spearman correlation", "Spearman, in hundredths", "spearmanr"
    RMSE = "rmse", "RMSE", "RMSE", "RMSE", "rmse"

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error."""
        return self is Metric.RMSE

    @property
    def scale(self) -> int:
        """The factor of a shown score: most are in hundredths, an error is in the unit of the labels."""
        return 1 if self.lower_is_better else 100

    def rank(self, score: float | None) -> float:
        """Return a number that is the larger the better the score; NaN is worse than any score."""
        if score is None or math.isnan(score):
            return -math.inf
        return -score if self.lower_is_better else score

    def text(self, score: float | None, *, signed: bool = False) -> str:
        """Return a score as tables print it, `NaN` if there is none.

        >>> Metric.F1.text(0.8123), Metric.RMSE.text(0.8123), Metric.F1.text(0.01, signed=True)
        ('81.23', '0.8123', '+1.00')
        """
        if score is None or math.isnan(score):
            return "NaN"
        number = ".4g" if self.lower_is_better else ".2f"
        return f"{self.scale * score:{'+' if signed else ''}z{number}}"  # z: never -0.00


def scores(metrics: Iterable[Metric], labels: Values, predicted: Values, positive: int = 1) -> dict[Metric, float]:
    """Return the value of each metric: from 0 to 1, correlations from -1 to 1, RMSE in the unit of the labels.

    F1 is that of the class `positive`, 0 if it is never predicted. Macro F1 is the mean over the labels; of classes, over
    those that occur or are predicted. The accuracy of sets asks for the same set. Matthews' correlation is 0 where one
    class only is predicted; the others are NaN where labels or predictions are all the same.
    """
    return {metric: float(_FORMULAS[metric](labels, predicted, positive)) for metric in metrics}


def _accuracy(labels: Values, predicted: Values, _positive: int) -> float:
    from sklearn.metrics import accuracy_score  # a second to import: not before a score is due

    return float(accuracy_score(labels, predicted))


def _f1(labels: Values, predicted: Values, positive: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels == positive, predicted == positive, zero_division=0))


def _averaged_f1(average: str) -> Callable[[Values, Values, int], float]:
    def formula(labels: Values, predicted: Values, _positive: int) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(labels, predicted, average=average, zero_division=0))

    return formula


def _matthews(labels: Values, predicted: Values, _positive: int) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _correlation(name: str) -> Callable[[Values, Values, int], float]:
    def formula(labels: Values, predicted: Values, _positive: int) -> float:
        from scipy import stats

        x, y = labels.astype(np.float64), predicted.astype(np.float64)
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return math.nan
        return float(getattr(stats, name)(x, y).statistic)

    return formula


def _rmse(labels: Values, predicted: Values, _positive: int) -> float:
    return float(np.sqrt(np.mean((labels.astype(np.float64) - predicted.astype(np.float64)) ** 2)))


_FORMULAS: Final[Mapping[Metric, Callable[[Values, Values, int], float]]] = {
    Metric.ACCURACY: _accuracy,
    Metric.F1: _f1,
    Metric.MATTHEWS: _matthews,
    Metric.MACRO_F1: _averaged_f1("macro"),
    Metric.MICRO_F1: _averaged_f1("micro"),
    Metric.PEARSON: _correlation("pearsonr"),
    Metric.SPEARMAN: _correlation("spearmanr"),
    Metric.RMSE: _rmse,
}
