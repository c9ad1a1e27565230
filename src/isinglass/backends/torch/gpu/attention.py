"""Attention of flat batches on a GPU by fused kernels, which never write the attention weights to memory.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. The tensors have more rows than T (`ROWS`), so that
their number takes few values. The padding rows are one more sequence, which attends to itself only.

- TritonPlan: our own kernels (`triton.attention`). They take sequences end to end, without padding. For fp16 and bf16,
  compute capability 8.0 or newer, D up to 128.
- FlashPlan: the same by `aten::_flash_attention_forward`, which `torch.nn.attention.varlen.varlen_attn` calls too, but with
  its dropout fixed at 0. Used where Triton is missing or fails, and for D up to 256. It drops in 1/256ths.
- PaddedPlan: every sequence padded to the longest, keys masked, `scaled_dot_product_attention`. For everything else.

`aten::_efficient_attention_forward` takes sequences end to end in fp32 too, but not with dropout. Given `cu_seqlens` it
places its random numbers as if no sequence had keys, so that all heads and examples share one mask, and its backward pass
does not (PyTorch's attention.cu: `max_seqlen_k = 0` forward, the true one backward). It is not used.

Flash and padded attention draw from the device's default generator, Triton's kernels by the micro-batch's key
(`KernelDropout`). Only `choose_plan` reads a number off the device: it accepts a kind of plan only after it has computed on
the device what padding computes.
"""

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.torch.batch import RowRounding
from isinglass.backends.torch.gpu.dropout import KernelDropout, PlacedDropout
from isinglass.backends.torch.gpu.sequences import Projections, SequenceBounds
from isinglass.backends.torch.gpu.staging import to_device

ROWS: Final = RowRounding(multiple=64, spare=1)
LENGTH_MULTIPLE: Final = 64  # of a padded length, and of the longest length that kernels are launched for
CAPABILITY: Final = (8, 0)  # least compute capability for sequences end to end
HALVES: Final = (torch.float16, torch.bfloat16)
FLASH_HEAD_MULTIPLE: Final = 8  # of D
FLASH_MAX_HEAD: Final = 256  # D
FLASH_LEVELS: Final = 256  # it compares one random byte for each weight
_PROBE_LENGTHS: Final = np.array([3, 17, 150])  # the last one takes several tiles


@dataclass(frozen=True, kw_only=True)
class GpuPlan(ABC):
    """Attention of a flat batch (see `torch.attention.AttentionPlan`).

    Attributes:
        max_length: at least the tokens of the longest sequence, known on the host.
        dropout: of the attention weights; None outside of training.
    """

    name: ClassVar[str]  # in messages

    num_heads: int
    max_length: int
    dropout: KernelDropout | None

    @staticmethod
    @abstractmethod
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> dict[str, NDArray[Any]]:
        """Return what the plan has on the device, by the names of its fields."""

    @abstractmethod
    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""

    @abstractmethod
    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""

    @classmethod
    def prepare(
        cls, lengths: Int64[np.ndarray, " S"], rows: int, num_heads: int, device: torch.device,
        dropout: KernelDropout | None = None,
    ) -> Self:  # fmt: skip
        """Return the plan for a batch, with its arrays copied to the device."""
        own = to_device({"attention": cls.arrays(lengths, rows)}, device)["attention"]
        return cls(num_heads=num_heads, max_length=padded_length(lengths, rows), dropout=dropout, **own)

    def _rate(self, rate: float) -> float:
        return 0.0 if self.dropout is None else rate


@dataclass(frozen=True, kw_only=True)
class TritonPlan(GpuPlan):
    """Attention by `triton.attention`.

    Attributes:
        cu_seqlens: int32 (S + 2,), where each sequence begins, and the number of rows.
        cu_first: int32 (S + 2,), the same for the last layer, where each example has one query, and the padding rows none.
    """

    name = "our own kernel"

    cu_seqlens: Tensor
    cu_first: Tensor

    @staticmethod
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> dict[str, NDArray[Any]]:
        """See GpuPlan."""
        S = len(lengths)
        return {"cu_seqlens": _bounds(lengths, rows), "cu_first": np.minimum(np.arange(S + 2), S).astype(np.int32)}

    def bounds(self) -> SequenceBounds:
        """Return the bounds of the sequences where every token has a query."""
        return SequenceBounds(self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length)

    def weight_dropout(self, rate: float) -> PlacedDropout | None:
        """Return the next dropout of attention weights; None if nothing is dropped."""
        return None if self.dropout is None or rate == 0 else self.dropout.at_next_place(rate)

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        return _Attention.apply(  # type: ignore[no-any-return]
            qkv, None, self.num_heads, self.bounds(), self.weight_dropout(rate)
        )

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        bounds = SequenceBounds(self.cu_first, self.cu_seqlens, 1, self.max_length)
        return _Attention.apply(  # type: ignore[no-any-return]
            kv, q_first, self.num_heads, bounds, self.weight_dropout(rate)
        )


class _Attention(torch.autograd.Function):
    """(rows, 3 * H) to (rows, H); or (rows, 2 * H), keys and values, and queries (S, H) to (S, H)."""

    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, q_first: Tensor | None, num_heads: int, bounds: SequenceBounds,
        dropout: PlacedDropout | None,
    ) -> Tensor:  # fmt: skip
        from isinglass.backends.torch.gpu.triton.attention import attend

        result = attend(Projections.split(packed, q_first), num_heads, bounds, dropout)
        ctx.bounds, ctx.dropout = bounds, dropout
        ctx.save_for_backward(packed, q_first, *result)
        return result.out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        from isinglass.backends.torch.gpu.triton.attention import AttentionResult, attend_backward

        packed, q_first, *result = ctx.saved_tensors
        grad_packed = torch.empty_like(packed)
        grad_first = None if q_first is None else torch.empty_like(q_first)
        projections, grads = Projections.split(packed, q_first), Projections.split(grad_packed, grad_first)
        attend_backward(grad.contiguous(), projections, AttentionResult(*result), ctx.bounds, ctx.dropout, grads)
        return grad_packed, grad_first, None, None, None


@dataclass(frozen=True, kw_only=True)
class FlashPlan(GpuPlan):
    """Attention by PyTorch's FlashAttention.

    Attributes:
        cu_seqlens: int32 (S + 2,), where each sequence begins, and the number of rows.
        cu_first: int32 (S + 2,), the same for the last layer, where each sequence has one query. The padding rows have one
            too, because keys to which no query attends would get no gradient.
    """

    name = "FlashAttention"

    cu_seqlens: Tensor
    cu_first: Tensor

    @staticmethod
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> dict[str, NDArray[Any]]:
        """See GpuPlan."""
        return {"cu_seqlens": _bounds(lengths, rows), "cu_first": np.arange(len(lengths) + 2, dtype=np.int32)}

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        rows = qkv.shape[0]
        projections = Projections(*qkv.view(rows, 3, self.num_heads, -1).unbind(1))  # (rows, N, D) each, not copied
        bounds = SequenceBounds(self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length)
        return _flash(projections, bounds, self._rate(rate)).reshape(rows, -1)

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        S, N = q_first.shape[0], self.num_heads
        q = F.pad(q_first, (0, 0, 0, 1)).view(S + 1, N, -1)
        projections = Projections(q, *kv.view(kv.shape[0], 2, N, -1).unbind(1))
        bounds = SequenceBounds(self.cu_first, self.cu_seqlens, 1, self.max_length)
        return _flash(projections, bounds, self._rate(rate))[:S].reshape(S, -1)


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
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> dict[str, NDArray[Any]]:
        """See GpuPlan."""
        is_real = np.arange(padded_length(lengths, rows)) < _with_padding(lengths, rows)[:, None]
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

    def _pad(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return (rows, P * H) as P tensors (B, N, L, D), with zeros as padding."""
        B, _, _, L = self.is_real.shape
        padded = x.new_zeros(B * L, x.shape[1]).index_copy(0, self.position, x)
        return padded.view(B, L, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def padded_length(lengths: Int64[np.ndarray, " S"], rows: int) -> int:
    """Return the tokens of the longest sequence, that of the padding rows included, rounded up."""
    return -(-int(_with_padding(lengths, rows).max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _with_padding(lengths: Int64[np.ndarray, " S"], rows: int) -> Int64[np.ndarray, " sequences"]:
    """Return the lengths of all sequences: the examples', and that of the padding rows, which is at least 1."""
    return np.append(lengths, rows - int(lengths.sum()))


def _bounds(lengths: Int64[np.ndarray, " S"], rows: int) -> NDArray[Any]:
    """Return int32 (S + 2,), where each sequence begins, and the number of rows."""
    return np.cumsum([0, *_with_padding(lengths, rows)], dtype=np.int32)


def flash_rate(rate: float) -> float:
    """Return the rate to give to FlashAttention: 1/256ths, at most 1/512 from `rate`, and exact.

    It keeps a weight where a random byte is at most floor(255 * (1 - rate)), and divides by 1 - rate. At 0.1 it would keep
    230/256 of the weights and divide by 0.9, and all sums would come out 0.17 % too small. At 26/256 both are 230/256.
    """
    kept = min(max(round((1 - rate) * FLASH_LEVELS), 1), FLASH_LEVELS)
    return 1 - kept / FLASH_LEVELS


def _flash(projections: Projections, bounds: SequenceBounds, rate: float) -> Tensor:
    """Return the context (queries, N, D) for q (queries, N, D) and k, v (keys, N, D), with scale 1 / sqrt(D)."""
    out: Tensor = torch.ops.aten._flash_attention_forward(
        *projections, bounds.cu_q, bounds.cu_k, bounds.max_q, bounds.max_k, flash_rate(rate),
        False,  # not causal
        False,  # without the mask for debugging
    )[0]  # fmt: skip
    return out


def choose_plan(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> tuple[type[GpuPlan], str | None]:
    """Return the kind of plan for a GPU, and a note if it is slower than what `dtype` could have. Waits for the device."""
    capability, probe = torch.cuda.get_device_capability(device), (device, dtype, num_heads, head_size)
    no_triton = why_not_triton(dtype, capability, head_size) or find_failure(TritonPlan, *probe)
    if no_triton is None:
        return TritonPlan, None
    no_flash = why_not_flash(dtype, capability, head_size) or find_failure(FlashPlan, *probe)
    if no_flash is None:
        slower = f"it drops weights in {FLASH_LEVELS}ths"
        return FlashPlan, f"Attention runs by FlashAttention, because {no_triton}: {slower}."
    if dtype not in HALVES:
        return PaddedPlan, None
    return PaddedPlan, f"Attention pads the examples of a batch to the longest, because {no_triton}, and {no_flash}."


def why_not_end_to_end(dtype: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Return why no kernel takes sequences end to end; None if one may."""
    if dtype not in HALVES:
        return "sequences end to end are for fp16 and bf16 only"
    if capability < CAPABILITY:
        needed, actual = (".".join(map(str, version)) for version in (CAPABILITY, capability))
        return f"a GPU of compute capability {needed} is needed, and this one has {actual}"
    return None


def why_not_triton(dtype: torch.dtype, capability: tuple[int, int], head_size: int) -> str | None:
    """Return why our own kernels do not serve; None if they may."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    from isinglass.backends.torch.gpu.triton.attention import MAX_HEAD

    if head_size > MAX_HEAD:
        return f"our kernels take heads of size {MAX_HEAD} at most, and these have {head_size}"
    return why_not_end_to_end(dtype, capability)


def why_not_flash(dtype: torch.dtype, capability: tuple[int, int], head_size: int) -> str | None:
    """Return why FlashAttention does not serve; None if it may."""
    if not hasattr(torch.ops.aten, "_flash_attention_forward") or not torch.backends.cuda.is_flash_attention_available():
        return "this PyTorch was built without FlashAttention"
    if head_size % FLASH_HEAD_MULTIPLE or head_size > FLASH_MAX_HEAD:
        return (
            f"FlashAttention takes heads whose size is a multiple of {FLASH_HEAD_MULTIPLE} up to {FLASH_MAX_HEAD}, and "
            f"these have {head_size}"
        )
    return why_not_end_to_end(dtype, capability)


def find_failure(
    kind: type[GpuPlan], device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> str | None:
    """Run a kind of plan on the device. Return what is wrong if it does not compute what padding does, else None."""
    H, S, rows = num_heads * head_size, len(_PROBE_LENGTHS), ROWS.rows_for(int(_PROBE_LENGTHS.sum()))
    generator = torch.Generator(device).manual_seed(0)
    shapes = (rows, 3 * H), (rows, H), (S, H), (S, H)
    qkv, grad, q_first, grad_first = (torch.randn(*shape, generator=generator, device=device).to(dtype) for shape in shapes)

    def run(kind: type[GpuPlan], dtype: torch.dtype) -> Tensor:
        """Return the contexts of both kinds of attention and all gradients, as one fp32 vector."""
        plan = kind.prepare(_PROBE_LENGTHS, rows, num_heads, device)
        inputs = x, first = [tensor.to(dtype).requires_grad_() for tensor in (qkv, q_first)]
        contexts = plan.attend(x, 0.0), plan.attend_first(first, x[:, H:], 0.0)
        grads = torch.autograd.grad(contexts, inputs, (grad.to(dtype), grad_first.to(dtype)))
        return torch.cat([tensor.detach().float().flatten() for tensor in (*contexts, *grads)])

    try:
        expected, actual = run(PaddedPlan, torch.float32), run(kind, dtype)
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"{kind.name} fails on this GPU ({str(error).splitlines()[0][:200]})"
    tolerance = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
    difference = float((actual - expected).abs().nan_to_num(float("inf")).max())
    return None if difference <= tolerance else f"what {kind.name} finds on this GPU is {difference:.2g} off"
