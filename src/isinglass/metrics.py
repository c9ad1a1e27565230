"""The metrics, as values that know their names, their unit and their formula (scikit-learn's and SciPy's)."""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

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
    return {metric: float(_score(metric, labels, predicted, positive)) for metric in metrics}


def _score(metric: Metric, labels: Values, predicted: Values, positive: int) -> Any:
    """Return the value as scikit-learn and SciPy give it: a float of Python's or of NumPy's."""
    from sklearn import metrics  # a second to import: not before a score is due

    match metric:
        case Metric.ACCURACY:
            return metrics.accuracy_score(labels, predicted)
        case Metric.F1:
            return metrics.f1_score(labels == positive, predicted == positive, zero_division=0)
        case Metric.MACRO_F1 | Metric.MICRO_F1:
            return metrics.f1_score(labels, predicted, average=metric.average, zero_division=0)
        case Metric.MATTHEWS:
            return metrics.matthews_corrcoef(labels, predicted)
        case Metric.RMSE:
            return metrics.root_mean_squared_error(labels.astype(np.float64), predicted.astype(np.float64))
        case Metric.PEARSON | Metric.SPEARMAN:
            return _correlation(metric, labels.astype(np.float64), predicted.astype(np.float64))


def _correlation(metric: Metric, x: Values, y: Values) -> float:
    from scipy.stats import pearsonr, spearmanr

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    found = pearsonr(x, y) if metric is Metric.PEARSON else spearmanr(x, y)
    return float(found.statistic)
