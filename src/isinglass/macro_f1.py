"""Resample macro F1, the mean of the labels' F1, so that rare labels neither vanish from the mean nor count as 0.

Drawing from all examples leaves a label of few examples out of many resamples: one example is absent from 37 % of them. If
the label then vanishes from the mean, or counts as 0, the resample scores something else than the metric. So:

- Examples are drawn within their class. An example with several labels belongs to its rarest one.
- From a class of n examples n - 1 are drawn, each counting n / (n - 1): n draws would show too small a variance, by
  (n - 1) / n (Rao and Wu 1988, Resampling Inference with Complex Survey Data, JASA 83).
- A single example says nothing about how its class varies. Labels with one example are drawn as a whole, from all of these.
- The resampled scores are shifted so that their mean is the score. F1 is not linear in the counts: in few examples its
  resamples lie below it on average.

B resamples, N examples, K kinds of examples, C labels, R runs.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from numpy.typing import NDArray


def resampled_macro_f1(
    columns: NDArray[Any], scores: Float64[np.ndarray, " R"], rng: np.random.Generator, *, resamples: int, chunk: int
) -> Float64[np.ndarray, "R B"]:
    """Return the macro F1 of each run on each of B resamples, which all runs share. Their mean is the run's score.

    Args:
        columns: the true labels and those of each run: (1 + R, N), or (1 + R, N, C) of 0 and 1.
        scores: macro F1 of each run.
        resamples: B.
        chunk: number of counts in memory at a time.
    """
    kinds, multiplicity = np.unique(columns, axis=1, return_counts=True)
    labels = np.arange(kinds.shape[2]) if kinds.ndim == 3 else np.unique(kinds)
    indicators = kinds > 0 if kinds.ndim == 3 else kinds[..., None] == labels  # (1 + R, K, C)
    strata, at_a_time = _strata(indicators[0], multiplicity), max(1, chunk // len(multiplicity))
    of_chunks = []
    for done in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - done)
        counts = _draw_within(strata, multiplicity, rng, size)
        weights = _draw_single(indicators[0].T @ multiplicity == 1, rng, size)
        of_chunks.append([_mean_f1(indicators[0], run, multiplicity, counts, weights, kinds.ndim) for run in indicators[1:]])
    resampled = np.concatenate(of_chunks, axis=1)
    shift = scores - resampled.mean(1)
    return np.asarray(resampled + shift[:, None])


def _strata(is_true: Bool[np.ndarray, "K C"], multiplicity: Int64[np.ndarray, " K"]) -> Int64[np.ndarray, " K"]:
    """Return the rarest label of each kind of example, and C for examples without a label."""
    frequency = np.where(is_true, is_true.T @ multiplicity, np.inf)
    return np.asarray(np.where(is_true.any(1), frequency.argmin(1), is_true.shape[1]))


def _draw_within(
    strata: Int64[np.ndarray, " K"], multiplicity: Int64[np.ndarray, " K"], rng: np.random.Generator, size: int
) -> Float64[np.ndarray, "K B"]:
    """Return how often each kind counts in each resample. The sum over a stratum is always its number of examples."""
    counts = np.empty((len(strata), size))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = multiplicity[members].sum()
        if n == 1:
            counts[members] = 1
        else:
            drawn = rng.multinomial(n - 1, multiplicity[members] / n, size=size)
            counts[members] = drawn.T * (n / (n - 1))
    return counts


def _draw_single(is_single: Bool[np.ndarray, " C"], rng: np.random.Generator, size: int) -> Float64[np.ndarray, "C B"]:
    """Return the weight of each label in the mean: 1, and for labels with one example how often they are drawn."""
    weights, singles = np.ones((len(is_single), size)), int(is_single.sum())
    if singles > 1:
        drawn = rng.multinomial(singles - 1, np.full(singles, 1 / singles), size=size)
        weights[is_single] = drawn.T * (singles / (singles - 1))
    return weights


def _mean_f1(
    is_true: Bool[np.ndarray, "K C"],
    is_answer: Bool[np.ndarray, "K C"],
    multiplicity: Int64[np.ndarray, " K"],
    counts: Float64[np.ndarray, "K B"],
    weights: Float64[np.ndarray, "C B"],
    axes: int,
) -> Float64[np.ndarray, " B"]:
    """Return the weighted mean of the labels' F1: of all C for sets of labels, else of those that occur or are predicted.

    A label without true examples in a resample, which only sets of labels make possible, has its F1 on all examples.
    """
    hits, total = (is_true & is_answer) * 1.0, is_true * 1.0 + is_answer
    on_all = f1_of_counts(hits, total, multiplicity[:, None].astype(np.float64))
    f1 = np.where(is_true.T.astype(np.float64) @ counts > 0, f1_of_counts(hits, total, counts), on_all)
    used = (is_true | is_answer).any(0) if axes == 2 else np.ones(is_true.shape[1], bool)
    return np.asarray((weights * f1)[used].sum(0) / used.sum())


def f1_of_counts(
    hits: Shaped[np.ndarray, " *K_C"], total: Shaped[np.ndarray, " *K_C"], counts: Float64[np.ndarray, "K B"]
) -> Float64[np.ndarray, " *C_B"]:
    """Return 2 TP / (2 TP + FP + FN), 0 where a label neither occurs nor is predicted.

    Args:
        hits: TP of each kind of example.
        total: 2 TP + FP + FN of each.
    """
    both = total.T @ counts
    return np.asarray(np.divide(2 * hits.T @ counts, both, out=0 * both, where=both > 0))
