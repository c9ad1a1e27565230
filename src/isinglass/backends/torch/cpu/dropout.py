"""Dropout masks on a CPU, as a pure function of (seed, step, micro-batch, rank), from 64-bit random words.

`bernoulli_` draws one 32-bit number and compares one float for each element. Here one 64-bit number serves four elements:
an element is kept if its 16 bits, as a number, reach a threshold. The keep rate is exact to 1 / 65536.

A mask has all bits of an element set or none, so that dropping is one bitwise `and`. The division by the true keep rate
happens where products are summed in float32, so that bfloat16 does not round it.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from isinglass.backends.torch.batch import Dropout

LEVELS: Final = 1 << 16
_GENERATORS: Final = 4  # of random words; as many threads use them, because NumPy releases the GIL
_WORDS: Final = 1 << 19  # drawn at a time: 4 MiB
_POOL: Final = ThreadPoolExecutor(_GENERATORS, thread_name_prefix="dropout")
_MASK_DTYPES: Final = {2: torch.int16, 4: torch.int32}  # bytes of an element -> integers of its size


class MaskDropout(Dropout):
    """The dropout of one micro-batch by masks, which are drawn in the order of the calls.

    Attributes:
        elements: mask elements drawn so far.
    """

    def __init__(self, seed: int, step: int, *, part: int = 0, rank: int = 0, drawn_ahead: int = 0) -> None:
        """Begin the masks of a micro-batch. The same arguments and order of calls give the same masks.

        Args:
            part: number of the micro-batch in its step.
            rank: rank of the process among those that share the step.
            drawn_ahead: draw the bits of as many elements now, because a compiled model cannot call the generator.
        """
        place = [part, rank] if rank else [part] if part else []
        sequence = np.random.SeedSequence([seed, step, *place])
        self._generators = [np.random.Generator(np.random.SFC64(child)) for child in sequence.spawn(_GENERATORS)]
        self._unused_bits = self._new_bits(drawn_ahead)
        self.elements = 0

    def apply(self, x: Tensor, rate: float) -> Tensor:
        """See Dropout."""
        dropped, factor = self.apply_unscaled(x, rate)
        return dropped if factor == 1.0 else dropped * factor

    def apply_unscaled(self, x: Tensor, rate: float) -> tuple[Tensor, float]:
        """See Dropout."""
        if rate == 0:
            return x, 1.0
        mask, factor = self.draw(tuple(x.shape), rate, x.dtype)
        return _Drop.apply(x, mask), factor

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:
        """See Dropout."""
        if rate == 0:
            return residual + x
        mask, factor = self.draw(tuple(x.shape), rate, x.dtype)
        return _AddDropped.apply(residual, x, mask, factor)  # type: ignore[no-any-return]

    def draw(self, shape: tuple[int, ...], rate: float, dtype: torch.dtype) -> tuple[Tensor, float]:
        """Return a mask, and 1 / (true keep rate).

        The mask has integers as wide as `dtype`: independently 0 with probability `rate` (in 1/65536ths), else -1.

        Raises:
            ValueError: the rate is not between 0 and 1.
        """
        count = math.prod(shape)
        if len(self._unused_bits) < count:
            self._unused_bits = self._new_bits(count)
        bits, self._unused_bits = self._unused_bits[:count].view(shape), self._unused_bits[count:]
        self.elements += count
        dropped_levels = round(rate * LEVELS)
        if not 0 < dropped_levels < LEVELS:
            raise ValueError(f"a dropout rate must lie between 0 and 1, but it is {rate}")
        least_kept = dropped_levels - LEVELS // 2  # bits are numbers from -32768 on
        mask = torch.rsub(bits.clamp(least_kept - 1, least_kept), least_kept - 1)  # -1, all bits set, where kept
        return mask.to(_MASK_DTYPES[dtype.itemsize]), LEVELS / (LEVELS - dropped_levels)

    def _new_bits(self, count: int) -> Tensor:
        """Return int16 (at least `count`,), all 16 bits random."""
        if count == 0:
            return torch.empty(0, dtype=torch.int16)
        words = -(-max(-(-count // 4), _WORDS) // _GENERATORS)  # of each generator
        map_ = _POOL.map if torch.get_num_threads() > 1 else map
        drawn = map_(lambda generator: generator.integers(-(2**63), 2**63, words, dtype=np.int64), self._generators)
        return torch.cat([torch.from_numpy(array) for array in drawn]).view(torch.int16)


def drop(x: Tensor, mask: Tensor) -> Tensor:
    """Return x where the mask is -1, and 0 where it is 0."""
    return (x.view(mask.dtype) & mask).view(x.dtype)


class _Drop(torch.autograd.Function):
    """`drop`, which saves only the mask for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return drop(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return drop(grad, mask), None


class _AddDropped(torch.autograd.Function):
    """residual + drop(x, mask) * factor, which saves only the mask for the backward pass."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, mask: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.factor, ctx.dtype = factor, x.dtype
        return torch.add(residual, drop(x, mask), alpha=factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return grad, drop((grad * ctx.factor).to(ctx.dtype), mask), None, None
