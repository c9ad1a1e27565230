"""Metrics against textbook values, and the learning-rate schedule."""

import numpy as np
import pytest

from isinglass.config import TrainConfig
from isinglass.metrics import Metric, scores
from isinglass.results import Score
from isinglass.tasks.kinds import CLASSIFICATION
from isinglass.training.loop import learning_rate
from tests.sample_bench import sample_result

LABELS = np.array([0, 0, 1, 1, 1])
ANSWERS = np.array([0, 1, 1, 1, 0])


def test_scores_by_hand() -> None:
    found = scores((Metric.ACCURACY, Metric.F1, Metric.MATTHEWS), LABELS, ANSWERS, positive=1)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["matthews"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_f1_counts_the_positive_label_whatever_its_position() -> None:
    """A checkpoint may have label `1` as its output 0."""
    ours = scores((Metric.F1,), 1 - LABELS, 1 - ANSWERS, positive=0)
    assert ours == scores((Metric.F1,), LABELS, ANSWERS, positive=1)


def test_majority_answers_the_most_frequent_label() -> None:
    assert scores((Metric.ACCURACY, Metric.F1, Metric.MATTHEWS), LABELS, CLASSIFICATION.constant(LABELS), positive=1) == {
        "accuracy": pytest.approx(0.6),
        "f1": pytest.approx(0.75),
        "matthews": 0.0,
    }
    assert scores((Metric.F1,), 1 - LABELS, CLASSIFICATION.constant(1 - LABELS), positive=1) == {"f1": 0.0}


def test_correlations_and_their_nan() -> None:
    """A constant prediction has no correlation: the score must be NaN, never 0."""
    labels, values = np.array([0, 1, 2, 5], np.float32), np.array([0, 2, 4, 10], np.float32)
    assert scores((Metric.PEARSON, Metric.SPEARMAN), labels, values) == pytest.approx({"pearson": 1, "spearman": 1})
    constant = scores((Metric.PEARSON,), labels, np.ones(4, np.float32))
    assert np.isnan(constant["pearson"])
    assert Score.of(constant["pearson"], 0.5) == Score(None, 0.5)


def test_one_split_stands_alone_and_two_stand_apart() -> None:
    """Scripts read results in this older form, in which the scores of a single split are not nested below its name."""
    two = {"dev_matched": {"accuracy": 0.5}, "dev_mismatched": {"accuracy": 0.25}}
    result = sample_result("mnli", metrics=two)
    assert (result.metrics, result.split) == (two, "dev_matched+dev_mismatched")
    assert sample_result("rte", metrics={"accuracy": 0.5}).metrics == {"accuracy": 0.5}


def test_the_rate_falls_linearly_to_zero_after_warm_up() -> None:
    """The rates must equal those of `get_linear_schedule_with_warmup` in `transformers`."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    for ratio, total in ((0.0, 4), (0.1, 30), (0.25, 10)):
        config = TrainConfig(learning_rate=1e-3, warmup_ratio=ratio)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        schedule = get_linear_schedule_with_warmup(optimizer, -int(-ratio * total // 1), total)
        for step in range(total):
            assert learning_rate(config, step, total) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            schedule.step()
    assert learning_rate(TrainConfig(learning_rate=1e-3, schedule="constant"), 9, 10) == 1e-3
