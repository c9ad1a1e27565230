"""Dropout masks as a pure function of (seed, step), from whole words of random bits.

`bernoulli_` draws one 32-bit number and compares one float for each element. Here one 64-bit number serves four
elements: each is kept if its 16 bits, as a number, reach a threshold. The keep rate is exact to 1 / 65536. A mask is all
ones or all zeros in the bits of an element, so that dropping is one bitwise `and`; the division by the true keep rate
happens where products are summed in float32, so that bfloat16 does not round it.

That is for a CPU. A GPU's kernels draw their own, and drop in passing: `KernelDropout`.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS: Final = 1 << 16
_STREAMS: Final = 4  # of random words, drawn by as many threads where PyTorch has several: NumPy lets go of the GIL
_WORDS: Final = 1 << 19  # drawn at a time on a CPU: 4 MiB
_POOL: Final = ThreadPoolExecutor(_STREAMS, thread_name_prefix="dropout")
_KERNELS: Final = 0x6B65726E  # "kern": apart from the seeds of anything else
_PATTERN: Final = {2: torch.int16, 4: torch.int32}  # bytes of an element -> integers of its size


class KernelDropout:
    """The dropout of one training step on a GPU, within kernels: PyTorch's, which draw from the device's default generator,
    and those of `triton.kernels`, which read the key from the device.

    A recorded step (`graphs`) takes the generator's key from here too: to be made before each replay.

    Attributes:
        arrays: the key, int64 (1,), to come to the device with the batch.
        key: it there, once it has arrived.
    """

    key: Tensor

    def __init__(self, seed: int, step: int, device: torch.device, *, part: int = 0, rank: int = 0) -> None:
        """Let what the kernels draw depend on (seed, step, part, rank) and on their order alone.

        Sets a number on the host: each kernel is launched with (key, offset), and keeps both for its backward pass.
        """
        sequence = np.random.SeedSequence([_KERNELS, seed, step, part, rank])
        key = (sequence.generate_state(1, np.uint64) >> np.uint64(2)).astype(np.int64)
        self.arrays = (key,)
        self._places = 0
        generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        generator.manual_seed(int(key[0]))

    def arrive(self, tensors: Sequence[Tensor]) -> None:
        """Take `arrays` on the device."""
        (self.key,) = tensors

    def places(self, count: int) -> range:
        """Numbers for so many more places that drop by the key."""
        self._places += count
        return range(self._places - count, self._places)


class DropoutMasks:
    """The masks of one training step on a CPU, drawn in the order in which the model asks for them."""

    arrays = ()

    def arrive(self, tensors: Sequence[Tensor]) -> None:
        """Nothing of it comes from elsewhere."""

    def __init__(self, seed: int, step: int, *, part: int = 0, rank: int = 0, drawn_ahead: int = 0) -> None:
        """Begin the masks of `step`; the same (seed, step, part, rank) and order of calls give the same masks.

        Args:
            part: which of the step's micro-batches.
            rank: which of the processes that share the step.
            drawn_ahead: draw the bits of so many elements now, and then only hand them out: a compiled model cannot call
                the generator.
        """
        place = [part, rank] if rank else [part] if part else []
        sequence = np.random.SeedSequence([seed, step, *place])
        self._streams = [np.random.Generator(np.random.SFC64(one)) for one in sequence.spawn(_STREAMS)]
        self._drawn = self._new_bits(drawn_ahead)  # what is left of it
        self.elements = 0  # handed out so far

    def draw(self, shape: tuple[int, ...], rate: float, dtype: torch.dtype) -> tuple[Tensor, float]:
        """A mask for elements of `dtype`, in integers of the same size: independently 0 with probability `rate` (in
        1/65536ths), else all bits one; and 1 / (true keep rate).
        """
        count = math.prod(shape)
        if len(self._drawn) < count:
            self._drawn = self._new_bits(count)
        bits, self._drawn = self._drawn[:count].view(shape), self._drawn[count:]
        self.elements += count
        dropped = round(rate * LEVELS)
        if not 0 < dropped < LEVELS:
            raise ValueError(f"a dropout rate is to lie between 0 and 1, not at {rate}")
        least = dropped - LEVELS // 2  # of the bits that keep, as a number from -32768 on
        kept = torch.rsub(bits.clamp(least - 1, least), least - 1)  # -1, which is all ones, where kept
        return kept.to(_PATTERN[dtype.itemsize]), LEVELS / (LEVELS - dropped)

    def _new_bits(self, count: int) -> Tensor:
        """int16 (at least `count`,), all 16 bits random."""
        if count == 0:
            return torch.empty(0, dtype=torch.int16)
        share = -(-max(-(-count // 4), _WORDS) // _STREAMS)
        map_ = _POOL.map if torch.get_num_threads() > 1 else map
        parts = map_(lambda stream: stream.integers(-(2**63), 2**63, share, dtype=np.int64), self._streams)
        return torch.cat([torch.from_numpy(part) for part in parts]).view(torch.int16)


Dropout = DropoutMasks | KernelDropout


def drop(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where the mask is ones, 0 where it is zeros."""
    return (x.view(mask.dtype) & mask).view(x.dtype)


class _Dropped(torch.autograd.Function):
    """`drop`, keeping the mask alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return drop(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return drop(grad, mask), None


class _DroppedSum(torch.autograd.Function):
    """residual + drop(x, mask) * scale, keeping the mask alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale, ctx.dtype = scale, x.dtype
        return torch.add(residual, drop(x, mask), alpha=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return grad, drop((grad * ctx.scale).to(ctx.dtype), mask), None, None


def masked(x: Tensor, rate: float, masks: Dropout | None) -> tuple[Tensor, float]:
    """`x` with elements dropped, and the factor by which the caller still has to multiply: (x, 1) outside training."""
    if masks is None or rate == 0:
        return x, 1.0
    if isinstance(masks, KernelDropout):
        return F.dropout(x, rate), 1.0
    mask, scale = masks.draw(tuple(x.shape), rate, x.dtype)
    return _Dropped.apply(x, mask), scale


def dropout(x: Tensor, rate: float, masks: Dropout | None) -> Tensor:
    """Inverted dropout of `x`; `x` itself outside training (`masks` None) or at rate 0."""
    kept, scale = masked(x, rate, masks)
    return kept if scale == 1.0 else kept * scale


def add_dropped_out(residual: Tensor, x: Tensor, rate: float, masks: Dropout | None) -> Tensor:
    """Residual + dropout(x), in the wider of the two precisions; in prediction the sum is left in `residual`."""
    if not torch.is_grad_enabled() and masks is None and residual.dtype == torch.result_type(residual, x):
        return residual.add_(x)
    if masks is None or rate == 0:
        return residual + x
    if isinstance(masks, KernelDropout):
        return residual + F.dropout(x, rate)
    mask, scale = masks.draw(tuple(x.shape), rate, x.dtype)
    return _DroppedSum.apply(residual, x, mask, scale)  # type: ignore[no-any-return]
