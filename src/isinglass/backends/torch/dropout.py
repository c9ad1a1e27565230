"""Dropout masks as a pure function of (seed, step), from whole words of random bits.

`bernoulli_` draws one 32-bit number and compares one float for each element. Here one 64-bit number serves four
elements, and integer operations on its 16-bit quarters leave the bit pattern of 1.0 or 0.0: each element is kept if 15
of its bits, as a number, reach a threshold. The keep rate is exact to 1 / 32768; the mask is 0 or 1 and the division by
the true keep rate happens where products are summed in float32, so that bfloat16 does not round it.
"""

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

LEVELS: Final = 1 << 15  # 15 bits an element
_ONE: Final = {torch.float32: 0x3F800000, torch.bfloat16: 0x3F80, torch.float16: 0x3C00}  # the bit pattern of 1.0


class DropoutMasks:
    """The masks of one training step, drawn in the order in which the model asks for them."""

    def __init__(
        self, seed: int, step: int, device: torch.device, *, part: int = 0, rank: int = 0, drawn_ahead: int = 0
    ) -> None:
        """Begin the masks of `step`; the same (seed, step, part, rank) and order of calls give the same masks.

        Args:
            part: which of the step's micro-batches.
            rank: which of the processes that share the step.
            drawn_ahead: draw the bits of so many elements now, and then only hand them out: a compiled model cannot call
                the generator.
        """
        place = [part, rank] if rank else [part] if part else []
        key = int(np.random.SeedSequence([seed, step, *place]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self._device = device
        self._generator = torch.Generator(device).manual_seed(key)
        self._ahead = self._bits(drawn_ahead) if drawn_ahead else None
        self.elements = 0  # handed out so far

    def draw(self, shape: tuple[int, ...], rate: float, dtype: torch.dtype) -> tuple[Tensor, float]:
        """A mask of independent zeros (with probability `rate`, in 1/32768ths) and ones, and 1 / (true keep rate)."""
        count = math.prod(shape)
        bits = self._bits(count) if self._ahead is None else self._ahead[self.elements : self.elements + count]
        self.elements += count
        dropped = round(rate * LEVELS)
        # bits >> 1 is uniform over -16384 .. 16383, so that the difference, negative where kept, cannot overflow
        kept = torch.rsub(bits.view(shape) >> 1, dropped - LEVELS // 2 - 1)
        kept >>= 15  # all ones where kept, else 0
        if dtype == torch.float32:
            kept = kept.to(torch.int32)
        kept &= _ONE[dtype]
        return kept.view(dtype), LEVELS / (LEVELS - dropped)

    def _bits(self, count: int) -> Tensor:
        """int16 (count,), all 16 bits random."""
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=self._device)
        words.random_(-(2**63), None, generator=self._generator)
        return words.view(torch.int16)[:count]


class _Masked(torch.autograd.Function):
    """x * mask, keeping the mask alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad * mask, None


class _MaskedSum(torch.autograd.Function):
    """residual + x * mask * scale in one pass, keeping the mask alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.addcmul(residual, x, mask, value=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return grad, (grad * ctx.scale).to(mask.dtype).mul_(mask), None, None


def masked(x: Tensor, rate: float, masks: DropoutMasks | None) -> tuple[Tensor, float]:
    """`x` with elements dropped, and the factor by which the caller still has to multiply: (x, 1) outside training."""
    if masks is None or rate == 0:
        return x, 1.0
    mask, scale = masks.draw(tuple(x.shape), rate, x.dtype)
    return _Masked.apply(x, mask), scale


def dropout(x: Tensor, rate: float, masks: DropoutMasks | None) -> Tensor:
    """Inverted dropout of `x`; `x` itself outside training (`masks` None) or at rate 0."""
    kept, scale = masked(x, rate, masks)
    return kept if scale == 1.0 else kept * scale


def add_dropped_out(residual: Tensor, x: Tensor, rate: float, masks: DropoutMasks | None) -> Tensor:
    """Residual + dropout(x), in the wider of the two precisions."""
    if masks is None or rate == 0:
        return residual + x
    mask, scale = masks.draw(tuple(x.shape), rate, x.dtype)
    return _MaskedSum.apply(residual, x, mask, scale)  # type: ignore[no-any-return]
