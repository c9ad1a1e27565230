"""Intervals and differences, against SciPy, scikit-learn and simulated pairs of equal settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from isinglass.errors import DataError
from isinglass.metrics import Metric, scores
from isinglass.statistics import (
    Answers,
    bootstrap_interval,
    paired_difference,
    score,
    score_interval,
    score_of_counts,
    wilson_interval,
)

NAN = pytest.approx((math.nan, math.nan), nan_ok=True)


def answered(truth, predicted, labels=("0", "1")) -> Answers:
    """Return the predictions of one run. Without labels they are those of a regression."""
    kind = np.int64 if labels else np.float32
    return Answers(
        labels=labels,
        truth=np.asarray(truth, kind),
        predicted=np.asarray(predicted, kind),
        probabilities=None,
        texts=[(f"text {i}",) for i in range(len(truth))],
    )


def with_right(count: int, n: int = 277) -> Answers:
    """Return n predictions, of which `count` are right."""
    truth = np.arange(n) % 2
    return answered(truth, np.where(np.arange(n) < count, truth, 1 - truth))


def correlated(rng: np.random.Generator, n: int = 60) -> Answers:
    truth = rng.uniform(0, 5, n)
    return answered(truth, truth + rng.normal(size=n), labels=None)


def equals(rng: np.random.Generator, runs: int, seed_spread: float, n: int = 277) -> tuple[list[Answers], list[Answers]]:
    """Return two sets of runs with the same settings. Examples differ in difficulty, and runs in accuracy."""
    truth, ease = np.arange(n) % 2, 0.6 + rng.normal(size=n)

    def run() -> Answers:
        right = ease + rng.normal(0, seed_spread) + rng.normal(0, 0.5, n) > 0
        return answered(truth, np.where(right, truth, 1 - truth))

    return [run() for _ in range(runs)], [run() for _ in range(runs)]


@pytest.mark.parametrize(("right", "n"), [(0, 71), (40, 71), (182, 277), (277, 277), (9000, 9815)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((expected.low, expected.high))


def test_wilson_takes_a_mean_over_seeds() -> None:
    """The mean over three runs of 277 examples is not a whole number of examples."""
    low, high = wilson_interval((181 + 182 + 182) / 3 / 277, 277)
    assert wilson_interval(181 / 277, 277)[0] < low < high < wilson_interval(182 / 277, 277)[1]


@given(data=st.data(), metric=st.sampled_from([Metric.ACCURACY, Metric.F1, Metric.MATTHEWS]), labels=st.integers(2, 3))
@settings(deadline=None, max_examples=60)
def test_counts_score_as_the_repeated_examples_do_for_labels(data, metric, labels) -> None:
    """Guards against a formula on counts that differs from scikit-learn for equal predictions, absent or three labels."""
    label = st.integers(0, labels - 1)
    rows = data.draw(st.lists(st.tuples(label, label, st.integers(0, 3)), min_size=1, max_size=8))
    truth, predicted, counts = (np.array(column) for column in zip(*rows, strict=True))
    kept = np.repeat(truth, counts)
    if len({*kept, *np.repeat(predicted, counts)}) < 2:  # scikit-learn warns about a single label
        return
    expected = scores((metric,), kept, np.repeat(predicted, counts), 1)[metric]
    assert score_of_counts(metric, truth, predicted, counts[:, None] * 1.0, 1) == pytest.approx([expected])


@given(data=st.data(), metric=st.sampled_from([Metric.PEARSON, Metric.SPEARMAN]))
@settings(deadline=None, max_examples=60)
def test_counts_score_as_the_repeated_examples_do_for_numbers(data, metric) -> None:
    """Ranks are computed within the resample, ties included. A resample of one value has no correlation: NaN, never 0."""
    value = st.sampled_from([0.0, 0.25, 1.0, 2.5, 3.1, 5.0])
    rows = data.draw(st.lists(st.tuples(value, value, st.integers(0, 3)), min_size=1, max_size=8))
    truth, predicted = (np.array([row[i] for row in rows], np.float32) for i in (0, 1))
    counts = np.array([row[2] for row in rows])
    if not counts.sum():
        return
    expected = scores((metric,), np.repeat(truth, counts), np.repeat(predicted, counts))[metric]
    found = score_of_counts(metric, truth, predicted, counts[:, None] * 1.0, 1)
    assert found == pytest.approx([expected], abs=1e-6, nan_ok=True)


def test_the_bootstrap_of_accuracy_is_near_wilson() -> None:
    """Resamples of the wrong size would give an interval of the wrong width."""
    run = with_right(800, n=1000)
    assert bootstrap_interval(Metric.ACCURACY, [run]) == pytest.approx(wilson_interval(0.8, 1000), abs=0.003)


def test_an_interval_is_repeated_to_the_last_digit() -> None:
    """A table made twice from the same results must be the same."""
    runs = [correlated(np.random.default_rng(seed)) for seed in (1, 1)]
    for metric in (Metric.PEARSON, Metric.SPEARMAN):
        low, high = score_interval(metric, runs)
        assert (low, high) == score_interval(metric, runs)
        assert low < score(metric, runs[0]) < high


def test_runs_share_their_resamples() -> None:
    """A separate resample for each run would halve the variance of a run that is given twice."""
    run = with_right(180)
    assert score_interval(Metric.F1, [run, run, run]) == pytest.approx(score_interval(Metric.F1, [run]))


def test_no_interval_where_a_run_has_no_score() -> None:
    """A constant prediction has no correlation. The mean of the other runs must not be reported as the mean of all."""
    truth = [0.0, 1.0, 2.5, 5.0]
    good, constant = answered(truth, truth, labels=None), answered(truth, [2.0] * 4, labels=None)
    for metric in (Metric.PEARSON, Metric.SPEARMAN):
        assert score_interval(metric, [good, constant]) == NAN
        found = paired_difference(metric, [good], [constant])
        assert math.isnan(found.mean) and math.isnan(found.p_value) and not found.is_difference


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.F1, Metric.MATTHEWS])
@pytest.mark.parametrize(("runs_a", "runs_b"), [(1, 1), (1, 3), (3, 3)])
def test_the_same_answers_are_no_difference(metric, runs_a: int, runs_b: int) -> None:
    """Rounding must not cause a difference: the mean of three equal scores is not always that score to the last bit."""
    run = with_right(181)
    found = paired_difference(metric, [run] * runs_a, [run] * runs_b)
    assert (found.mean, found.p_value, found.is_difference) == (pytest.approx(0), 1.0, False)
    assert found.low <= 0 <= found.high


def test_one_example_of_277_is_no_difference() -> None:
    """With 182 or 181 right on RTE, a table would show 65.70 and 65.34, and a reader would see an effect of precision."""
    found = paired_difference(Metric.ACCURACY, [with_right(182)], [with_right(181)])
    assert (found.test, found.p_value, found.is_difference) == ("exact McNemar test", 1.0, False)
    assert found.mean == pytest.approx(-1 / 277)


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.F1, Metric.MATTHEWS])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_clear_difference_is_found_with_its_sign(metric, runs: int) -> None:
    """The difference must be b's score minus a's."""
    found = paired_difference(metric, [with_right(150)] * runs, [with_right(220)] * runs)
    assert found.is_difference and 0 < found.low < found.mean < found.high
    assert paired_difference(metric, [with_right(220)] * runs, [with_right(150)] * runs).high < 0


def test_correlations_are_compared_too() -> None:
    """STS-B has no accuracy to test."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 5, 300)
    near, far = (answered(truth, truth + rng.normal(0, noise, 300), labels=None) for noise in (0.5, 2.0))
    for metric in (Metric.PEARSON, Metric.SPEARMAN):
        found = paired_difference(metric, [near], [far])
        assert found.is_difference and found.high < 0 and found.test == "paired bootstrap over examples"


def test_mcnemars_interval_leaves_out_zero_just_where_p_is_small() -> None:
    """Guards against an interval that contradicts p. If six examples are right only in b and none only in a, p is .03."""
    a, truth = with_right(60, 100), with_right(100, 100).truth
    for only_b in range(1, 12):
        for only_a in range(4):
            b = a.predicted.copy()
            b[60 : 60 + only_b] = truth[60 : 60 + only_b]
            b[:only_a] = 1 - truth[:only_a]
            found = paired_difference(Metric.ACCURACY, [a], [answered(truth, b)])
            assert (found.low > 0) == found.is_difference == (binomtest(only_b, only_a + only_b).pvalue < 0.05)


def test_mcnemars_interval_covers_the_true_difference() -> None:
    """From the discordant share alone, the interval is -0.36 to +0.34 if one of 277 differs, as if no other could."""
    rng, n, covered = np.random.default_rng(0), 100, 0
    truth = np.zeros(n, np.int64)
    for _ in range(200):
        kind = rng.choice(4, n, p=[0.7, 0.15, 0.06, 0.09])  # both right, b alone, a alone, neither
        found = paired_difference(
            Metric.ACCURACY, [answered(truth, (kind == 1) | (kind == 3))], [answered(truth, kind >= 2)]
        )
        covered += found.low <= 0.09 <= found.high
    assert covered / 200 >= 0.94


@pytest.mark.parametrize(
    ("metric", "runs", "seed_spread"),
    [(Metric.ACCURACY, 1, 0.0), (Metric.MATTHEWS, 1, 0.0), (Metric.ACCURACY, 3, 0.1), (Metric.ACCURACY, 2, 0.3)],
)
def test_equals_are_seldom_called_different(metric, runs: int, seed_spread: float) -> None:
    """With few seeds that vary widely, resampling only the examples calls most pairs of equal settings different."""
    rng = np.random.default_rng(7)
    found = [paired_difference(metric, *equals(rng, runs, seed_spread)).is_difference for _ in range(80)]
    assert np.mean(found) <= 0.09


def test_a_difference_that_seeds_explain_is_none() -> None:
    """Compares three runs of 60, 70 and 80 % with three of 65, 75 and 85 %: many examples, but few seeds."""
    a, b = ([with_right(right, 1000) for right in some] for some in ((600, 700, 800), (650, 750, 850)))
    found = paired_difference(Metric.ACCURACY, a, b)
    assert not found.is_difference and found.test == "paired bootstrap over examples and runs"
    assert paired_difference(Metric.ACCURACY, a[:1], b[:1]).is_difference


def test_different_examples_are_not_compared() -> None:
    """Scores on other data differ for reasons that a paired test cannot detect."""
    with pytest.raises(DataError, match="on the same examples"):
        paired_difference(Metric.ACCURACY, [with_right(5, 10)], [with_right(5, 11)])


# ---- macro F1 -----------------------------------------------------------


def drawn_answers(rng: np.random.Generator, sizes: list[int], accuracy: float) -> tuple[Answers, float]:
    """Return predictions with this accuracy in each class, mistakes spread by the sizes, and their true macro F1."""
    classes = np.arange(len(sizes))
    share = (1 - accuracy) * np.tile(np.array(sizes) / sum(sizes), (len(sizes), 1)) + accuracy * np.eye(len(sizes))
    expected = share * np.array(sizes)[:, None]
    truth = np.repeat(classes, sizes)
    predicted = [rng.choice(classes, p=share[label]) for label in truth]
    true_score = float(np.mean(2 * np.diag(expected) / (expected.sum(0) + expected.sum(1))))
    return answered(truth, predicted, labels=tuple(map(str, classes))), true_score


@pytest.mark.parametrize(
    ("sizes", "accuracy", "least"),
    [
        ([200, 100, 100], 0.8, 0.88),  # no rare class
        ([100, 60, 40] + [5] * 10, 0.8, 0.86),
        ([3] * 77, 0.85, 0.88),  # dropping absent classes covers 78 %
        ([200, 150, 100] + [2] * 6 + [1] * 8, 0.8, 0.78),  # counting them as 0 covers 26 %
    ],
)
def test_the_interval_of_macro_f1_covers_the_true_one(sizes: list[int], accuracy: float, least: float) -> None:
    """A class that a resample lacks vanished from the mean: 73.3 had an interval of 68.5 to 91.1."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(60):
        run, true_score = drawn_answers(rng, sizes, accuracy)
        low, high = score_interval(Metric.MACRO_F1, [run])
        assert 0 <= low <= score(Metric.MACRO_F1, run) <= high <= 1
        covered += low <= true_score <= high
    assert covered / 60 >= least


def test_equal_settings_seldom_differ_in_macro_f1() -> None:
    rng, sizes = np.random.default_rng(3), [100, 60, 40] + [5] * 10
    pairs = [(drawn_answers(rng, sizes, 0.8)[0], drawn_answers(rng, sizes, 0.8)[0]) for _ in range(60)]
    assert np.mean([paired_difference(Metric.MACRO_F1, [a], [b]).is_difference for a, b in pairs]) <= 0.1
    better = [drawn_answers(rng, sizes, 0.95)[0] for _ in range(3)]
    found = paired_difference(Metric.MACRO_F1, [a for a, _ in pairs[:3]], better)
    assert found.is_difference and 0 < found.low < found.mean < found.high


def test_a_perfect_run_has_a_macro_f1_of_one_in_each_resample() -> None:
    """Neither a class with one example nor one that is only predicted may move it."""
    truth = np.array([0] * 20 + [1] * 5 + [2])
    right = answered(truth, truth, labels=("a", "b", "c", "d"))
    assert score_interval(Metric.MACRO_F1, [right]) == pytest.approx((1, 1))
    wrong = answered(truth, np.where(np.arange(26) == 0, 3, truth), labels=("a", "b", "c", "d"))
    low, high = score_interval(Metric.MACRO_F1, [right, wrong])
    assert low <= np.mean([score(Metric.MACRO_F1, run) for run in (right, wrong)]) <= high < 0.9


def label_sets(rng: np.random.Generator, n: int) -> tuple[Answers, float]:
    """Return predictions of sets of 12 labels of frequency 40 % to 1 %, with recall 0.8 and known false alarms."""
    frequency = np.geomspace(0.4, 0.01, 12)
    truth = rng.random((n, 12)) < frequency
    truth[np.arange(24), np.arange(24) % 12] = True  # each label occurs
    predicted = np.where(truth, rng.random((n, 12)) < 0.8, rng.random((n, 12)) < 0.1 * frequency)
    present = frequency * (n - 24) + 2 + 22 * frequency
    true_score = np.mean(2 * 0.8 * present / (1.8 * present + 0.1 * frequency * (n - present)))
    return replace(answered(truth, predicted), labels=tuple("abcdefghijkl")), float(true_score)


def test_the_interval_of_macro_f1_covers_the_true_one_of_sets_of_labels() -> None:
    """A rare label that a resample lacks counted as 0."""
    rng, covered = np.random.default_rng(5), 0
    for _ in range(60):
        run, true_score = label_sets(rng, 300)
        low, high = score_interval(Metric.MACRO_F1, [run])
        assert 0 <= low <= score(Metric.MACRO_F1, run) <= high <= 1
        covered += low <= true_score <= high
    assert covered / 60 >= 0.86
