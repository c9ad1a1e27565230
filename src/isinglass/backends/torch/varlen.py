"""Self-attention over flat batches by fused kernels: the weights are never written to memory, and dropped within.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. The tensors have more rows than T, so that their
number takes few values (`rows_for`): the rows after the last example are one more sequence, which only attends to itself.

- FlashPlan: `aten::_flash_attention_forward`, which `torch.nn.attention.varlen.varlen_attn` calls too, but with its dropout
  fixed at 0. It takes sequences end to end: nothing is padded. fp16 and bf16, compute capability 8.0 or newer.
- PaddedPlan: every sequence padded to the longest, keys masked, `scaled_dot_product_attention`. Everything else.

`aten::_efficient_attention_forward` takes sequences end to end in fp32 too, but not with dropout: given `cu_seqlens` it
places its random numbers as if no sequence had keys, so that all heads and examples share one mask, and its backward pass
does not (PyTorch's attention.cu: `max_seqlen_k = 0` forward, the true one backward). It is not used.

Both kinds draw from the device's default generator (`KernelDropout`). No function here but `choose_plan` reads a number
off the device; that one believes in FlashAttention only after it has done on the device what padding does.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

ROW_MULTIPLE: Final = 64  # at least, of the rows: few shapes, for each of which a step is recorded (`cuda_graphs`)
LENGTH_MULTIPLE: Final = 64  # of a padded length and of the longest that FlashAttention is told of, likewise
FLASH_CAPABILITY: Final = (8, 0)
FLASH_DTYPES: Final = (torch.float16, torch.bfloat16)
FLASH_HEADS: Final = (8, 256)  # D is a multiple of the first, and at most the second
FLASH_LEVELS: Final = 256  # it compares one random byte for each weight
_PROBE: Final = np.array([3, 17, 40])  # lengths


@dataclass(frozen=True)
class FlashPlan:
    """How one batch is attended without padding, shared by all layers.

    Attributes:
        max_length: at least that of every sequence, known on the host.
        cu_seqlens: int32 (S + 2,), where each begins, and the number of rows.
        cu_first: int32 (S + 2,), 0 to S + 1: in the last layer each sequence has one query.
    """

    num_heads: int
    max_length: int
    cu_seqlens: Tensor
    cu_first: Tensor

    @staticmethod
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> tuple[np.ndarray, ...]:
        """What the plan has on the device: `cu_seqlens` and `cu_first`."""
        sequences = _with_rest(lengths, rows)
        return np.cumsum([0, *sequences], dtype=np.int32), np.arange(len(sequences) + 1, dtype=np.int32)

    @staticmethod
    def of(lengths: Int64[np.ndarray, " S"], rows: int, num_heads: int, arrays: tuple[Tensor, ...]) -> "FlashPlan":
        """The plan, `arrays` being on the device."""
        return FlashPlan(num_heads, padded_length(lengths, rows), *arrays)

    def self_attention(self, qkv: Tensor, rate: float) -> Tensor:
        """See the module's function."""
        rows, N = qkv.shape[0], self.num_heads
        q, k, v = qkv.view(rows, 3, N, -1).unbind(1)  # (rows, N, D) each, not copied
        return _flash(q, k, v, self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length, rate).reshape(rows, -1)

    def first_token_attention(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See the module's function."""
        S, N = q_first.shape[0], self.num_heads
        k, v = kv.view(kv.shape[0], 2, N, -1).unbind(1)
        q = F.pad(q_first, (0, 0, 0, 1)).view(S + 1, N, -1)  # the rest asks too: what attends to no query gets no gradient
        return _flash(q, k, v, self.cu_first, self.cu_seqlens, 1, self.max_length, rate)[:S].reshape(S, -1)


@dataclass(frozen=True)
class PaddedPlan:
    """How one batch is attended padded: B sequences of L tokens.

    Attributes:
        place: int64 (rows,), of each row among the B * L.
        is_real: bool (B, 1, 1, L), false where a key is padding.
    """

    num_heads: int
    place: Tensor
    is_real: Tensor

    @staticmethod
    def arrays(lengths: Int64[np.ndarray, " S"], rows: int) -> tuple[np.ndarray, ...]:
        """What the plan has on the device: `place` and `is_real`."""
        sequences = _with_rest(lengths, rows)
        is_real = np.arange(padded_length(lengths, rows)) < sequences[:, None]
        return np.flatnonzero(is_real), is_real[:, None, None]

    @staticmethod
    def of(lengths: Int64[np.ndarray, " S"], rows: int, num_heads: int, arrays: tuple[Tensor, ...]) -> "PaddedPlan":  # noqa: ARG004
        """The plan, `arrays` being on the device."""
        return PaddedPlan(num_heads, *arrays)

    def self_attention(self, qkv: Tensor, rate: float) -> Tensor:
        """See the module's function."""
        q, k, v = self._padded(qkv, 3)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=self.is_real, dropout_p=rate)
        return context.transpose(1, 2).reshape(self.is_real.numel(), -1).index_select(0, self.place)

    def first_token_attention(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See the module's function."""
        S, N = q_first.shape[0], self.num_heads
        k, v = self._padded(kv, 2)
        q = q_first.view(S, N, 1, -1)
        return F.scaled_dot_product_attention(q, k[:S], v[:S], attn_mask=self.is_real[:S], dropout_p=rate).reshape(S, -1)

    def _padded(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(rows, parts * H) to `parts` tensors (B, N, L, D), zero where nothing is."""
        B, _, _, L = self.is_real.shape
        laid = x.new_zeros(B * L, x.shape[1]).index_copy(0, self.place, x)
        return laid.view(B, L, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


VarlenPlan = FlashPlan | PaddedPlan


def self_attention(qkv: Tensor, plan: VarlenPlan, rate: float) -> Tensor:
    """Every token attends to the tokens of its example.

    Args:
        qkv: (rows, 3 * H), queries, keys and values side by side.
        rate: dropout of the attention weights; 0 outside training.

    Returns:
        (rows, H).
    """
    return plan.self_attention(qkv, rate)


def first_token_attention(q_first: Tensor, kv: Tensor, plan: VarlenPlan, rate: float) -> Tensor:
    """Only the first token of each example attends: all that the last layer needs.

    Args:
        q_first: (S, H), queries of the first tokens.
        kv: (rows, 2 * H), keys and values side by side.

    Returns:
        (S, H).
    """
    return plan.first_token_attention(q_first, kv, rate)


def rows_for(num_tokens: int) -> int:
    """The rows of a batch of T tokens on a GPU: above 2048 more by less than a 32nd, and always more than T."""
    multiple = max(ROW_MULTIPLE, 1 << max(0, num_tokens.bit_length() - 6))
    return (num_tokens // multiple + 1) * multiple


def padded_length(lengths: Int64[np.ndarray, " S"], rows: int) -> int:
    """At least the longest sequence's tokens."""
    return -(-int(_with_rest(lengths, rows).max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def choose_plan(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> tuple[type[FlashPlan] | type[PaddedPlan], str | None]:
    """The plan for a GPU, and a note if it is a slower one than `dtype` could have. Waits for the device."""
    has_flash = hasattr(torch.ops.aten, "_flash_attention_forward") and torch.backends.cuda.is_flash_attention_available()
    why = why_not_flash(dtype, torch.cuda.get_device_capability(device), head_size, has_flash=has_flash)
    if why is None:
        why = flash_failure(device, dtype, num_heads, head_size)
    if why is None:
        return FlashPlan, None
    note = f"FlashAttention is not used, because {why}: attention pads the examples of a batch to the longest."
    return PaddedPlan, note if dtype in FLASH_DTYPES else None


def why_not_flash(dtype: torch.dtype, capability: tuple[int, int], head_size: int, *, has_flash: bool) -> str | None:
    """Why FlashAttention cannot take it; None if it can."""
    multiple, most = FLASH_HEADS
    if dtype not in FLASH_DTYPES:
        return "it takes fp16 and bf16 only"
    if not has_flash:
        return "this PyTorch was built without it"
    if capability < FLASH_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (FLASH_CAPABILITY, capability))
        return f"it needs a GPU of compute capability {needed}, and this one has {found}"
    if head_size % multiple or head_size > most:
        return f"it takes heads whose size is a multiple of {multiple} up to {most}, and these have {head_size}"
    return None


def flash_failure(device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int) -> str | None:
    """What is wrong with FlashAttention on this device, by trying: it has to do what padding does; None if it does."""
    H, S, T = num_heads * head_size, len(_PROBE), int(_PROBE.sum())
    rows = rows_for(T)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    qkv, grad, q_first, grad_first = normal(rows, 3 * H), normal(rows, H), normal(S, H), normal(S, H)

    def tried(kind: type[FlashPlan] | type[PaddedPlan], dtype: torch.dtype) -> Tensor:
        arrays = tuple(torch.from_numpy(array).to(device) for array in kind.arrays(_PROBE, rows))
        plan = kind.of(_PROBE, rows, num_heads, arrays)
        x, first = (tensor.to(dtype).requires_grad_() for tensor in (qkv, q_first))
        out = self_attention(x, plan, 0.0), first_token_attention(first, x[:, H:], plan, 0.0)
        grads = torch.autograd.grad(out, (x, first), (grad.to(dtype), grad_first.to(dtype)))
        return torch.cat([tensor.detach().float().flatten() for tensor in (*out, *grads)])

    try:
        expected, found = tried(PaddedPlan, torch.float32), tried(FlashPlan, dtype)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return f"it fails on this GPU ({str(error).splitlines()[0][:200]})"
    tolerance = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
    difference = float((found - expected).abs().nan_to_num(float("inf")).max())
    return None if difference <= tolerance else f"its results on this GPU are {difference:.2g} off"


def flash_rate(rate: float) -> float:
    """The rate to give to FlashAttention, in 1/256ths: at most 1/512 from `rate`, and exact.

    It keeps a weight where a random byte is at most floor(255 * (1 - rate)), and divides by 1 - rate. At 0.1 it so keeps
    230/256 of the weights, and divides by 0.9: all sums come out 0.17 % too small. At 26/256 both are 230/256.
    """
    kept = min(max(round((1 - rate) * FLASH_LEVELS), 1), FLASH_LEVELS)
    return 1 - kept / FLASH_LEVELS


def _flash(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, rate: float) -> Tensor:
    """(queries, N, D) of q; k, v (keys, N, D). Not causal, without its debug mask; scale 1 / sqrt(D)."""
    rate = flash_rate(rate)
    out: Tensor = torch.ops.aten._flash_attention_forward(q, k, v, cu_q, cu_k, max_q, max_k, rate, False, False)[0]
    return out


def flash(q: Tensor, k: Tensor, v: Tensor, plan: FlashPlan, rate: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Self-attention (rows, N, D), and what `flash_backward` needs besides; outside of autograd."""
    ends, longest = plan.cu_seqlens, plan.max_length
    out, *rest = torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, flash_rate(rate), False, False
    )
    return out, tuple(rest[:3])  # the log of each softmax's sum, and the state of the random numbers


def flash_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, plan: FlashPlan, rate: float, kept: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients (rows, N, D) of q, k and v for that of `out`."""
    ends, longest, (sums, *random) = plan.cu_seqlens, plan.max_length, kept
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, sums, ends, ends, longest, longest, flash_rate(rate), False, *random
    )
    return found


def _with_rest(lengths: Int64[np.ndarray, " S"], rows: int) -> Int64[np.ndarray, " sequences"]:
    """The lengths of all sequences: those of the examples, and of the rows after them, which is at least one."""
    return np.append(lengths, rows - int(lengths.sum()))
