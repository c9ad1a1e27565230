"""A split with the model's outputs, and its scores."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from isinglass.metrics import (
    Scores,
    classification_scores,
    constant_scores,
    majority_multilabel_scores,
    majority_scores,
    multilabel_scores,
    regression_scores,
)
from isinglass.tasks import Task
from isinglass.training.preparation import PreparedSplit


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One split with the model's answers.

    Attributes:
        outputs: float32 (N, num_outputs), logits or the value, in the order of the file.
        label_order: name of each output; None for regression.
    """

    split: PreparedSplit
    outputs: Float32[np.ndarray, "N outputs"]
    label_order: tuple[str, ...] | None


def score(task: Task, scored: Scored) -> tuple[Scores, Scores, bool]:
    """Metrics, majority baseline, and whether one label was given to every example."""
    labels = scored.split.labels
    assert labels is not None
    if scored.label_order is None:
        values = labels.astype(np.float32)
        found = regression_scores(task.metrics, values, scored.outputs[:, 0])
        return found, constant_scores(task.metrics, values), False
    if task.is_multilabel:
        sets, chosen = labels > 0, scored.outputs > 0
        found = multilabel_scores(task.metrics, sets, chosen)
        return found, majority_multilabel_scores(task.metrics, sets), len(np.unique(chosen, axis=0)) == 1
    positive = scored.label_order.index(task.positive_label) if task.positive_label in scored.label_order else 0
    truth: Int64[np.ndarray, " N"] = labels.astype(np.int64)
    answers = scored.outputs.argmax(1).astype(np.int64)
    return (
        classification_scores(task.metrics, truth, answers, positive),
        majority_scores(task.metrics, truth, positive),
        len(np.unique(answers)) == 1,
    )
