"""The loss that an objective names."""

import torch
import torch.nn.functional as F
from torch import Tensor

from isinglass.backends.objective import Objective


class Loss:
    """The mean over the examples of a batch of what the objective says, in fp32."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        weights = objective.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
        self._smoothing = objective.label_smoothing
        self._mean_loss = {
            "regression": self._squared_error,
            "multilabel": self._binary_cross_entropy,
            "classification": self._cross_entropy,
        }[objective.kind]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, (), of logits (S, num_outputs)."""
        return self._mean_loss(logits.float(), labels)

    def _squared_error(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits[:, 0], labels)

    def _binary_cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = labels * (1 - self._smoothing) + self._smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self._class_weights)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        losses = F.cross_entropy(logits, labels, label_smoothing=self._smoothing, reduction="none")
        return (losses * self._class_weights[labels]).mean()
