"""Attention of flat batches on a CPU, in groups of examples of like length.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. A group has n examples padded to L tokens; the keys
that pad are masked, and the queries that pad are thrown away. n and L take few values, because oneDNN generates a program
for every shape that it meets.

A group is never copied example by example. One gather of D-wide pieces lays it out head by head, and because every real
token stands there once, its gradient is a gather by the inverse index, not a scatter. The groups are attended one after
another, each from end to end, so that the next product finds in the processor's cache what the last one left.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from isinglass.backends.torch.batch import FORBIDDEN, AttentionPlan, Dropout, softmax_scores
from isinglass.backends.torch.cpu.dropout import MaskDropout, drop
from isinglass.packing import PackedBatch

LIKE_LENGTH: Final = 0.7  # the shortest example of a group has at least this share of the longest one's tokens
GROUP_SIZES: Final = (8, 4, 2, 1)  # n
LENGTH_MULTIPLE: Final = 8  # of L


@dataclass(frozen=True, eq=False)
class Group:
    """Examples `start` to `stop` of a flat batch, padded to L tokens.

    With P projections side by side (3: query, key, value; 2: key, value; 1: context), the D-wide pieces of the group's t
    rows of a (tokens, P * N * D) tensor are laid out as (P, n * N, L, D).

    Attributes:
        rows: rows of its tokens in the batch.
        token_at: int64 (n, L), number of the token at each position, 0 for the group's first. Padding repeats the first
            token of its example.
        key_bias: float32 (n * N, 1, L), 0 for tokens and FORBIDDEN for padding; None if nothing is padded.
    """

    start: int
    stop: int
    rows: slice
    num_heads: int
    token_at: Int64[np.ndarray, "n L"]
    key_bias: Tensor | None
    _indices: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of examples, n."""
        return self.stop - self.start

    def indices(self, parts: int) -> tuple[Tensor, Tensor]:
        """Return int64 (P * n * N * L,), the piece at each position, and int64 (t * P * N,), the position of each piece."""
        if parts not in self._indices:
            part_and_head = np.arange(parts * self.num_heads).reshape(parts, 1, self.num_heads, 1)
            piece_at = (self.token_at[None, :, None, :] * part_and_head.size + part_and_head).ravel()
            position_of = np.empty((self.rows.stop - self.rows.start) * part_and_head.size, np.int64)
            # a token's first position is written last, because padding comes after it
            position_of[piece_at[::-1]] = np.arange(len(piece_at))[::-1]
            self._indices[parts] = torch.from_numpy(piece_at), torch.from_numpy(position_of)
        return self._indices[parts]

    def pad(self, x: Tensor, parts: int) -> Tensor:
        """Return the group's rows of x, (tokens, P * N * D), as (P, n * N, L, D)."""
        D = x.shape[1] // (parts * self.num_heads)
        piece_at, _ = self.indices(parts)
        pieces = x[self.rows].reshape(-1, D).index_select(0, piece_at)
        return pieces.view(parts, self.size * self.num_heads, -1, D)

    def unpad(self, pieces: Tensor, out: Tensor) -> None:
        """Write pieces, (P, n * N, L, D), without padding into the group's rows of out, (tokens, P * N * D)."""
        parts, D = len(pieces), pieces.shape[-1]
        _, position_of = self.indices(parts)
        torch.index_select(pieces.view(-1, D), 0, position_of, out=out[self.rows].view(-1, D))

    def first_tokens(self, x: Tensor) -> Tensor:
        """Return the group's rows of x, (S, H), as (n * N, 1, D)."""
        return x[self.start : self.stop].view(self.size * self.num_heads, 1, -1)


@dataclass(frozen=True, kw_only=True)
class FlatPlan(AttentionPlan):
    """Attention of a flat batch of `num_tokens` tokens. Padding rows after these get zeros."""

    num_tokens: int
    groups: tuple[Group, ...]

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        return _Attention.apply(qkv, None, self, rate)  # type: ignore[no-any-return]

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        return _Attention.apply(kv, q_first, self, rate)  # type: ignore[no-any-return]


def plan_flat(batch: PackedBatch, num_heads: int, dropout: Dropout) -> FlatPlan:
    """Prepare the attention of a flat batch: index arithmetic, once for all layers."""
    bounds = like_length_groups(batch.lengths)
    groups = tuple(_group(batch, start, stop, num_heads) for start, stop in bounds)
    return FlatPlan(num_heads=num_heads, dropout=dropout, num_tokens=batch.num_tokens, groups=groups)


def _group(batch: PackedBatch, start: int, stop: int, num_heads: int) -> Group:
    """Return the group of the examples `start` to `stop`, whose lengths ascend."""
    first, lengths = batch.first_token[start:stop], batch.lengths[start:stop]
    rows = slice(int(first[0]), int(first[-1] + lengths[-1]))
    padded_length = -(-int(lengths[-1]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    positions = np.arange(padded_length)[None, :]
    is_real = positions < lengths[:, None]
    token_at = first[:, None] - rows.start + np.where(is_real, positions, 0)
    key_bias = None
    if not is_real.all():
        bias = np.where(is_real, 0.0, FORBIDDEN).astype(np.float32)
        key_bias = torch.from_numpy(np.repeat(bias, num_heads, axis=0)[:, None, :])
    return Group(start, stop, rows, num_heads, token_at, key_bias)


def like_length_groups(lengths: Int64[np.ndarray, " S"]) -> list[tuple[int, int]]:
    """Cut ascending lengths into ranges (start, stop) of GROUP_SIZES whose shortest has LIKE_LENGTH of the longest.

    Example: lengths 10, 11, 12, 30, 31 give (0, 1), (1, 3), (3, 5).
    """
    bounds: list[tuple[int, int]] = []
    stop = len(lengths)
    while stop > 0:
        least = LIKE_LENGTH * lengths[stop - 1]
        size = next(n for n in GROUP_SIZES if n == 1 or (n <= stop and lengths[stop - n] >= least))
        bounds.append((stop - size, stop))
        stop -= size
    return bounds[::-1]


class _GroupWeights(NamedTuple):
    """What the backward pass of a group needs.

    Attributes:
        pieces: (3, n * N, L, D), query, key and value; or (2, n * N, L, D), key and value, if only first tokens attend.
        weights: (n * N, Lq, L), the softmax before dropout, where Lq is L or 1.
        mask: integers of the weights' shape; None if nothing is dropped.
    """

    pieces: Tensor
    weights: Tensor
    mask: Tensor | None


class _Attention(torch.autograd.Function):
    """Attention of a flat batch, with its gradient written out.

    (tokens, 3 * H) to (tokens, H) for all tokens; or (tokens, 2 * H), keys and values, and queries (S, H) to (S, H) for the
    first tokens.

    The result of each group is written where it belongs. For the backward pass softmax and mask are saved, and their product
    is computed again; nothing is saved where no gradient is needed.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, q_first: Tensor | None, plan: FlatPlan, rate: float) -> Tensor:
        parts = 3 if q_first is None else 2
        if q_first is None:
            out = packed.new_empty(len(packed), packed.shape[1] // 3)
            out[plan.num_tokens :].zero_()
        else:
            out = torch.empty_like(q_first)
        saved: list[Tensor | None] = []
        for group in plan.groups:
            pieces = group.pad(packed, parts)
            *queries, k, v = pieces
            q = queries[0] if q_first is None else group.first_tokens(q_first)
            weights = softmax_scores(q, k, group.key_bias)
            mask, ctx.factor = None, 1.0
            if rate > 0 and isinstance(plan.dropout, MaskDropout):
                mask, ctx.factor = plan.dropout.draw(tuple(weights.shape), rate, weights.dtype)
            dropped = weights if mask is None else drop(weights, mask)
            context = torch.baddbmm(v.new_empty(()), dropped, v, beta=0, alpha=ctx.factor)
            if q_first is None:
                group.unpad(context[None], out)
            else:
                group.first_tokens(out).copy_(context)
            if any(ctx.needs_input_grad):
                saved += _GroupWeights(pieces, weights, mask)
        ctx.plan, ctx.shape = plan, packed.shape
        ctx.save_for_backward(q_first, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        plan: FlatPlan = ctx.plan
        q_first, *tensors = ctx.saved_tensors
        grad = grad.contiguous()
        grad_packed = grad.new_empty(ctx.shape)
        grad_packed[plan.num_tokens :].zero_()
        grad_first = None if q_first is None else torch.empty_like(q_first)
        for number, group in enumerate(plan.groups):
            saved = _GroupWeights(*tensors[3 * number : 3 * number + 3])
            grad_pieces = torch.empty_like(saved.pieces)
            if grad_first is None:
                queries, grad_queries = saved.pieces[0], grad_pieces[0]
                (grad_context,) = group.pad(grad, 1)
                if group.key_bias is not None:
                    grad_context.mul_((group.key_bias == 0).transpose(1, 2))  # queries that pad have no gradient
            else:
                queries, grad_queries, grad_context = map(group.first_tokens, (q_first, grad_first, grad))
            _backward(grad_context, queries, saved, ctx.factor, grad_queries, grad_pieces[-2:])
            group.unpad(grad_pieces, grad_packed)
        return grad_packed, grad_first, None, None


def _backward(grad_context: Tensor, q: Tensor, saved: _GroupWeights, factor: float, grad_q: Tensor, grad_kv: Tensor) -> None:
    """Write the gradients of q, (B, Lq, D), and of k and v, (2, B, L, D), for that of the context, (B, Lq, D)."""
    (k, v), (grad_k, grad_v) = saved.pieces[-2:], grad_kv
    scale = 1 / math.sqrt(q.shape[-1])
    dropped, grad_weights = saved.weights, torch.bmm(grad_context, v.transpose(1, 2))
    if saved.mask is not None:
        dropped, grad_weights = drop(saved.weights, saved.mask), drop(grad_weights, saved.mask)
    grad_v.baddbmm_(dropped.transpose(1, 2), grad_context, beta=0, alpha=factor)
    grad_scores = torch._softmax_backward_data(grad_weights, saved.weights, -1, saved.weights.dtype)
    grad_q.baddbmm_(grad_scores, k, beta=0, alpha=scale * factor)
    grad_k.baddbmm_(grad_scores.transpose(1, 2), q, beta=0, alpha=scale * factor)
