"""How sure a score is, and whether two of them differ.

An interval here is one of 95 %. It says how a score would move with OTHER EXAMPLES of the same kind; how it moves with the
seed is the standard deviation beside it. A difference of several runs on each side takes both into account.

Resampling is done on counts. N examples drawn with replacement hold each example, or each kind of example, a number of
times: a column of `counts`, drawn from the multinomial distribution. For a classifier there are few kinds, one for each
(label, answer of run 1, answer of run 2, ...) that occurs, so a resample of 40,000 examples is a dozen numbers, and every
run is scored on the same resample. Macro F1 is resampled within classes (`macro_f1.py`), so that no rare class is lost.

B resamples, N examples, K kinds of examples, C labels, R runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from scipy.optimize import brentq
from scipy.stats import beta, binomtest, norm

from isinglass.errors import DataError
from isinglass.macro_f1 import f1_of_counts, resampled_macro_f1
from isinglass.metrics import Metric, scores
from isinglass.tasks import Labels

LEVEL: Final = 0.95
RESAMPLES: Final = 2000
SIGNIFICANCE: Final = 0.05
CHUNK: Final = 2**20  # counts in memory at a time

Answered = Shaped[np.ndarray, " *K_C"]
Counts = Float64[np.ndarray, "K B"]
Resampled = Float64[np.ndarray, " B"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """N examples and what one run answered, in the order of their file.

    Attributes:
        labels: the task's C label names, in its own order whatever that of the model's outputs; None for regression.
        truth, predicted: int64 (N,), positions in `labels`; float32 (N,) for regression; float32 (N, C) of 0 and 1 where
            an example has any number of labels.
        probabilities: float64 (N, C), columns in the order of `labels`; None for regression.
        texts: one text, or two, of each example.
        positive: the position of the label that F1 counts.
    """

    labels: tuple[str, ...] | None
    truth: Labels
    predicted: Labels
    probabilities: Float64[np.ndarray, "N C"] | None
    texts: list[tuple[str, ...]]
    positive: int = 1

    @property
    def is_right(self) -> Bool[np.ndarray, " N"]:
        """Whether each answer is that of the file, of several labels the whole set."""
        same = np.asarray(self.predicted == self.truth)
        return same if same.ndim == 1 else np.asarray(same.all(1))


def score(metric: Metric, answers: Answers) -> float:
    """Return the metric of one run's predictions; NaN where it is not defined."""
    truth, predicted = (side > 0 if side.ndim == 2 else side for side in (answers.truth, answers.predicted))
    return scores((metric,), truth, predicted, answers.positive)[metric]


def score_interval(metric: Metric, runs: Sequence[Answers]) -> Interval:
    """Return the interval of the mean over the runs: Wilson's for accuracy, else by bootstrap.

    For the mean of several runs Wilson's is somewhat too wide: N is the number of examples, not of answers, since the
    runs answer the same ones.
    """
    if metric == "accuracy":
        return wilson_interval(float(np.mean([score(metric, run) for run in runs])), len(runs[0].truth))
    return bootstrap_interval(metric, runs)


def wilson_interval(share: float, n: int) -> Interval:
    """Return the score interval of a share of n. Unlike the normal interval it stays within 0 and 1.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22.

    Args:
        share: from 0 to 1; a mean over runs need not be a whole number of n.
    """
    z = float(norm.ppf((1 + LEVEL) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def bootstrap_interval(metric: Metric, runs: Sequence[Answers]) -> Interval:
    """Return the percentile interval of the mean over the runs, by resampling examples; NaN where a run's score is.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Resamples without a score (all
    labels the same, say) are left out. Macro F1 is resampled within classes, and its interval stays within 0 and 1.
    """
    means = _resampled_scores(metric, runs, np.random.default_rng(0)).mean(0)
    if math.isnan(np.mean([score(metric, run) for run in runs])):
        return math.nan, math.nan
    low, high = _percentiles(means)
    return (max(low, 0.0), min(high, 1.0)) if metric == Metric.MACRO_F1 else (low, high)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What column b scores above column a, on the same examples.

    Attributes:
        mean: of b's runs less that of a's.
        low, high: its interval of 95 %.
        p_value: two-sided.
        test: what the interval and p come from, in words.
    """

    mean: float
    low: float
    high: float
    p_value: float
    test: str

    @property
    def is_difference(self) -> bool:
        """Whether p is below 0.05: no smaller sign is called a difference."""
        return self.p_value < SIGNIFICANCE


def paired_difference(metric: Metric, a: Sequence[Answers], b: Sequence[Answers]) -> Difference:
    """Compare two columns, of one run or more each, on the same examples.

    Accuracies of one run against one: McNemar's exact test on the examples that only one of the two has right, with the
    interval that belongs to it. Otherwise a paired bootstrap over the examples, and, where a column has several runs,
    over its runs too.

    Raises:
        DataError: the columns were scored on different examples.
    """
    first = a[0]
    for run in [*a, *b]:
        if run.texts != first.texts or run.labels != first.labels or not np.array_equal(run.truth, first.truth):
            raise DataError("Two runs can only be compared on the same examples; these were scored on different ones.")
    if metric == "accuracy" and len(a) == len(b) == 1:
        return _mcnemar(a[0], b[0])
    return _bootstrap_difference(metric, a, b)


def _mcnemar(a: Answers, b: Answers) -> Difference:
    """Test whether k / m is one half: of m examples that exactly one run has right, b has k."""
    right_a, right_b = a.is_right, b.is_right
    m, k, n = int((right_a != right_b).sum()), int((right_b & ~right_a).sum()), len(right_a)
    low, high = _melded_low(k, m, n), -_melded_low(m - k, m, n)
    p_value = float(binomtest(k, m).pvalue) if m else 1.0
    return Difference(mean=(2 * k - m) / n, low=low, high=high, p_value=p_value, test="exact McNemar test")


def _melded_low(k: int, m: int, n: int) -> float:
    """Return the low end of the interval of McNemar's exact test. It is above 0 exactly where b is better with p < 0.05.

    The difference is d (2s - 1): d the share of examples that one run alone has right, estimated by m / n, and s the share
    of b among these, by k / m. Each has a confidence distribution, whose quantiles are Clopper and Pearson's limits at every
    level: here the lower for s, and for d the lower or the upper, whichever makes the product smaller.

    Source: Fay and Lumbard 2021, Confidence Intervals for Difference in Proportions for Matched Pairs Compatible with Exact
    McNemar's or Sign Tests, Statistics in Medicine 40.
    """
    level = (1 - LEVEL) / 2
    if k == 0:
        return -float(beta.ppf(1 - level, m + 1, n - m)) if m < n else -1.0
    parts = (np.arange(200) + 0.5) / 200
    fewer, more = beta.ppf(parts, m, n - m + 1), beta.ppf(parts, m + 1, n - m) if m < n else np.ones(1)

    def below(end: float) -> float:
        """Return the probability that the product is below `end`, minus the level."""
        share = (1 + end / (fewer if end > 0 else more)) / 2
        return float(beta.cdf(share, k, m - k + 1).mean()) - level

    return float(brentq(below, -1, 1))


def _bootstrap_difference(metric: Metric, a: Sequence[Answers], b: Sequence[Answers]) -> Difference:
    rng = np.random.default_rng(0)
    scores_a, scores_b = [score(metric, run) for run in a], [score(metric, run) for run in b]
    resampled = _resampled_scores(metric, [*a, *b], rng)
    differences = resampled[len(a) :].mean(0) - resampled[: len(a)].mean(0) + _other_seeds(scores_a, scores_b, rng)
    differences = differences[~np.isnan(differences)].round(12)  # equal means are equal in whatever order they are summed
    mean = float(np.mean(scores_b) - np.mean(scores_a))
    low = high = p_value = math.nan
    if len(differences) and not math.isnan(mean):
        low, high = _percentiles(differences)
        tail = min((differences <= 0).sum(), (differences >= 0).sum())
        p_value = min(1.0, float(2 * (1 + tail) / (1 + len(differences))))
    over = "examples and runs" if max(len(a), len(b)) > 1 else "examples"
    return Difference(mean=mean, low=low, high=high, p_value=p_value, test=f"paired bootstrap over {over}")


def _other_seeds(a: Sequence[float], b: Sequence[float], rng: np.random.Generator) -> Resampled:
    """Draw how far the difference of two means would move with other seeds: from Student's t, scaled to the runs' spread.

    Drawing again from two or three runs, as a plain bootstrap would, makes their spread too small: where seeds matter much
    (9 points of standard deviation in accuracy, 277 examples) it called 16 % of the pairs of equals different with three
    runs on each side, and 26 % with two; so it is 5 % and 3 %. A column of one run tells of no spread, and adds none.
    """
    several = [scores for scores in (a, b) if len(scores) > 1]
    if not several:
        return np.zeros(RESAMPLES)
    freedom = sum(len(scores) - 1 for scores in several)
    variance = sum((len(scores) - 1) * np.var(scores, ddof=1) for scores in several) / freedom
    scale = math.sqrt(variance * sum(1 / len(scores) for scores in several))
    return scale * rng.standard_t(freedom, RESAMPLES)


def _percentiles(values: Resampled) -> Interval:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if len(known) else (math.nan, math.nan)
    return float(low), float(high)


def _resampled_scores(metric: Metric, runs: Sequence[Answers], rng: np.random.Generator) -> Float64[np.ndarray, "R B"]:
    """Return the metric of each run on each of B resamples of the examples, which all runs share."""
    columns = np.stack([runs[0].truth, *(run.predicted for run in runs)])
    if metric == Metric.MACRO_F1:
        found = np.array([score(metric, run) for run in runs])
        return resampled_macro_f1(columns, found, rng, resamples=RESAMPLES, chunk=CHUNK)
    kinds, multiplicity = np.unique(columns, axis=1, return_counts=True)  # (1 + R, K) or (1 + R, K, C), (K,)
    n, at_a_time = len(runs[0].truth), max(1, CHUNK // len(multiplicity))
    scores = []
    for done in range(0, RESAMPLES, at_a_time):
        drawn = rng.multinomial(n, multiplicity / n, size=min(at_a_time, RESAMPLES - done))
        counts = np.ascontiguousarray(drawn.T, np.float64)
        scores.append([score_of_counts(metric, kinds[0], answers, counts, runs[0].positive) for answers in kinds[1:]])
    return np.concatenate(scores, axis=1)


def score_of_counts(metric: Metric, truth: Answered, answers: Answered, counts: Counts, positive: int) -> Resampled:
    """Return the metric in each resample: that of `isinglass.metrics` for examples repeated as often as they count.

    Args:
        truth, answers: a label of each kind of example, or (K, C) of 0 and 1: any number of labels.
    """
    match metric:
        case Metric.ACCURACY:
            same = truth == answers
            return np.asarray((same if same.ndim == 1 else same.all(1)) @ counts / counts.sum(0))
        case Metric.RMSE:
            return np.asarray(np.sqrt((truth.astype(np.float64) - answers) ** 2 @ counts / counts.sum(0)))
        case Metric.F1:
            is_true, is_answer = truth == positive, answers == positive
            return f1_of_counts(is_true & is_answer, 1 * is_true + is_answer, counts)
        case Metric.MICRO_F1:
            return f1_of_counts(((truth > 0) & (answers > 0)).sum(1), (truth + answers).sum(1), counts)
        case Metric.MACRO_F1:
            raise ValueError("Counts of all examples leave rare labels out: macro F1 is made by resampled_macro_f1.")
        case Metric.MATTHEWS:
            return _matthews(truth, answers, counts)
        case Metric.PEARSON:
            return _pearson(truth.astype(np.float64), answers.astype(np.float64), counts)
        case Metric.SPEARMAN:
            return _spearman(truth, answers, counts)


def _matthews(truth: Shaped[np.ndarray, " K"], answers: Shaped[np.ndarray, " K"], counts: Counts) -> Resampled:
    """Return Matthews' coefficient of C labels, 0 where labels or predictions are all the same.

    Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient, as in scikit-learn.
    """
    labels = np.arange(1 + max(truth.max(), answers.max()))[:, None]
    true, answered, n = (truth == labels) @ counts, (answers == labels) @ counts, counts.sum(0)  # (C, B), (C, B), (B,)
    covariance = n * ((truth == answers) @ counts) - (true * answered).sum(0)
    variances = (n**2 - (true**2).sum(0)) * (n**2 - (answered**2).sum(0))
    return np.asarray(np.divide(covariance, np.sqrt(variances), out=0 * n, where=variances > 0))


def _pearson(x: Float64[np.ndarray, " K"], y: Float64[np.ndarray, " K"], counts: Counts) -> Resampled:
    """Return Pearson's coefficient, from the moments; NaN where either side does not vary."""
    x, y, n = x - x[0], y - y[0], counts.sum(0)  # so that a constant is exactly 0
    mean_x, mean_y, square_x, square_y, product = np.stack([x, y, x**2, y**2, x * y]) @ counts / n
    varies = (square_x - mean_x**2 > 1e-12 * square_x) & (square_y - mean_y**2 > 1e-12 * square_y)
    deviations = np.sqrt(np.where(varies, (square_x - mean_x**2) * (square_y - mean_y**2), np.nan))
    return np.asarray((product - mean_x * mean_y) / deviations)


def _spearman(x: Shaped[np.ndarray, " K"], y: Shaped[np.ndarray, " K"], counts: Counts) -> Resampled:
    """Return Pearson's coefficient of the ranks WITHIN each resample; NaN where either side does not vary."""
    middle = (counts.sum(0) + 1) / 2  # the mean of all ranks, ties or not
    rank_x, rank_y = _ranks(x, counts) - middle, _ranks(y, counts) - middle
    pairs = ((rank_x, rank_x), (rank_y, rank_y), (rank_x, rank_y))
    square_x, square_y, product = (np.einsum("kb,kb,kb->b", counts, a, b) for a, b in pairs)
    return np.asarray(product / np.sqrt(np.where((square_x > 0) & (square_y > 0), square_x * square_y, np.nan)))


def _ranks(values: Shaped[np.ndarray, " K"], counts: Counts) -> Float64[np.ndarray, "K B"]:
    """Return the rank of each value within each resample. Equal values share the mean of their ranks.

    Where `below` values are less than a value, and `up_to` no greater, it has the ranks below + 1 to up_to.
    """
    order = np.argsort(values, kind="stable")
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    up_to = counts[order].cumsum(0)[sizes.cumsum() - 1]
    below = np.concatenate([np.zeros_like(up_to[:1]), up_to[:-1]])
    return np.asarray(((below + up_to + 1) / 2)[group])
