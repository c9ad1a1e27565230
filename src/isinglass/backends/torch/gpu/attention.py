"""Attention of flat batches, and dropout, on a GPU.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. The tensors have more rows than T, so that their
number takes few values. The padding rows are one more sequence, which attends to itself only.

- `triton.attention.TritonPlan`: our own kernels, which never write the attention weights to memory. They take sequences end
  to end, without padding. For fp16 and bf16, compute capability 8.0 or newer, D up to 128.
- PaddedPlan: every sequence padded to the longest, keys masked, `scaled_dot_product_attention`. For everything else.

Of PyTorch's own kernels for sequences end to end none is used. `aten::_flash_attention_forward` drops in 1/256ths
(docs/experiments.md). `aten::_efficient_attention_forward` takes them in fp32 too, but not with dropout: given `cu_seqlens`
it places its random numbers as if no sequence had keys, so that all heads and examples share one mask, and its backward pass
does not (PyTorch's attention.cu: `max_seqlen_k = 0` forward, the true one backward).

Padded attention draws from the device's default generator, Triton's kernels by the micro-batch's key (`KernelDropout`). Only
`choose_plan` reads a number off the device: it accepts Triton's kernels only after they have computed on the device what
padding computes.

Dropout is drawn within kernels: a pure function of (seed, step, micro-batch, rank).
"""

import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.torch.batch import NO_DROPOUT, AttentionPlan, Dropout, rounded_rows
from isinglass.backends.torch.gpu.graphs import to_device

ROW_MULTIPLE: Final = 64  # of a flat batch
LENGTH_MULTIPLE: Final = 64  # of a padded length, and of the longest length that kernels are launched for
CAPABILITY: Final = (8, 0)  # least compute capability for Triton's kernels
MAX_HEAD: Final = 128  # D; a tile of it lies in the registers of one of Triton's programs
_PROBE_LENGTHS: Final = np.array([3, 17, 150])  # the last one takes several tiles
_KERNELS: Final = 0x6B65726E  # "kern": keeps these keys apart from the seeds of anything else
_LEVELS: Final = 1 << 31


def begin_dropout(seed: int, step: int, device: torch.device, *, part: int = 0, rank: int = 0) -> Int64[np.ndarray, "1"]:
    """Return the key of a micro-batch's dropout, and seed the device's default generator with it.

    Everything that is dropped then depends on (seed, step, part, rank) and on the order of the kernels alone. This sets a
    number on the host: each of PyTorch's kernels is launched with (seed, offset), and keeps both for its backward pass. A
    recorded step (`graphs`) reads them from the generator too, so that this has to come before each replay.
    """
    sequence = np.random.SeedSequence([_KERNELS, seed, step, part, rank])
    key = (sequence.generate_state(1, np.uint64) >> np.uint64(2)).astype(np.int64)
    generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
    generator.manual_seed(int(key[0]))
    return key


@dataclass(frozen=True)
class PlacedDropout:
    """Dropout at one place of a micro-batch, as the kernels in `triton` draw it.

    Attributes:
        rate: from 0 to below 1.
        key: int64 (1,), of the micro-batch.
        place: number of the place in the micro-batch.
    """

    rate: float
    key: Tensor
    place: int

    def arguments(self) -> dict[str, Any]:
        """Return what a kernel takes. `least` is the least 31-bit number that keeps an element, `factor` 1 / (keep rate)."""
        least = round(self.rate * _LEVELS)
        factor = _LEVELS / (_LEVELS - least)
        return {"key": self.key, "place": self.place, "least": least, "factor": factor, "DROPS": self.rate > 0}


class KernelDropout(Dropout):
    """The dropout of one micro-batch.

    PyTorch's kernels draw from the device's default generator, those in `triton` by the key and the number of the place.

    Attributes:
        key: int64 (1,), what `begin_dropout` returned, on the device.
    """

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self._places = 0

    def at_next_place(self, rate: float) -> PlacedDropout:
        """Return the dropout of the next place that drops by the key. Places count from 0."""
        self._places += 1
        return PlacedDropout(rate, self.key, self._places - 1)

    def apply(self, x: Tensor, rate: float) -> Tensor:
        """See Dropout."""
        return x if rate == 0 else F.dropout(x, rate)


@dataclass(frozen=True, kw_only=True)
class GpuPlan(AttentionPlan):
    """Attention of a flat batch.

    Attributes:
        max_length: at least the tokens of the longest sequence, known on the host.
    """

    max_length: int

    @staticmethod
    @abstractmethod
    def arrays(lengths: Int64[np.ndarray, " sequences"]) -> dict[str, NDArray[Any]]:
        """Return what the plan has on the device, by the names of its fields, for `sequence_lengths`."""

    @classmethod
    def prepare(
        cls, lengths: Int64[np.ndarray, " S"], num_heads: int, device: torch.device, dropout: Dropout = NO_DROPOUT
    ) -> Self:
        """Return the plan for a batch of examples, with its arrays copied to the device."""
        sequences = sequence_lengths(lengths)
        own = to_device({"attention": cls.arrays(sequences)}, device)["attention"]
        return cls(num_heads=num_heads, max_length=padded_length(sequences), dropout=dropout, **own)


@dataclass(frozen=True, kw_only=True)
class PaddedPlan(GpuPlan):
    """Attention of B sequences padded to L = `max_length` tokens.

    Attributes:
        position: int64 (rows,), where each row lies among the B * L positions.
        is_real: bool (B, 1, 1, L), false where a key is padding.
    """

    position: Tensor
    is_real: Tensor

    @staticmethod
    def arrays(lengths: Int64[np.ndarray, " sequences"]) -> dict[str, NDArray[Any]]:
        """See GpuPlan."""
        is_real = np.arange(padded_length(lengths)) < lengths[:, None]
        return {"position": np.flatnonzero(is_real), "is_real": is_real[:, None, None]}

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        q, k, v = self._pad(qkv, 3)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=self.is_real, dropout_p=self._rate(rate))
        return context.transpose(1, 2).reshape(self.is_real.numel(), -1).index_select(0, self.position)

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        S = q_first.shape[0]
        k, v = self._pad(kv, 2)
        q, is_real = q_first.view(S, self.num_heads, 1, -1), self.is_real[:S]
        context = F.scaled_dot_product_attention(q, k[:S], v[:S], attn_mask=is_real, dropout_p=self._rate(rate))
        return context.reshape(S, -1)

    def _rate(self, rate: float) -> float:
        return rate if isinstance(self.dropout, KernelDropout) else 0.0

    def _pad(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return (rows, P * H) as P tensors (B, N, L, D), with zeros as padding."""
        B, _, _, L = self.is_real.shape
        padded = x.new_zeros(B * L, x.shape[1]).index_copy(0, self.position, x)
        return padded.view(B, L, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def sequence_lengths(lengths: Int64[np.ndarray, " S"]) -> Int64[np.ndarray, " sequences"]:
    """Return the lengths of all sequences of a flat batch: the examples', and that of the padding rows, at least 1."""
    num_tokens = int(lengths.sum())
    return np.append(lengths, rounded_rows(num_tokens, multiple=ROW_MULTIPLE, spare=1) - num_tokens)


def padded_length(lengths: Int64[np.ndarray, " sequences"]) -> int:
    """Return the tokens of the longest sequence, rounded up."""
    return -(-int(lengths.max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def choose_plan(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> tuple[type[GpuPlan], str | None]:
    """Return the kind of plan for a GPU, and a note if it is slower than what `dtype` could have. Waits for the device."""
    if dtype == torch.float32:
        return PaddedPlan, None
    reason = why_not_triton(torch.cuda.get_device_capability(device), head_size)
    if reason is None:
        from isinglass.backends.torch.gpu.triton.attention import TritonPlan

        reason = find_failure(TritonPlan, device, dtype, num_heads, head_size)
        if reason is None:
            return TritonPlan, None
    return PaddedPlan, f"Attention pads the examples of a batch to the longest, because {reason}."


def why_not_triton(capability: tuple[int, int], head_size: int) -> str | None:
    """Return why our own kernels do not serve for fp16 and bf16; None if they may."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if head_size > MAX_HEAD:
        return f"our kernels take heads of size {MAX_HEAD} at most, and these have {head_size}"
    if capability < CAPABILITY:
        needed, actual = (".".join(map(str, version)) for version in (CAPABILITY, capability))
        return f"a GPU of compute capability {needed} is needed, and this one has {actual}"
    return None


def find_failure(
    kind: type[GpuPlan], device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> str | None:
    """Run a kind of plan on the device. Return what is wrong if it does not compute what padding does, else None."""
    H, S, rows = num_heads * head_size, len(_PROBE_LENGTHS), int(sequence_lengths(_PROBE_LENGTHS).sum())
    generator = torch.Generator(device).manual_seed(0)
    shapes = (rows, 3 * H), (rows, H), (S, H), (S, H)
    qkv, grad, q_first, grad_first = (torch.randn(*shape, generator=generator, device=device).to(dtype) for shape in shapes)

    def run(kind: type[GpuPlan], dtype: torch.dtype) -> list[Tensor]:
        """Return the contexts of both kinds of attention and all gradients."""
        plan = kind.prepare(_PROBE_LENGTHS, num_heads, device)
        inputs = x, first = [tensor.to(dtype).requires_grad_() for tensor in (qkv, q_first)]
        contexts = plan.attend(x, 0.0), plan.attend_first(first, x[:, H:], 0.0)
        return [*contexts, *torch.autograd.grad(contexts, inputs, (grad.to(dtype), grad_first.to(dtype)))]

    tolerance = 8 * torch.finfo(dtype).eps
    return find_difference(lambda: run(PaddedPlan, torch.float32), lambda: run(kind, dtype), tolerance)


def find_difference(
    expected: Callable[[], list[Tensor]], actual: Callable[[], list[Tensor]], tolerance: float
) -> str | None:
    """Return what is wrong if `actual`, which runs kernels of ours, fails or returns other tensors; None if it does not.

    Args:
        tolerance: of the norm of a tensor's error, relative to that of the tensor.
    """
    try:
        pairs = [*zip(actual(), expected(), strict=True)]
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"our kernels fail on this GPU ({str(error).splitlines()[0][:200]})"
    errors = torch.stack([(a.float() - b).norm() / b.norm() for a, b in pairs]).detach()
    largest = float(errors.nan_to_num(float("inf")).max())
    return None if largest <= tolerance else f"the results of our kernels on this GPU are {largest:.2g} off"
