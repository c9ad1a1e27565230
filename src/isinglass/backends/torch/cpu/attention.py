"""Self-attention over packed batches.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. `flat` is the fast path: examples of like length
form groups of n examples padded to L tokens; the keys that pad are masked, the queries that pad are thrown away. n and L
take few values, because oneDNN generates a program for every shape that it meets. `rows` is the plain path: every row
attends within itself, masked by example. On a GPU flat batches go to `gpu.attention`.

A group is never copied example by example: one gather of D-wide pieces lays it out head by head, and because every real
token stands there once, its gradient is a gather by the inverse index, not a scatter. The groups are attended one after
another, each from end to end, so that the next product finds in the processor's cache what the last one left.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from isinglass.backends.torch.cpu.dropout import Dropout, DropoutMasks, KernelDropout, drop, masked
from isinglass.backends.torch.gpu import attention as varlen
from isinglass.backends.torch.gpu.attention import VarlenPlan
from isinglass.packing import PackedBatch

LIKE_LENGTH: Final = 0.7  # a group's shortest example has at least this share of its longest's tokens
GROUP_SIZES: Final = (8, 4, 2, 1)  # n
LENGTH_MULTIPLE: Final = 8  # of L
ROW_MULTIPLE: Final = 32  # at least, of the rows of a flat batch's matrices
FORBIDDEN: Final = -1e30  # added to a score: its weight is exactly 0, in float32 and bfloat16


@dataclass(frozen=True, eq=False)
class Group:
    """Examples `start` to `stop` of a flat batch, padded to L tokens.

    With `parts` projections side by side (3: query, key, value; 2: key, value; 1: context), the D-wide pieces of the
    group's t rows of a (tokens, parts * N * D) tensor are laid out as (parts, n * N, L, D).

    Attributes:
        rows: where its tokens are among the batch's.
        token: int64 (n, L), the token at each place, 0 for the group's first; padding repeats its example's first.
        key_bias: float32 (n * N, 1, L), 0 for tokens and a huge negative number for padding; None where nothing pads.
    """

    start: int
    stop: int
    rows: slice
    num_heads: int
    token: Int64[np.ndarray, "n L"]
    key_bias: Tensor | None
    _indices: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Examples in it, n."""
        return self.stop - self.start

    def indices(self, parts: int) -> tuple[Tensor, Tensor]:
        """int64 (parts * n * N * L,), the piece at each place; int64 (t * parts * N,), the place of each piece."""
        if parts not in self._indices:
            part_and_head = np.arange(parts * self.num_heads).reshape(parts, 1, self.num_heads, 1)
            piece_at = (self.token[None, :, None, :] * part_and_head.size + part_and_head).ravel()
            place_of = np.empty((self.rows.stop - self.rows.start) * part_and_head.size, np.int64)
            place_of[piece_at[::-1]] = np.arange(len(piece_at))[::-1]  # a token's first place stays: padding comes after it
            self._indices[parts] = torch.from_numpy(piece_at), torch.from_numpy(place_of)
        return self._indices[parts]

    def padded(self, x: Tensor, parts: int) -> Tensor:
        """The group's rows of `x`, (tokens, parts * N * D), as (parts, n * N, L, D)."""
        N = self.num_heads
        D = x.shape[1] // (parts * N)
        pieces = x[self.rows].reshape(-1, D).index_select(0, self.indices(parts)[0])
        return pieces.view(parts, self.size * N, -1, D)

    def unpad(self, pieces: Tensor, out: Tensor) -> None:
        """Write `pieces`, (parts, n * N, L, D), without padding to the group's rows of `out`, (tokens, parts * N * D)."""
        parts, D = len(pieces), pieces.shape[-1]
        torch.index_select(pieces.view(-1, D), 0, self.indices(parts)[1], out=out[self.rows].view(-1, D))


@dataclass(frozen=True)
class FlatPlan:
    """How one flat batch is attended, shared by all layers. Rows after its T tokens (`filled_rows`) have no part in it."""

    num_tokens: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class RowsPlan:
    """How one batch of rows is attended.

    Attributes:
        bias: float32 (R, 1, L, L), 0 where query and key belong to the same example, else a huge negative number.
        first_bias: float32 (1, S, R * L), the same for the first token of each example and all keys.
    """

    num_heads: int
    bias: Tensor
    first_bias: Tensor


Plan = FlatPlan | RowsPlan | VarlenPlan


def plan_rows(sequence: Tensor, num_examples: int, num_heads: int) -> RowsPlan:
    """Prepare the attention of a batch of rows, whose `sequence_ids` lie on the device."""
    same = sequence[:, :, None] == sequence[:, None, :]  # gaps attend to gaps: no query is without keys
    own = torch.arange(num_examples, device=sequence.device)[:, None] == sequence.reshape(1, -1)
    bias, first_bias = (torch.where(where, 0.0, FORBIDDEN) for where in (same[:, None], own[None]))
    return RowsPlan(num_heads, bias, first_bias)


def like_length_groups(lengths: Int64[np.ndarray, " S"]) -> list[tuple[int, int]]:
    """Cut ascending `lengths` into runs (start, stop) of GROUP_SIZES whose shortest has LIKE_LENGTH of the longest.

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


def filled_rows(num_tokens: int) -> int:
    """The rows of a flat batch's matrices: T, rounded up, above 1024 by less than a 32nd, so that they take few sizes."""
    multiple = max(ROW_MULTIPLE, 1 << max(0, num_tokens.bit_length() - 6))
    return -(-num_tokens // multiple) * multiple


def plan_flat(batch: PackedBatch, N: int) -> FlatPlan:
    """Prepare a flat batch's attention on a CPU: index arithmetic, once for all layers."""
    groups: list[Group] = []
    first = batch.first_token
    for start, stop in like_length_groups(batch.lengths):
        rows = slice(int(first[start]), int(first[stop - 1] + batch.lengths[stop - 1]))
        places = np.arange(-(-int(batch.lengths[stop - 1]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)[None, :]
        real = places < batch.lengths[start:stop, None]
        token = first[start:stop, None] - rows.start + np.where(real, places, 0)
        key_bias = None
        if not real.all():
            bias = np.repeat(np.where(real, 0.0, FORBIDDEN).astype(np.float32), N, axis=0)[:, None, :]
            key_bias = torch.from_numpy(bias)
        groups.append(Group(start, stop, rows, N, token, key_bias))
    return FlatPlan(batch.num_tokens, tuple(groups))


class _FlatAttention(torch.autograd.Function):
    """Attention of a flat batch, with its gradient written out: the groups' results go where they belong at once.

    Every token asks, and `projections` is (tokens, 3 * H), query, key and value; or only the first tokens do: then it is
    (tokens, 2 * H), key and value, and `queries` (S, H). The result has the rows of those that ask.

    Of the weights the softmax and the mask are kept, their product is made again; and nothing where no gradient is wanted.
    """

    @staticmethod
    def forward(
        ctx: Any, projections: Tensor, queries: Tensor | None, plan: FlatPlan, rate: float, masks: DropoutMasks | None
    ) -> Tensor:
        if queries is None:
            out = projections.new_empty(len(projections), projections.shape[1] // 3)
            out[plan.num_tokens :].zero_()
        else:
            out = torch.empty_like(queries)
        kept: list[Tensor | None] = []
        factor = 1.0
        for group in plan.groups:
            pieces = group.padded(projections, 3 if queries is None else 2)
            q, k, v = pieces if queries is None else (_first(queries, group), *pieces)
            weights = _softmax(q, k, group.key_bias)
            mask = None
            if masks is not None and rate > 0:
                mask, factor = masks.draw(tuple(weights.shape), rate, weights.dtype)
            context = torch.baddbmm(
                v.new_empty(()), weights if mask is None else drop(weights, mask), v, beta=0, alpha=factor
            )
            if queries is None:
                group.unpad(context[None], out)
            else:
                _first(out, group).copy_(context)
            if any(ctx.needs_input_grad):
                kept += pieces, weights, mask
        ctx.plan, ctx.factor, ctx.shape = plan, factor, projections.shape
        ctx.save_for_backward(queries, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        plan: FlatPlan = ctx.plan
        queries, *kept = ctx.saved_tensors
        grad = grad.contiguous()
        of_queries = None if queries is None else torch.empty_like(queries)
        out = grad.new_empty(ctx.shape)
        out[plan.num_tokens :].zero_()
        for group, pieces, weights, mask in zip(plan.groups, kept[::3], kept[1::3], kept[2::3], strict=True):
            grads = torch.empty_like(pieces)
            if of_queries is None:
                (q, k, v), (dq, dk, dv) = pieces, grads
                (of_context,) = group.padded(grad, 1)
                if group.key_bias is not None:
                    of_context.mul_((group.key_bias == 0).transpose(1, 2))
            else:
                q, (k, v), dq, (dk, dv) = _first(queries, group), pieces, _first(of_queries, group), grads
                of_context = _first(grad, group)
            scale = 1 / math.sqrt(q.shape[-1])
            of_weights = torch.bmm(of_context, v.transpose(1, 2))
            dropped = weights
            if mask is not None:
                dropped, of_weights = drop(weights, mask), drop(of_weights, mask)
            dv.baddbmm_(dropped.transpose(1, 2), of_context, beta=0, alpha=ctx.factor)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            dq.baddbmm_(of_scores, k, beta=0, alpha=scale * ctx.factor)
            dk.baddbmm_(of_scores.transpose(1, 2), q, beta=0, alpha=scale * ctx.factor)
            group.unpad(grads, out)
        return out, of_queries, None, None, None


def _first(x: Tensor, group: Group) -> Tensor:
    """The group's rows of `x`, (S, H), as (n * N, 1, D)."""
    return x[group.start : group.stop].view(group.size * group.num_heads, 1, -1)


def _softmax(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias); in float32 inside, whose kernel is faster than bfloat16's."""
    scale = 1 / math.sqrt(q.shape[-1])
    if bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(bias.to(q.dtype), q, k.transpose(1, 2), alpha=scale)
    return torch.softmax(scores.float(), -1).to(q.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float, masks: Dropout | None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v, with dropout of the weights.

    Shapes: q (B, Lq, D); k, v (B, Lk, D); bias broadcasts to (B, Lq, Lk); the result is (B, Lq, D).
    """
    weights, factor = masked(_softmax(q, k, bias), rate, masks)
    if factor == 1.0:
        return torch.bmm(weights, v)
    return torch.baddbmm(v.new_empty(()), weights, v, beta=0, alpha=factor)


def self_attention(qkv: Tensor, plan: Plan, rate: float, masks: Dropout | None) -> Tensor:
    """Every token attends to the tokens of its example.

    Args:
        qkv: (tokens, 3 * H), queries, keys and values side by side; tokens is `filled_rows(T)`, or R * L for rows.
        rate: dropout of the attention weights.
        masks: None outside training.

    Returns:
        (tokens, H).
    """
    if isinstance(plan, VarlenPlan):
        assert not isinstance(masks, DropoutMasks)
        return varlen.self_attention(qkv, plan, rate, masks)
    if isinstance(plan, RowsPlan):
        tokens, H, N = qkv.shape[0], qkv.shape[1] // 3, plan.num_heads
        R, _, L, _ = plan.bias.shape
        q, k, v = qkv.view(R, L, 3, N, H // N).permute(2, 0, 3, 1, 4).reshape(3, R * N, L, H // N)
        context = _attend(q, k, v, _for_heads(plan.bias, N), rate, masks)
        return context.view(R, N, L, H // N).transpose(1, 2).reshape(tokens, H)
    assert not isinstance(masks, KernelDropout)
    return _FlatAttention.apply(qkv, None, plan, rate, masks)  # type: ignore[no-any-return]


def first_token_attention(q_first: Tensor, kv: Tensor, plan: Plan, rate: float, masks: Dropout | None) -> Tensor:
    """Only the first token of each example attends: all that the last layer needs.

    Args:
        q_first: (S, H), queries of the first tokens.
        kv: (tokens, 2 * H), keys and values side by side.

    Returns:
        (S, H).
    """
    if isinstance(plan, VarlenPlan):
        assert not isinstance(masks, DropoutMasks)
        return varlen.first_token_attention(q_first, kv, plan, rate, masks)
    if isinstance(plan, RowsPlan):
        (S, H), N = q_first.shape, plan.num_heads
        k, v = kv.view(-1, 2, N, H // N).permute(1, 2, 0, 3)  # (N, R * L, D) each
        q = q_first.view(S, N, H // N).transpose(0, 1)
        context = _attend(q, k, v, plan.first_bias.expand(N, -1, -1), rate, masks)
        return context.transpose(0, 1).reshape(S, H)
    assert not isinstance(masks, KernelDropout)
    return _FlatAttention.apply(kv, q_first, plan, rate, masks)  # type: ignore[no-any-return]


def _for_heads(bias: Tensor, N: int) -> Tensor:
    """(B, 1, Lq, Lk) to (B * N, Lq, Lk)."""
    B, _, Lq, Lk = bias.shape
    return bias.expand(B, N, Lq, Lk).reshape(B * N, Lq, Lk)
