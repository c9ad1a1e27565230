"""Dropout as the model uses it, whatever the device. `cpu/dropout.py` and `gpu/dropout.py` draw."""

from typing import Final, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Dropout(Protocol):
    """The dropout of one micro-batch. What is dropped depends on the order of the calls."""

    def apply(self, x: Tensor, rate: float) -> Tensor:
        """Return x with elements zeroed with probability `rate`, and the others divided by the keep rate."""

    def apply_unscaled(self, x: Tensor, rate: float) -> tuple[Tensor, float]:
        """Zero elements of x with probability `rate`. Return them with the factor that the caller has to multiply by."""

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:
        """Return residual + apply(x, rate), in the wider of the two precisions."""


class NoDropout:
    """Dropout outside of training: nothing is dropped, whatever the rate."""

    def apply(self, x: Tensor, rate: float) -> Tensor:  # noqa: ARG002
        """Return x."""
        return x

    def apply_unscaled(self, x: Tensor, rate: float) -> tuple[Tensor, float]:  # noqa: ARG002
        """Return x and 1."""
        return x, 1.0

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:  # noqa: ARG002
        """Return residual + x. In prediction the sum is written into `residual`, which nothing else reads."""
        if not torch.is_grad_enabled() and residual.dtype == torch.result_type(residual, x):
            return residual.add_(x)
        return residual + x


NO_DROPOUT: Final = NoDropout()
