"""Attention of sequences that lie end to end, in Triton, in fp16 or bf16 on a GPU: nothing is padded, and the weights are
never written to memory.

FlashAttention (Dao 2023), of which PyTorch has one, is made for long sequences: its tiles are 128 tokens long, where the
examples of GLUE have 10 to 60, its gradient takes four kernels, and it drops in 1/256ths. Here tiles are 64 long, each
direction is one kernel, and weights are dropped by 31 bits, as everywhere on a GPU (`triton.kernels`).

Shapes: S sequences; queries (rows, N * D) and keys and values (rows, N * D), N heads of D side by side, each possibly some
columns of a wider tensor. Sequence s has the queries from cu_q[s] on and the keys from cu_k[s] on; both end where the next
begin. A program does one tile of one head: its sequence may have fewer tiles, and then it does nothing. Backward the first
programs do a tile of keys each, and the gradient of the queries too if it is the only one, the others a tile of queries.
The last sequences begin first: a batch's longest are its last.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-incomplete-defs

import math
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from isinglass.backends.torch.gpu.triton.kernels import PLACES, ROUNDS, threshold

TILE: Final = 64  # tokens
FEW: Final = 16  # queries of a tile where each sequence has one: as few as a product of tiles takes
MAX_HEAD: Final = 128  # D; a tile of it lies in one program's registers
_FORBIDDEN: Final = tl.constexpr(-1.0e30)


@dataclass(frozen=True)
class Ends:
    """Where sequences begin and end.

    Attributes:
        cu_q, cu_k: int32 (S + 1,).
        max_q, max_k: at least the longest, known on the host.
    """

    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int

    @property
    def width(self) -> int:
        """Keys of all tiles of the longest."""
        return self.longest[1] * self.tiles[1]

    @property
    def tiles(self) -> tuple[int, int]:
        """Tokens of a tile of queries, and of keys."""
        return FEW if self.max_q <= FEW else TILE, TILE

    @property
    def longest(self) -> tuple[int, int]:
        """Tiles of the longest queries and keys."""
        tile_q, tile_k = self.tiles
        return triton.cdiv(self.max_q, tile_q), triton.cdiv(self.max_k, tile_k)


@dataclass(frozen=True)
class WeightDropout:
    """Dropout of attention weights: at `rate`, by the step's key, int64 (1,), at the `place`th of the step's places."""

    rate: float
    key: Tensor
    place: int


@triton.jit
def _at(tensor, first, head, stride, D, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Where the rows from `first` on of one head lie, (ROWS, WIDTH)."""
    within = tl.arange(0, ROWS)[:, None] * stride + tl.arange(0, WIDTH)[None, :]
    return tensor + first.to(tl.int64) * stride + head * D + within


@triton.jit
def _real(first, end, D, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Which of them lie below the row `end`, and within the head."""
    return (first + tl.arange(0, ROWS) < end)[:, None] & (tl.arange(0, WIDTH) < D)[None, :]


@triton.jit
def _kept(key, place, row, head, N, column, width, least, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(ROWS, COLUMNS) true where 31 random bits reach `least`, for queries from `row` on and their keys from `column` on."""
    line = ((row + tl.arange(0, ROWS)) * N + head) * (width // 4) + column // 4
    quarter = line[:, None] + tl.arange(0, COLUMNS // 4)[None, :]
    a, b, c, d = tl.randint4x(tl.load(key) + place * PLACES, quarter, n_rounds=ROUNDS)
    bits = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (ROWS, COLUMNS))
    return (bits.to(tl.uint32, bitcast=True) >> 1).to(tl.int32) >= least


@triton.jit(do_not_specialize=["place"])
def _attend(
    q, k, v, out, log_sums, cu_q, cu_k, key, place, least, factor, scale, N, D, stride_q, stride_k, stride_out, width,
    DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    first = tl.program_id(1) * TILE_Q
    sequence = tl.num_programs(2) - 1 - tl.program_id(2)
    start_q = tl.load(cu_q + sequence)
    end_q = tl.load(cu_q + sequence + 1)
    start_k = tl.load(cu_k + sequence)
    end_k = tl.load(cu_k + sequence + 1)
    if start_q + first < end_q:
        at_q = _at(q, start_q + first, head, stride_q, D, TILE_Q, WIDTH)
        real_q = _real(start_q + first, end_q, D, TILE_Q, WIDTH)
        queries = tl.load(at_q, real_q, 0.0)
        largest = tl.full((TILE_Q,), _FORBIDDEN, tl.float32)
        total = tl.zeros((TILE_Q,), tl.float32)
        context = tl.zeros((TILE_Q, WIDTH), tl.float32)
        for column in range(0, end_k - start_k, TILE_K):
            at_k = _at(k, start_k + column, head, stride_k, D, TILE_K, WIDTH)
            real_k = _real(start_k + column, end_k, D, TILE_K, WIDTH)
            at_v = _at(v, start_k + column, head, stride_k, D, TILE_K, WIDTH)
            keys = tl.load(at_k, real_k, 0.0)
            values = tl.load(at_v, real_k, 0.0)
            exists = column + tl.arange(0, TILE_K) < end_k - start_k
            scores = tl.where(exists[None, :], tl.dot(queries, tl.trans(keys)) * scale, _FORBIDDEN)
            larger = tl.maximum(largest, tl.max(scores, 1))
            weights = tl.exp(scores - larger[:, None])
            shrunk = tl.exp(largest - larger)
            total = total * shrunk + tl.sum(weights, 1)
            if DROPS:
                kept = _kept(key, place, start_q + first, head, N, column, width, least, TILE_Q, TILE_K)
                weights = tl.where(kept, weights, 0.0)
            context = context * shrunk[:, None] + tl.dot(weights.to(values.dtype), values)
            largest = larger
        at = _at(out, start_q + first, head, stride_out, D, TILE_Q, WIDTH)
        real = _real(start_q + first, end_q, D, TILE_Q, WIDTH)
        tl.store(at, (context * (factor / total)[:, None]).to(out.dtype.element_ty), real)
        row = start_q + first + tl.arange(0, TILE_Q)
        tl.store(log_sums + row * N + head, largest + tl.log(total), row < end_q)


@triton.jit
def _asking(q, grad, out, log_sums, first, end, head, N, stride_q, stride_out, D, TILE_Q: tl.constexpr, WIDTH: tl.constexpr):
    """Of a tile of queries: them, the gradient of their contexts and these, (TILE_Q, WIDTH), and their softmaxes' sums."""
    real = _real(first, end, D, TILE_Q, WIDTH)
    row = first + tl.arange(0, TILE_Q)
    return (
        tl.load(_at(q, first, head, stride_q, D, TILE_Q, WIDTH), real, 0.0),
        tl.load(_at(grad, first, head, stride_out, D, TILE_Q, WIDTH), real, 0.0),
        tl.load(_at(out, first, head, stride_out, D, TILE_Q, WIDTH), real, 0.0),
        tl.load(log_sums + row * N + head, row < end, 0.0),
    )


@triton.jit
def _of_scores(
    queries, keys, values, of_context, context, log_sum, exists, key, place, row, head, N, column, width, least, factor,
    scale, DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """The weights after dropout and the gradient of the scores before scaling, (TILE_Q, TILE_K), in half."""
    weights = tl.where(exists, tl.exp(tl.dot(queries, tl.trans(keys)) * scale - log_sum[:, None]), 0.0)
    of_weights = tl.dot(of_context, tl.trans(values))
    dropped = weights
    if DROPS:
        kept = _kept(key, place, row, head, N, column, width, least, TILE_Q, TILE_K)
        dropped = tl.where(kept, weights * factor, 0.0)
        of_weights = tl.where(kept, of_weights * factor, 0.0)
    inner = tl.sum(of_context.to(tl.float32) * context.to(tl.float32), 1)
    of_scores = weights * (of_weights - inner[:, None]) * scale
    return dropped.to(queries.dtype), of_scores.to(queries.dtype)


@triton.jit(do_not_specialize=["place"])
def _attend_backward(
    grad, q, k, v, out, log_sums, of_q, of_k, of_v, partial, cu_q, cu_k, key, place, least, factor, scale, N, D, stride_q,
    stride_k, stride_out, stride_of_q, stride_of_k, width,
    DROPS: tl.constexpr, TILE_Q: tl.constexpr, TILE_K: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    tile = tl.program_id(1)
    sequence = tl.num_programs(2) - 1 - tl.program_id(2)
    start_q = tl.load(cu_q + sequence)
    end_q = tl.load(cu_q + sequence + 1)
    start_k = tl.load(cu_k + sequence)
    end_k = tl.load(cu_k + sequence + 1)
    length_q = end_q - start_q
    length_k = end_k - start_k
    in_tile = tl.arange(0, TILE_K)
    in_tile_q = tl.arange(0, TILE_Q)
    sum_q = tl.zeros((WIDTH,), tl.float32)
    sum_k = tl.zeros((WIDTH,), tl.float32)
    sum_v = tl.zeros((WIDTH,), tl.float32)

    column = tile * TILE_K
    first_q = (tile - width // TILE_K) * TILE_Q
    if column < length_k:  # the gradients of a tile of keys and values, by all queries
        at_k = _at(k, start_k + column, head, stride_k, D, TILE_K, WIDTH)
        real_k = _real(start_k + column, end_k, D, TILE_K, WIDTH)
        at_v = _at(v, start_k + column, head, stride_k, D, TILE_K, WIDTH)
        keys = tl.load(at_k, real_k, 0.0)
        values = tl.load(at_v, real_k, 0.0)
        of_keys = tl.zeros((TILE_K, WIDTH), tl.float32)
        of_values = tl.zeros((TILE_K, WIDTH), tl.float32)
        for first in range(0, length_q, TILE_Q):
            row = start_q + first
            queries, of_context, context, log_sum = _asking(
                q, grad, out, log_sums, row, end_q, head, N, stride_q, stride_out, D, TILE_Q, WIDTH
            )
            exists = (row + in_tile_q < end_q)[:, None] & (column + in_tile < length_k)[None, :]
            dropped, of_scores = _of_scores(
                queries, keys, values, of_context, context, log_sum, exists, key, place, row, head, N, column,
                width, least, factor, scale, DROPS, TILE_Q, TILE_K,
            )  # fmt: skip
            of_values += tl.dot(tl.trans(dropped), of_context)
            of_keys += tl.dot(tl.trans(of_scores), queries)
            if length_k <= TILE_K:  # these are all keys: the gradient of the queries is complete
                of_queries = tl.dot(of_scores, keys)
                at = _at(of_q, row, head, stride_of_q, D, TILE_Q, WIDTH)
                tl.store(at, of_queries.to(of_q.dtype.element_ty), _real(row, end_q, D, TILE_Q, WIDTH))
                sum_q += tl.sum(of_queries, 0)
        at_k = _at(of_k, start_k + column, head, stride_of_k, D, TILE_K, WIDTH)
        at_v = _at(of_v, start_k + column, head, stride_of_k, D, TILE_K, WIDTH)
        tl.store(at_k, of_keys.to(of_k.dtype.element_ty), real_k)
        tl.store(at_v, of_values.to(of_v.dtype.element_ty), real_k)
        sum_k = tl.sum(of_keys, 0)
        sum_v = tl.sum(of_values, 0)

    if (length_k > TILE_K) & (first_q >= 0) & (first_q < length_q):  # the gradient of a tile of queries, by all keys
        row = start_q + first_q
        queries, of_context, context, log_sum = _asking(
            q, grad, out, log_sums, row, end_q, head, N, stride_q, stride_out, D, TILE_Q, WIDTH
        )
        of_queries = tl.zeros((TILE_Q, WIDTH), tl.float32)
        for other in range(0, length_k, TILE_K):
            at_k = _at(k, start_k + other, head, stride_k, D, TILE_K, WIDTH)
            real_k = _real(start_k + other, end_k, D, TILE_K, WIDTH)
            at_v = _at(v, start_k + other, head, stride_k, D, TILE_K, WIDTH)
            keys = tl.load(at_k, real_k, 0.0)
            values = tl.load(at_v, real_k, 0.0)
            exists = (row + in_tile_q < end_q)[:, None] & (other + in_tile < length_k)[None, :]
            dropped, of_scores = _of_scores(
                queries, keys, values, of_context, context, log_sum, exists, key, place, row, head, N, other,
                width, least, factor, scale, DROPS, TILE_Q, TILE_K,
            )  # fmt: skip
            of_queries += tl.dot(of_scores, keys)
        at = _at(of_q, row, head, stride_of_q, D, TILE_Q, WIDTH)
        tl.store(at, of_queries.to(of_q.dtype.element_ty), _real(row, end_q, D, TILE_Q, WIDTH))
        sum_q = tl.sum(of_queries, 0)

    dim = tl.arange(0, WIDTH)
    line = partial + (sequence * tl.num_programs(1) + tile) * 3 * N * D + head * D + dim
    tl.store(line, sum_q, dim < D)
    tl.store(line + N * D, sum_k, dim < D)
    tl.store(line + 2 * N * D, sum_v, dim < D)


def attend(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, ends: Ends, dropout: WeightDropout | None
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D)) v of each sequence, the weights dropped.

    Args:
        q: half (queries, N * D). k, v: half (keys, N * D), of one stride. Columns lie side by side.
        dropout: None for none.

    Returns:
        half (queries, N * D), and fp32 (queries, N), the log of each softmax's sum, for the backward pass.
    """
    out, log_sums = q.new_empty(q.shape), q.new_empty(len(q), num_heads, dtype=torch.float32)
    D = q.shape[1] // num_heads
    _attend[(num_heads, ends.longest[0], len(ends.cu_q) - 1)](
        q, k, v, out, log_sums, ends.cu_q, ends.cu_k, *_dropping(dropout, log_sums), 1 / math.sqrt(D), num_heads, D,
        q.stride(0), k.stride(0), out.stride(0), ends.width, **_constants(dropout, ends, D),
    )  # fmt: skip
    return out, log_sums


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sums: Tensor, ends: Ends, dropout: WeightDropout | None,
    into: tuple[Tensor, Tensor, Tensor],
) -> Tensor:  # fmt: skip
    """The gradients of q, k and v for that of `out`.

    Args:
        grad, out: half (queries, N * D), contiguous. q, k, v, log_sums: as in `attend`.
        into: receives the gradients, in their shapes; the last two have one stride.

    Returns:
        fp32 (P, 3 * N * D), sums of the gradients over some rows each, those of q, k and v side by side.
    """
    of_q, of_k, of_v = into
    num_heads = log_sums.shape[1]
    D, (tiles_q, tiles_k), sequences = q.shape[1] // num_heads, ends.longest, len(ends.cu_q) - 1
    tiles = tiles_k if tiles_k == 1 else tiles_k + tiles_q
    partial = log_sums.new_empty(sequences * tiles, 3 * q.shape[1])
    _attend_backward[(num_heads, tiles, sequences)](
        grad, q, k, v, out, log_sums, of_q, of_k, of_v, partial, ends.cu_q, ends.cu_k, *_dropping(dropout, log_sums),
        1 / math.sqrt(D), num_heads, D, q.stride(0), k.stride(0), out.stride(0), of_q.stride(0), of_k.stride(0), ends.width,
        **_constants(dropout, ends, D),
    )  # fmt: skip
    return partial


def _dropping(dropout: WeightDropout | None, unused: Tensor) -> tuple[Tensor, int, int, float]:
    """Key, place, threshold and factor."""
    return (unused, 0, 0, 1.0) if dropout is None else (dropout.key, dropout.place, *threshold(dropout.rate))


def _constants(dropout: WeightDropout | None, ends: Ends, D: int) -> dict[str, int]:
    tile_q, tile_k = ends.tiles
    width = max(16, triton.next_power_of_2(D))
    loads = {"num_warps": 4, "num_stages": 1}  # most sequences have one tile: loads ahead for a next one only cost registers
    return {"DROPS": dropout is not None, "TILE_Q": tile_q, "TILE_K": tile_k, "WIDTH": width} | loads
