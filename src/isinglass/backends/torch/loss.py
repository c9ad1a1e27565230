"""The loss that an objective names."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isinglass.backends.protocol import Objective


class Loss:
    """The mean over the examples of a batch of what the objective says, in fp32."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        weights = objective.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
        self._kind, self._smoothing = objective.kind, objective.label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, (), of logits (S, num_outputs)."""
        logits, weights, smoothing = logits.float(), self._class_weights, self._smoothing
        if self._kind == "regression":
            return F.mse_loss(logits[:, 0], labels)
        if self._kind == "multilabel":
            targets = labels * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels]).mean()
