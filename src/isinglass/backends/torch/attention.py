"""Self-attention over packed batches.

Shapes: T tokens of S examples, H hidden size = N heads x D head size. `flat` is the fast path: examples of like length
form groups of n examples padded to L tokens; the keys that pad are masked, the queries that pad are thrown away. n and L
take few values, because oneDNN generates a program for every shape that it meets. `rows` is the plain path: every row
attends within itself, masked by example. On a GPU flat batches go to `varlen`.

A group is never copied example by example: one gather of D-wide pieces lays all groups of a layer out head by head,
and because every real token stands there once, its gradient is a gather by the inverse index, not a scatter.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from isinglass.backends.torch import varlen
from isinglass.backends.torch.dropout import Dropout, DropoutMasks, KernelDropout, drop, masked
from isinglass.backends.torch.varlen import FlashPlan, PaddedPlan
from isinglass.packing import PackedBatch

LIKE_LENGTH: Final = 0.7  # a group's shortest example has at least this share of its longest's tokens
GROUP_SIZES: Final = (8, 4, 2, 1)  # n
LENGTH_MULTIPLE: Final = 8  # of L
ROW_MULTIPLE: Final = 32  # at least, of the rows of a flat batch's matrices
FORBIDDEN: Final = -1e30  # added to a score: its weight is exactly 0, in float32 and bfloat16


@dataclass(frozen=True)
class Group:
    """Examples `start` to `stop` of a flat batch, padded to `length` tokens.

    Attributes:
        key_bias: float32 (n * N, 1, L), 0 for tokens and a huge negative number for padding; None where nothing pads.
    """

    start: int
    stop: int
    length: int
    key_bias: Tensor | None

    @property
    def size(self) -> int:
        """Examples in it, n."""
        return self.stop - self.start


@dataclass(frozen=True)
class FlatPlan:
    """How one flat batch is attended, shared by all layers.

    With P padded tokens in all groups together (P >= T), and `parts` projections side by side (3: query, key, value;
    2: key, value; 1: context), the D-wide pieces of a (rows, parts * N * D) tensor are laid out group by group, each group
    as (parts, n, N, L, D). The tensor may have more rows than T (`filled_rows`): those have no place.

    Attributes:
        pad: parts -> int64 (parts * N * P,): the piece at each place; padding repeats its example's first token.
        unpad: parts -> int64 (rows * parts * N,): the place of each piece, the inverse of `pad`; 0 for those without.
        num_tokens: T.
        is_real: float32 (N * P, 1), 0 where a query of the context's layout (parts = 1) is padding.
    """

    num_heads: int
    num_tokens: int
    groups: tuple[Group, ...]
    pad: dict[int, Tensor]
    unpad: dict[int, Tensor]
    is_real: Tensor


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


Plan = FlatPlan | RowsPlan | FlashPlan | PaddedPlan


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
    tokens_of: list[Int64[np.ndarray, "n L"]] = []  # the token at each place of each group
    reals: list[Bool[np.ndarray, "n L"]] = []
    for start, stop in like_length_groups(batch.lengths):
        length = -(-int(batch.lengths[stop - 1]) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        places = np.arange(length)[None, :]
        real = places < batch.lengths[start:stop, None]
        tokens_of.append(batch.first_token[start:stop, None] + np.where(real, places, 0))
        reals.append(real)
        key_bias = None
        if not real.all():
            bias = np.repeat(np.where(real, 0.0, FORBIDDEN).astype(np.float32), N, axis=0)[:, None, :]
            key_bias = torch.from_numpy(bias)
        groups.append(Group(start, stop, length, key_bias))
    pad, unpad = {}, {}
    for parts in (1, 2, 3):
        part_and_head = np.arange(parts * N).reshape(parts, 1, N, 1)
        index = np.concatenate([(t[None, :, None, :] * (parts * N) + part_and_head).ravel() for t in tokens_of])
        inverse = np.zeros(filled_rows(batch.num_tokens) * parts * N, np.int64)
        inverse[index[::-1]] = np.arange(len(index))[::-1]  # of a token's places the first stays: padding comes after it
        pad[parts] = torch.from_numpy(index)
        unpad[parts] = torch.from_numpy(inverse)
    is_real = np.concatenate([np.repeat(real[:, None, :], N, axis=1).ravel() for real in reals])
    of_queries = torch.from_numpy(is_real[:, None].astype(np.float32))
    return FlatPlan(N, batch.num_tokens, tuple(groups), pad, unpad, of_queries)


class _Pad(torch.autograd.Function):
    """Rows of `x` by `pad`, the groups' layout; the gradient by `unpad`, zero after the first `real` rows.

    Exact when rows that repeat another in the forward pass (padding) receive no gradient, which masked keys do not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: Tensor, unpad: Tensor, real: int) -> Tensor:
        ctx.save_for_backward(unpad)
        ctx.real = real
        return x.index_select(0, pad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (unpad,) = ctx.saved_tensors
        out = grad.index_select(0, unpad)
        out[ctx.real :].zero_()
        return out, None, None, None


class _FlatSelfAttention(torch.autograd.Function):
    """`self_attention` of a flat batch, with its gradient written out: the groups' results go where they belong at once.

    Of the weights the softmax and the mask are kept, their product is made again.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: FlatPlan, rate: float, masks: DropoutMasks | None) -> Tensor:
        (rows, width), N = qkv.shape, plan.num_heads
        D = width // (3 * N)
        pieces = qkv.reshape(-1, D).index_select(0, plan.pad[3])
        contexts = pieces.new_empty(len(pieces) // 3, D)
        kept: list[tuple[Tensor, Tensor | None]] = []
        factor = 1.0
        for group, qkv_of, context in _by_group(plan, pieces, contexts):
            q, k, v = qkv_of
            weights = _softmax(q, k, group.key_bias)
            mask = None
            if masks is not None and rate > 0:
                mask, factor = masks.draw(tuple(weights.shape), rate, weights.dtype)
            context.baddbmm_(weights if mask is None else drop(weights, mask), v, beta=0, alpha=factor)
            kept.append((weights, mask))
        ctx.plan, ctx.factor = plan, factor
        ctx.has_masks = factor != 1.0
        ctx.save_for_backward(pieces, *(tensor for pair in kept for tensor in pair if tensor is not None))
        return contexts.index_select(0, plan.unpad[1]).view(rows, N * D)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        plan: FlatPlan = ctx.plan
        pieces, *kept = ctx.saved_tensors
        grads = torch.empty_like(pieces)
        D = pieces.shape[1]
        of_contexts = grad.reshape(-1, D).index_select(0, plan.pad[1]).mul_(plan.is_real)
        scale = 1 / math.sqrt(D)
        remaining = iter(kept)
        for (_, (q, k, v), of_context), (_, (dq, dk, dv), _) in zip(
            _by_group(plan, pieces, of_contexts), _by_group(plan, grads, of_contexts), strict=True
        ):
            weights = next(remaining)
            dropped, of_weights = weights, torch.bmm(of_context, v.transpose(1, 2))
            if ctx.has_masks:
                mask = next(remaining)
                dropped, of_weights = drop(weights, mask), drop(of_weights, mask)
            dv.baddbmm_(dropped.transpose(1, 2), of_context, beta=0, alpha=ctx.factor)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            dq.baddbmm_(of_scores, k, beta=0, alpha=scale * ctx.factor)
            dk.baddbmm_(of_scores.transpose(1, 2), q, beta=0, alpha=scale * ctx.factor)
        out = grads.index_select(0, plan.unpad[3])
        out[plan.num_tokens * 3 * plan.num_heads :].zero_()
        return out.view(len(grad), -1), None, None, None


def _by_group(plan: FlatPlan, pieces: Tensor, contexts: Tensor) -> Iterator[tuple[Group, Tensor, Tensor]]:
    """Each group with its part of `pieces` (3NP, D) as (3, n * N, L, D), and of `contexts` (NP, D) as (n * N, L, D)."""
    D = pieces.shape[1]
    for group, qkv, context in zip(plan.groups, _split(pieces, plan, 3), _split(contexts, plan, 1), strict=True):
        shape = (group.size * plan.num_heads, group.length, D)
        yield group, qkv.view(3, *shape), context.view(shape)


def _softmax(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias); in float32 inside, whose kernel is faster than bfloat16's."""
    scale = 1 / math.sqrt(q.shape[-1])
    if bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)) * scale
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
    if isinstance(plan, FlashPlan | PaddedPlan):
        return varlen.self_attention(qkv, plan, 0.0 if masks is None else rate)
    tokens, H = qkv.shape[0], qkv.shape[1] // 3
    N = plan.num_heads
    if isinstance(plan, RowsPlan):
        R, _, L, _ = plan.bias.shape
        q, k, v = qkv.view(R, L, 3, N, H // N).permute(2, 0, 3, 1, 4).reshape(3, R * N, L, H // N)
        context = _attend(q, k, v, _for_heads(plan.bias, N), rate, masks)
        return context.view(R, N, L, H // N).transpose(1, 2).reshape(tokens, H)
    assert not isinstance(masks, KernelDropout)
    return _FlatSelfAttention.apply(qkv, plan, rate, masks)  # type: ignore[no-any-return]


def first_token_attention(q_first: Tensor, kv: Tensor, plan: Plan, rate: float, masks: Dropout | None) -> Tensor:
    """Only the first token of each example attends: all that the last layer needs.

    Args:
        q_first: (S, H), queries of the first tokens.
        kv: (tokens, 2 * H), keys and values side by side.

    Returns:
        (S, H).
    """
    if isinstance(plan, FlashPlan | PaddedPlan):
        return varlen.first_token_attention(q_first, kv, plan, 0.0 if masks is None else rate)
    (S, H), N = q_first.shape, plan.num_heads
    if isinstance(plan, RowsPlan):
        k, v = kv.view(-1, 2, N, H // N).permute(1, 2, 0, 3)  # (N, R * L, D) each
        q = q_first.view(S, N, H // N).transpose(0, 1)
        context = _attend(q, k, v, plan.first_bias.expand(N, -1, -1), rate, masks)
        return context.transpose(0, 1).reshape(S, H)
    pieces = _Pad.apply(kv.reshape(-1, H // N), plan.pad[2], plan.unpad[2], plan.num_tokens * 2 * N)
    contexts = []
    for group, piece in zip(plan.groups, _split(pieces, plan, 2), strict=True):
        k, v = piece.view(2, group.size * N, group.length, H // N).unbind(0)
        q = q_first[group.start : group.stop].reshape(group.size * N, 1, H // N)
        contexts.append(_attend(q, k, v, group.key_bias, rate, masks).view(group.size, H))
    return torch.cat(contexts)


def _for_heads(bias: Tensor, N: int) -> Tensor:
    """(B, 1, Lq, Lk) to (B * N, Lq, Lk)."""
    B, _, Lq, Lk = bias.shape
    return bias.expand(B, N, Lq, Lk).reshape(B * N, Lq, Lk)


def _split(pieces: Tensor, plan: FlatPlan, parts: int) -> tuple[Tensor, ...]:
    sizes = [parts * plan.num_heads * group.size * group.length for group in plan.groups]
    return torch.split(pieces, sizes)
