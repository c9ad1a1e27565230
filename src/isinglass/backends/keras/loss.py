"""The loss of each example, in keras.ops. S examples, K outputs; everything is float32."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from keras import ops

from isinglass.backends.protocol import Objective


def example_losses(objective: Objective, logits: Any, labels: Any) -> Any:
    """Return what the objective says of each example, (S,).

    Args:
        logits: (S, K).
        labels: int32 (S,) classes; float32 (S,) values in regression, (S, K) zeros and ones with several labels.
    """
    return _LOSSES[objective.kind](objective, logits, labels)


def _squared_error(_: Objective, logits: Any, labels: Any) -> Any:
    return ops.square(logits[:, 0] - labels)


def _binary_cross_entropy(objective: Objective, logits: Any, labels: Any) -> Any:
    smoothing = objective.label_smoothing
    targets = labels * (1 - smoothing) + smoothing / 2
    positive = np.asarray(objective.class_weights or [1.0] * objective.num_outputs, np.float32)
    losses = -(positive * targets * ops.log_sigmoid(logits) + (1 - targets) * ops.log_sigmoid(-logits))
    return ops.mean(losses, axis=1)


def _cross_entropy(objective: Objective, logits: Any, labels: Any) -> Any:
    log_probabilities = ops.log_softmax(logits)
    losses = -ops.take_along_axis(log_probabilities, ops.expand_dims(labels, 1), axis=1)[:, 0]
    smoothing = objective.label_smoothing
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * ops.mean(log_probabilities, axis=1)
    if objective.class_weights:
        losses *= ops.take(np.asarray(objective.class_weights, np.float32), labels)
    return losses


_LOSSES: Final[Mapping[str, Callable[[Objective, Any, Any], Any]]] = {
    "regression": _squared_error,
    "multilabel": _binary_cross_entropy,
    "classification": _cross_entropy,
}
