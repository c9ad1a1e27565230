"""Self-attention over flat batches on a GPU, by fused kernels: the weights are never written to memory, and dropped within.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. The tensors have more rows than T, so that their
number takes few values (`rows_for`): the rows after the last example are one more sequence, which only attends to itself.

- TritonPlan: our own kernels (`triton.attention`). They take sequences end to end: nothing is padded. fp16 and bf16,
  compute capability 8.0 or newer, D up to 128.
- FlashPlan: the same by `aten::_flash_attention_forward`, which `torch.nn.attention.varlen.varlen_attn` calls too, but with
  its dropout fixed at 0. Where Triton is missing or fails, and D up to 256. It drops in 1/256ths.
- PaddedPlan: every sequence padded to the longest, keys masked, `scaled_dot_product_attention`. Everything else.

`aten::_efficient_attention_forward` takes sequences end to end in fp32 too, but not with dropout: given `cu_seqlens` it
places its random numbers as if no sequence had keys, so that all heads and examples share one mask, and its backward pass
does not (PyTorch's attention.cu: `max_seqlen_k = 0` forward, the true one backward). It is not used.

The last two draw from the device's default generator, the first by the step's key (`KernelDropout`). No function here but
`choose_plan` reads a number off the device; that one believes in a kind only after it has done on the device what padding
does.
"""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from isinglass.backends.torch.cpu.dropout import KernelDropout

if TYPE_CHECKING:
    from isinglass.backends.torch.gpu.triton.attention import Ends, WeightDropout

ROW_MULTIPLE: Final = 64  # at least, of the rows: few shapes, for each of which a step is recorded (`graphs`)
LENGTH_MULTIPLE: Final = 64  # of a padded length and of the longest that kernels are told of, likewise
CAPABILITY: Final = (8, 0)  # at least, for sequences end to end
HALVES: Final = (torch.float16, torch.bfloat16)
FLASH_HEADS: Final = (8, 256)  # D is a multiple of the first, and at most the second
FLASH_LEVELS: Final = 256  # it compares one random byte for each weight
_PROBE: Final = np.array([3, 17, 150])  # lengths: one that takes several tiles too


@dataclass(frozen=True)
class _EndToEndPlan:
    """How one batch is attended without padding, shared by all layers.

    Attributes:
        max_length: at least that of every sequence, known on the host.
        cu_seqlens: int32 (S + 2,), where each begins, and the number of rows.
        cu_first: int32 (S + 2,), the same for the last layer, where each example has one query.
    """

    num_heads: int
    max_length: int
    cu_seqlens: Tensor
    cu_first: Tensor

    @classmethod
    def arrays(cls, lengths: Int64[np.ndarray, " S"], rows: int) -> tuple[np.ndarray, ...]:
        """What the plan has on the device: `cu_seqlens` and `cu_first`."""
        sequences = _with_rest(lengths, rows)
        return np.cumsum([0, *sequences], dtype=np.int32), cls._first(len(lengths))

    @staticmethod
    def _first(examples: int) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    @classmethod
    def of(cls, lengths: Int64[np.ndarray, " S"], rows: int, num_heads: int, arrays: tuple[Tensor, ...]) -> Self:
        """The plan, `arrays` being on the device."""
        return cls(num_heads, padded_length(lengths, rows), *arrays)


class TritonPlan(_EndToEndPlan):
    """By `triton.attention`."""

    @staticmethod
    def _first(examples: int) -> np.ndarray[Any, Any]:
        return np.minimum(np.arange(examples + 2), examples).astype(np.int32)  # the rest asks nothing

    def ends(self, *, first_tokens: bool = False) -> "Ends":
        """Where queries and keys begin and end: of all tokens, or with the first alone asking."""
        from isinglass.backends.torch.gpu.triton.attention import Ends

        if first_tokens:
            return Ends(self.cu_first, self.cu_seqlens, 1, self.max_length)
        return Ends(self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length)

    def self_attention(self, qkv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        return _Attention.apply(qkv, None, self, weight_dropout(rate, dropout))  # type: ignore[no-any-return]

    def first_token_attention(self, q_first: Tensor, kv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        return _Attention.apply(kv, q_first, self, weight_dropout(rate, dropout))  # type: ignore[no-any-return]


def weight_dropout(rate: float, dropout: KernelDropout | None) -> "WeightDropout | None":
    """The next of the step's dropouts of attention weights; None where nothing is dropped."""
    from isinglass.backends.torch.gpu.triton.attention import WeightDropout

    return None if dropout is None or rate == 0 else WeightDropout(rate, dropout.key, dropout.places(1)[0])


class _Attention(torch.autograd.Function):
    """Every token asks, and `projections` is (rows, 3 * H); or (rows, 2 * H), key and value, and `queries` (S, H)."""

    @staticmethod
    def forward(
        ctx: Any, projections: Tensor, queries: Tensor | None, plan: TritonPlan, dropout: "WeightDropout | None"
    ) -> Tensor:
        from isinglass.backends.torch.gpu.triton.attention import attend

        ends, qkv = plan.ends(first_tokens=queries is not None), three(projections, queries)
        out, log_sums = attend(*qkv, plan.num_heads, ends, dropout)
        ctx.ends, ctx.dropout = ends, dropout
        ctx.save_for_backward(projections, queries, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        from isinglass.backends.torch.gpu.triton.attention import attend_backward

        projections, queries, out, log_sums = ctx.saved_tensors
        of_projections, of_queries = torch.empty_like(projections), None if queries is None else torch.empty_like(queries)
        attend_backward(
            grad.contiguous(), *three(projections, queries), out, log_sums, ctx.ends, ctx.dropout,
            three(of_projections, of_queries),
        )  # fmt: skip
        return of_projections, of_queries, None, None


def three(projections: Tensor, queries: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, views of (rows, 3 * H), or of (rows, 2 * H) where the queries are given."""
    q, k, v = projections.chunk(3, 1) if queries is None else (queries, *projections.chunk(2, 1))
    return q, k, v


class FlashPlan(_EndToEndPlan):
    """By PyTorch's FlashAttention."""

    @staticmethod
    def _first(examples: int) -> np.ndarray[Any, Any]:
        return np.arange(examples + 2, dtype=np.int32)  # the rest asks too: what attends to no query gets no gradient

    def self_attention(self, qkv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        rows, N, rate = qkv.shape[0], self.num_heads, 0.0 if dropout is None else rate
        q, k, v = qkv.view(rows, 3, N, -1).unbind(1)  # (rows, N, D) each, not copied
        return _flash(q, k, v, self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length, rate).reshape(rows, -1)

    def first_token_attention(self, q_first: Tensor, kv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        S, N, rate = q_first.shape[0], self.num_heads, 0.0 if dropout is None else rate
        k, v = kv.view(kv.shape[0], 2, N, -1).unbind(1)
        q = F.pad(q_first, (0, 0, 0, 1)).view(S + 1, N, -1)
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

    def self_attention(self, qkv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        q, k, v = self._padded(qkv, 3)
        rate = 0.0 if dropout is None else rate
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=self.is_real, dropout_p=rate)
        return context.transpose(1, 2).reshape(self.is_real.numel(), -1).index_select(0, self.place)

    def first_token_attention(self, q_first: Tensor, kv: Tensor, rate: float, dropout: KernelDropout | None) -> Tensor:
        """See the module's function."""
        S, N, rate = q_first.shape[0], self.num_heads, 0.0 if dropout is None else rate
        k, v = self._padded(kv, 2)
        q = q_first.view(S, N, 1, -1)
        return F.scaled_dot_product_attention(q, k[:S], v[:S], attn_mask=self.is_real[:S], dropout_p=rate).reshape(S, -1)

    def _padded(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(rows, parts * H) to `parts` tensors (B, N, L, D), zero where nothing is."""
        B, _, _, L = self.is_real.shape
        laid = x.new_zeros(B * L, x.shape[1]).index_copy(0, self.place, x)
        return laid.view(B, L, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


VarlenPlan = TritonPlan | FlashPlan | PaddedPlan


def self_attention(qkv: Tensor, plan: VarlenPlan, rate: float, dropout: KernelDropout | None) -> Tensor:
    """Every token attends to the tokens of its example.

    Args:
        qkv: (rows, 3 * H), queries, keys and values side by side.
        rate: dropout of the attention weights.
        dropout: the step's; None outside training.

    Returns:
        (rows, H).
    """
    return plan.self_attention(qkv, rate, dropout)


def first_token_attention(
    q_first: Tensor, kv: Tensor, plan: VarlenPlan, rate: float, dropout: KernelDropout | None
) -> Tensor:
    """Only the first token of each example attends: all that the last layer needs.

    Args:
        q_first: (S, H), queries of the first tokens.
        kv: (rows, 2 * H), keys and values side by side.

    Returns:
        (S, H).
    """
    return plan.first_token_attention(q_first, kv, rate, dropout)


def rows_for(num_tokens: int) -> int:
    """The rows of a batch of T tokens on a GPU: above 2048 more by less than a 32nd, and always more than T."""
    multiple = max(ROW_MULTIPLE, 1 << max(0, num_tokens.bit_length() - 6))
    return (num_tokens // multiple + 1) * multiple


def padded_length(lengths: Int64[np.ndarray, " S"], rows: int) -> int:
    """At least the longest sequence's tokens."""
    return -(-int(_with_rest(lengths, rows).max()) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def choose_plan(
    device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int, *, compiled: bool
) -> tuple[type[VarlenPlan], str | None]:
    """The plan for a GPU, and a note if it is a slower one than `dtype` could have. Waits for the device.

    Args:
        compiled: whether it is to be a part of what `torch.compile` compiles.
    """
    capability = torch.cuda.get_device_capability(device)

    def fails(kind: type[TritonPlan] | type[FlashPlan]) -> str | None:
        return failure(kind, device, dtype, num_heads, head_size)

    not_ours = why_not_triton(dtype, capability, head_size, compiled=compiled) or fails(TritonPlan)
    if not_ours is None:
        return TritonPlan, None
    not_flash = why_not_flash(dtype, capability, head_size) or fails(FlashPlan)
    if not_flash is None:
        how = f"{FLASH_LEVELS}ths"
        return FlashPlan, f"Attention runs by FlashAttention, because {not_ours}: it drops weights in {how}."
    if dtype not in HALVES:
        return PaddedPlan, None
    return PaddedPlan, f"Attention pads the examples of a batch to the longest, because {not_ours}, and {not_flash}."


def why_not_end_to_end(dtype: torch.dtype, capability: tuple[int, int]) -> str | None:
    """Why no kernel here can take sequences end to end; None if one may."""
    if dtype not in HALVES:
        return "sequences end to end are for fp16 and bf16 only"
    if capability < CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (CAPABILITY, capability))
        return f"a GPU of compute capability {needed} is needed, and this one has {found}"
    return None


def why_not_triton(dtype: torch.dtype, capability: tuple[int, int], head_size: int, *, compiled: bool = False) -> str | None:
    """Why our kernels cannot take it; None if they can."""
    if compiled:
        return "our own kernels are no part of a compiled model"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    from isinglass.backends.torch.gpu.triton.attention import MAX_HEAD

    if head_size > MAX_HEAD:
        return f"our kernels take heads of size {MAX_HEAD} at most, and these have {head_size}"
    return why_not_end_to_end(dtype, capability)


def why_not_flash(dtype: torch.dtype, capability: tuple[int, int], head_size: int) -> str | None:
    """Why FlashAttention cannot take it; None if it can."""
    if not hasattr(torch.ops.aten, "_flash_attention_forward") or not torch.backends.cuda.is_flash_attention_available():
        return "this PyTorch was built without FlashAttention"
    multiple, most = FLASH_HEADS
    if head_size % multiple or head_size > most:
        return f"FlashAttention takes heads whose size is a multiple of {multiple} up to {most}, and these have {head_size}"
    return why_not_end_to_end(dtype, capability)


def failure(
    kind: type[TritonPlan] | type[FlashPlan], device: torch.device, dtype: torch.dtype, num_heads: int, head_size: int
) -> str | None:
    """What is wrong with a kind on this device, by trying: it has to do what padding does; None if it does."""
    H, S, T = num_heads * head_size, len(_PROBE), int(_PROBE.sum())
    rows = rows_for(T)
    generator = torch.Generator(device).manual_seed(0)
    name = "our own kernel" if kind is TritonPlan else "FlashAttention"

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    qkv, grad, q_first, grad_first = normal(rows, 3 * H), normal(rows, H), normal(S, H), normal(S, H)

    def tried(kind: type[VarlenPlan], dtype: torch.dtype) -> Tensor:
        arrays = tuple(torch.from_numpy(array).to(device) for array in kind.arrays(_PROBE, rows))
        plan = kind.of(_PROBE, rows, num_heads, arrays)
        x, first = (tensor.to(dtype).requires_grad_() for tensor in (qkv, q_first))
        out = self_attention(x, plan, 0.0, None), first_token_attention(first, x[:, H:], plan, 0.0, None)
        grads = torch.autograd.grad(out, (x, first), (grad.to(dtype), grad_first.to(dtype)))
        return torch.cat([tensor.detach().float().flatten() for tensor in (*out, *grads)])

    try:
        expected, found = tried(PaddedPlan, torch.float32), tried(kind, dtype)
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"{name} fails on this GPU ({str(error).splitlines()[0][:200]})"
    tolerance = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
    difference = float((found - expected).abs().nan_to_num(float("inf")).max())
    return None if difference <= tolerance else f"what {name} finds on this GPU is {difference:.2g} off"


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


def _with_rest(lengths: Int64[np.ndarray, " S"], rows: int) -> Int64[np.ndarray, " sequences"]:
    """The lengths of all sequences: those of the examples, and of the rows after them, which is at least one."""
    return np.append(lengths, rows - int(lengths.sum()))
