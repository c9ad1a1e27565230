"""Attention of sequences that lie end to end, in Triton, in fp16 or bf16 on a GPU.

Nothing is padded, and the attention weights are never written to memory. PyTorch has FlashAttention (Dao 2023), which is
made for long sequences: its tiles are 128 tokens long, where the examples of GLUE have 10 to 60, its gradient takes four
kernels, and it drops in 1/256ths. Here tiles are 64 tokens long, each direction is one kernel, and weights are dropped by 31
bits, as in `kernels`.

Shapes: S sequences, N heads of D. Sequence s has the queries from cu_q[s] on and the keys from cu_k[s] on; both end where
those of the next sequence begin (`SequenceBounds`).

A program works on one tile of one head. It does nothing if its sequence has fewer tiles. In the backward pass the first
programs work on a tile of keys each, and on the gradient of the queries too if that tile is the only one; the others work on
a tile of queries. The last sequences begin first, because the longest ones of a batch are its last.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-incomplete-defs

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.torch.gpu.attention import GpuPlan, KernelDropout, PlacedDropout
from isinglass.backends.torch.gpu.triton.kernels import PLACES, ROUNDS

TILE: Final = 64  # tokens
SMALL_TILE: Final = 16  # queries where each sequence has one: the least that a product of tiles takes
_FORBIDDEN: Final = tl.constexpr(-1.0e30)


@triton.jit
def _locate(tensor, first, end, head, stride, D, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the addresses of the rows from `first` on of one head, and true for rows below `end` and columns within it."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    start = tensor + first.to(tl.int64) * stride + head * D
    return start + (row[:, None] * stride + column[None, :]), (first + row < end)[:, None] & (column < D)[None, :]


@triton.jit
def _load_tile(tensor, first, end, head, stride, D, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the rows from `first` on of one head, (ROWS, WIDTH), with zeros from row `end` on."""
    at, real = _locate(tensor, first, end, head, stride, D, ROWS, WIDTH)
    return tl.load(at, real, 0.0)


@triton.jit
def _store_tile(tensor, values, first, end, head, stride, D, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Write values (ROWS, WIDTH) into the rows from `first` on of one head, up to row `end`."""
    at, real = _locate(tensor, first, end, head, stride, D, ROWS, WIDTH)
    tl.store(at, values.to(tensor.dtype.element_ty), real)


@triton.jit
def _draw_kept(key, place, row, head, N, column, width, least, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return (ROWS, COLUMNS) true where 31 random bits reach `least`, for queries from `row` and keys from `column` on."""
    line = ((row + tl.arange(0, ROWS)) * N + head) * (width // 4) + column // 4
    quarter = line[:, None] + tl.arange(0, COLUMNS // 4)[None, :]
    a, b, c, d = tl.randint4x(tl.load(key) + place * PLACES, quarter, n_rounds=ROUNDS)
    bits = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (ROWS, COLUMNS))
    return (bits.to(tl.uint32, bitcast=True) >> 1).to(tl.int32) >= least


@triton.jit
def _own_sequence(cu_q, cu_k):
    """Return the number of this program's sequence, and where its queries begin and end, and its keys."""
    own = tl.num_programs(2) - 1 - tl.program_id(2)
    return own, tl.load(cu_q + own), tl.load(cu_q + own + 1), tl.load(cu_k + own), tl.load(cu_k + own + 1)


@triton.jit(do_not_specialize=["place"])
def _attend(
    q, k, v, out, log_sums, stride_q, stride_k, stride_out, cu_q, cu_k, key, place, least, factor, scale, N, D, width,
    DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    first = tl.program_id(1) * TILE_Q
    _, start_q, end_q, start_k, end_k = _own_sequence(cu_q, cu_k)
    if start_q + first < end_q:
        queries = _load_tile(q, start_q + first, end_q, head, stride_q, D, TILE_Q, WIDTH)
        largest = tl.full((TILE_Q,), _FORBIDDEN, tl.float32)
        total = tl.zeros((TILE_Q,), tl.float32)
        context = tl.zeros((TILE_Q, WIDTH), tl.float32)
        for column in range(0, end_k - start_k, TILE_K):
            keys = _load_tile(k, start_k + column, end_k, head, stride_k, D, TILE_K, WIDTH)
            values = _load_tile(v, start_k + column, end_k, head, stride_k, D, TILE_K, WIDTH)
            exists = column + tl.arange(0, TILE_K) < end_k - start_k
            scores = tl.where(exists[None, :], tl.dot(queries, tl.trans(keys)) * scale, _FORBIDDEN)
            larger = tl.maximum(largest, tl.max(scores, 1))
            weights = tl.exp(scores - larger[:, None])
            shrunk = tl.exp(largest - larger)
            total = total * shrunk + tl.sum(weights, 1)
            if DROPS:
                kept = _draw_kept(key, place, start_q + first, head, N, column, width, least, TILE_Q, TILE_K)
                weights = tl.where(kept, weights, 0.0)
            context = context * shrunk[:, None] + tl.dot(weights.to(values.dtype), values)
            largest = larger
        context = context * (factor / total)[:, None]
        _store_tile(out, context, start_q + first, end_q, head, stride_out, D, TILE_Q, WIDTH)
        row = start_q + first + tl.arange(0, TILE_Q)
        tl.store(log_sums + row * N + head, largest + tl.log(total), row < end_q)


@triton.jit
def _load_queries(
    q, grad, out, log_sums, first, end, head, N, stride_q, stride_out, D, TILE_Q: tl.constexpr, WIDTH: tl.constexpr
):
    """Return a tile of queries, the gradient of their contexts and these, (TILE_Q, WIDTH), and the logs of their sums."""
    row = first + tl.arange(0, TILE_Q)
    return (
        _load_tile(q, first, end, head, stride_q, D, TILE_Q, WIDTH),
        _load_tile(grad, first, end, head, stride_out, D, TILE_Q, WIDTH),
        _load_tile(out, first, end, head, stride_out, D, TILE_Q, WIDTH),
        tl.load(log_sums + row * N + head, row < end, 0.0),
    )


@triton.jit
def _differentiate_scores(
    queries, keys, values, grad_context, context, log_sum, end_q, length_k, key, place, row, head, N, column, width, least,
    factor, scale, DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """Return the weights after dropout and the gradient of the scores before scaling, half (TILE_Q, TILE_K)."""
    exists = (row + tl.arange(0, TILE_Q) < end_q)[:, None] & (column + tl.arange(0, TILE_K) < length_k)[None, :]
    weights = tl.where(exists, tl.exp(tl.dot(queries, tl.trans(keys)) * scale - log_sum[:, None]), 0.0)
    grad_weights = tl.dot(grad_context, tl.trans(values))
    dropped = weights
    if DROPS:
        kept = _draw_kept(key, place, row, head, N, column, width, least, TILE_Q, TILE_K)
        dropped = tl.where(kept, weights * factor, 0.0)
        grad_weights = tl.where(kept, grad_weights * factor, 0.0)
    inner = tl.sum(grad_context.to(tl.float32) * context.to(tl.float32), 1)
    grad_scores = weights * (grad_weights - inner[:, None]) * scale
    return dropped.to(queries.dtype), grad_scores.to(queries.dtype)


@triton.jit(do_not_specialize=["place"])
def _attend_backward(
    grad, q, k, v, out, log_sums, grad_q, grad_k, grad_v, partial,
    stride_q, stride_k, stride_out, stride_grad_q, stride_grad_k, cu_q, cu_k, key, place, least, factor, scale, N, D, width,
    DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    tile = tl.program_id(1)
    sequence, start_q, end_q, start_k, end_k = _own_sequence(cu_q, cu_k)
    length_q = end_q - start_q
    length_k = end_k - start_k
    sum_q = tl.zeros((WIDTH,), tl.float32)
    sum_k = tl.zeros((WIDTH,), tl.float32)
    sum_v = tl.zeros((WIDTH,), tl.float32)

    column = tile * TILE_K
    first_q = (tile - width // TILE_K) * TILE_Q
    if column < length_k:  # the gradients of a tile of keys and values, by all queries
        keys = _load_tile(k, start_k + column, end_k, head, stride_k, D, TILE_K, WIDTH)
        values = _load_tile(v, start_k + column, end_k, head, stride_k, D, TILE_K, WIDTH)
        grad_keys = tl.zeros((TILE_K, WIDTH), tl.float32)
        grad_values = tl.zeros((TILE_K, WIDTH), tl.float32)
        for first in range(0, length_q, TILE_Q):
            row = start_q + first
            queries, grad_context, context, log_sum = _load_queries(
                q, grad, out, log_sums, row, end_q, head, N, stride_q, stride_out, D, TILE_Q, WIDTH
            )
            dropped, grad_scores = _differentiate_scores(
                queries, keys, values, grad_context, context, log_sum, end_q, length_k, key, place, row, head, N,
                column, width, least, factor, scale, DROPS, TILE_Q, TILE_K,
            )  # fmt: skip
            grad_values += tl.dot(tl.trans(dropped), grad_context)
            grad_keys += tl.dot(tl.trans(grad_scores), queries)
            if length_k <= TILE_K:  # there are no other keys: the gradient of the queries is complete
                grad_queries = tl.dot(grad_scores, keys)
                _store_tile(grad_q, grad_queries, row, end_q, head, stride_grad_q, D, TILE_Q, WIDTH)
                sum_q += tl.sum(grad_queries, 0)
        _store_tile(grad_k, grad_keys, start_k + column, end_k, head, stride_grad_k, D, TILE_K, WIDTH)
        _store_tile(grad_v, grad_values, start_k + column, end_k, head, stride_grad_k, D, TILE_K, WIDTH)
        sum_k = tl.sum(grad_keys, 0)
        sum_v = tl.sum(grad_values, 0)

    if (length_k > TILE_K) & (first_q >= 0) & (first_q < length_q):  # the gradient of a tile of queries, by all keys
        row = start_q + first_q
        queries, grad_context, context, log_sum = _load_queries(
            q, grad, out, log_sums, row, end_q, head, N, stride_q, stride_out, D, TILE_Q, WIDTH
        )
        grad_queries = tl.zeros((TILE_Q, WIDTH), tl.float32)
        for other in range(0, length_k, TILE_K):
            keys = _load_tile(k, start_k + other, end_k, head, stride_k, D, TILE_K, WIDTH)
            values = _load_tile(v, start_k + other, end_k, head, stride_k, D, TILE_K, WIDTH)
            dropped, grad_scores = _differentiate_scores(
                queries, keys, values, grad_context, context, log_sum, end_q, length_k, key, place, row, head, N,
                other, width, least, factor, scale, DROPS, TILE_Q, TILE_K,
            )  # fmt: skip
            grad_queries += tl.dot(grad_scores, keys)
        _store_tile(grad_q, grad_queries, row, end_q, head, stride_grad_q, D, TILE_Q, WIDTH)
        sum_q = tl.sum(grad_queries, 0)

    dim = tl.arange(0, WIDTH)
    line = partial + (sequence * tl.num_programs(1) + tile) * 3 * N * D + head * D + dim
    tl.store(line, sum_q, dim < D)
    tl.store(line + N * D, sum_k, dim < D)
    tl.store(line + 2 * N * D, sum_v, dim < D)


class Projections(NamedTuple):
    """Queries (queries, H), keys and values (keys, H), each possibly some columns of a wider tensor; or their gradients."""

    q: Tensor
    k: Tensor
    v: Tensor

    @staticmethod
    def split(packed: Tensor, q_first: Tensor | None = None) -> "Projections":
        """Return views of (rows, 3 * H); or q_first (S, H), and views of (rows, 2 * H)."""
        if q_first is None:
            return Projections(*packed.chunk(3, 1))
        return Projections(q_first, *packed.chunk(2, 1))


@dataclass(frozen=True)
class SequenceBounds:
    """Where S sequences begin and end.

    Attributes:
        cu_q: int32 (S + 1,), the first query of each sequence, and the number of queries.
        cu_k: int32 (S + 1,), the same for keys and values.
        max_q: at least the queries of the longest sequence, known on the host.
        max_k: at least its keys.
    """

    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int

    @property
    def tile_q(self) -> int:
        """Queries of a tile."""
        return SMALL_TILE if self.max_q <= SMALL_TILE else TILE

    @property
    def tiles_q(self) -> int:
        """Number of tiles of queries in the longest sequence."""
        return int(triton.cdiv(self.max_q, self.tile_q))

    @property
    def tiles_k(self) -> int:
        """Number of tiles of keys in the longest sequence."""
        return int(triton.cdiv(self.max_k, TILE))

    def arguments(self, num_heads: int, D: int, dropout: PlacedDropout) -> dict[str, Any]:
        """Return what both kernels take after tensors and strides, and what they are compiled for."""
        return dropout.arguments() | {
            "cu_q": self.cu_q, "cu_k": self.cu_k, "scale": 1 / math.sqrt(D), "N": num_heads, "D": D,
            "width": self.tiles_k * TILE, "TILE_Q": self.tile_q, "TILE_K": TILE,
            "WIDTH": max(16, triton.next_power_of_2(D)), "num_warps": 4,
            "num_stages": 1,  # most sequences have one tile: to load the next one ahead would only cost registers
        }  # fmt: skip


def attend(
    projections: Projections, num_heads: int, bounds: SequenceBounds, dropout: PlacedDropout
) -> tuple[Tensor, Tensor]:
    """Return softmax(q k^T / sqrt(D)) v of each sequence, with dropout of the weights, half (queries, N * D).

    The second result is for the backward pass: fp32 (queries, N), the log of the sum of each softmax.

    Args:
        projections: half; k and v have one stride, and columns lie side by side.
    """
    q, k, v = projections
    out, log_sums = q.new_empty(q.shape), q.new_empty(len(q), num_heads, dtype=torch.float32)
    _attend[(num_heads, bounds.tiles_q, len(bounds.cu_q) - 1)](
        q, k, v, out, log_sums, q.stride(0), k.stride(0), out.stride(0),
        **bounds.arguments(num_heads, q.shape[1] // num_heads, dropout),
    )  # fmt: skip
    return out, log_sums


def attend_backward(
    grad: Tensor, projections: Projections, out: Tensor, log_sums: Tensor, bounds: SequenceBounds, dropout: PlacedDropout,
    grads: Projections,
) -> Tensor:  # fmt: skip
    """Write the gradients of the projections into `grads`, for that of `attend`'s first result.

    Args:
        grad: half (queries, N * D), contiguous.
        out, log_sums: what `attend` returned.
        grads: half, of the projections' shapes; those of k and v have one stride.

    Returns:
        fp32 (P, 3 * N * D), partial sums of the gradients of q, k and v over the rows, side by side.
    """
    (q, k, v), num_heads, sequences = projections, log_sums.shape[1], len(bounds.cu_q) - 1
    tiles = 1 if bounds.tiles_k == 1 else bounds.tiles_k + bounds.tiles_q
    partial = log_sums.new_empty(sequences * tiles, 3 * q.shape[1])
    _attend_backward[(num_heads, tiles, sequences)](
        grad, q, k, v, out, log_sums, *grads, partial, q.stride(0), k.stride(0), out.stride(0), grads.q.stride(0),
        grads.k.stride(0), **bounds.arguments(num_heads, q.shape[1] // num_heads, dropout),
    )  # fmt: skip
    return partial


@dataclass(frozen=True, kw_only=True)
class TritonPlan(GpuPlan):
    """Attention by the kernels of this module.

    Attributes:
        cu_seqlens: int32 (S + 2,), where each sequence begins, and the number of rows.
        cu_first: int32 (S + 2,), the same for the last layer, where each example has one query, and the padding rows none.
    """

    cu_seqlens: Tensor
    cu_first: Tensor

    @staticmethod
    def arrays(lengths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """See GpuPlan."""
        examples = len(lengths) - 1
        cu_first = np.minimum(np.arange(examples + 2), examples).astype(np.int32)
        return {"cu_seqlens": np.cumsum([0, *lengths], dtype=np.int32), "cu_first": cu_first}

    def bounds(self) -> SequenceBounds:
        """Return the bounds of the sequences where every token has a query."""
        return SequenceBounds(self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length)

    def weight_dropout(self, rate: float) -> PlacedDropout:
        """Return the next dropout of attention weights. It takes no place, and no key, if nothing is dropped."""
        if rate == 0 or not isinstance(self.dropout, KernelDropout):
            return PlacedDropout(0.0, self.cu_seqlens, 0)
        return self.dropout.at_next_place(rate)

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        return self._attend(qkv, None, self.bounds(), rate)

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        return self._attend(kv, q_first, SequenceBounds(self.cu_first, self.cu_seqlens, 1, self.max_length), rate)

    def _attend(self, packed: Tensor, q_first: Tensor | None, bounds: SequenceBounds, rate: float) -> Tensor:
        dropout = self.weight_dropout(rate)
        return _Attention.apply(packed, q_first, self.num_heads, bounds, dropout)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    """(rows, 3 * H) to (rows, H); or (rows, 2 * H), keys and values, and queries (S, H) to (S, H)."""

    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, q_first: Tensor | None, num_heads: int, bounds: SequenceBounds, dropout: PlacedDropout
    ) -> Tensor:
        out, log_sums = attend(Projections.split(packed, q_first), num_heads, bounds, dropout)
        ctx.bounds, ctx.dropout = bounds, dropout
        ctx.save_for_backward(packed, q_first, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        packed, q_first, out, log_sums = ctx.saved_tensors
        grad_packed = torch.empty_like(packed)
        grad_first = None if q_first is None else torch.empty_like(q_first)
        projections, grads = Projections.split(packed, q_first), Projections.split(grad_packed, grad_first)
        attend_backward(grad.contiguous(), projections, out, log_sums, ctx.bounds, ctx.dropout, grads)
        return grad_packed, grad_first, None, None, None
