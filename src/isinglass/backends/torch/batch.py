"""A packed batch on the device: its tensors, how its tokens attend, and what is dropped.

Shapes: T tokens of S examples, H hidden size = N heads x D head size; R rows of L tokens in the rows layout.

- `cpu/attention.py`, `gpu/attention.py`: flat batches, fast.
- `RowsPlan`: the plain way, on every device and in compiled models. Every row attends within itself, masked by example.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isinglass.packing import PackedBatch

FORBIDDEN: Final = -1e30  # added to a score: its weight is exactly 0, in float32 and bfloat16


class Dropout:
    """The dropout of one micro-batch. This one is for prediction, and drops nothing. The devices have their own, in which
    what is dropped depends on the order of the calls.
    """

    def apply(self, x: Tensor, rate: float) -> Tensor:  # noqa: ARG002
        """Return x with elements zeroed with probability `rate`, and the others divided by the keep rate."""
        return x

    def apply_unscaled(self, x: Tensor, rate: float) -> tuple[Tensor, float]:
        """Zero elements of x with probability `rate`. Return them with the factor that the caller has to multiply by."""
        return self.apply(x, rate), 1.0

    def add(self, residual: Tensor, x: Tensor, rate: float) -> Tensor:
        """Return residual + apply(x, rate), in the wider of the two precisions.

        In prediction the sum is written into `residual`, which nothing else reads.
        """
        if not torch.is_grad_enabled() and residual.dtype == torch.result_type(residual, x):
            return residual.add_(self.apply(x, rate))
        return residual + self.apply(x, rate)


NO_DROPOUT: Final = Dropout()


@dataclass(frozen=True, kw_only=True)
class AttentionPlan(ABC):
    """How the tokens of one batch attend, shared by all layers.

    Attributes:
        dropout: of everything that a pass drops.
    """

    num_heads: int
    dropout: Dropout

    @abstractmethod
    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """Let every token attend to the tokens of its example.

        Args:
            qkv: (tokens, 3 * H), queries, keys and values side by side. A flat batch has padding rows after its tokens.
            rate: dropout rate of the attention weights in training.

        Returns:
            (tokens, H).
        """

    @abstractmethod
    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """Let only the first token of each example attend: all that the last layer needs.

        Args:
            q_first: (S, H), queries of the first tokens.
            kv: (tokens, 2 * H), keys and values side by side.
            rate: dropout rate of the attention weights in training.

        Returns:
            (S, H).
        """


@dataclass(frozen=True, kw_only=True)
class RowsPlan(AttentionPlan):
    """Attention of a batch of rows.

    Attributes:
        bias: float32 (R, 1, L, L), 0 where query and key belong to the same example, else FORBIDDEN.
        first_bias: float32 (1, S, R * L), the same for the first token of each example and all keys.
    """

    bias: Tensor
    first_bias: Tensor

    def attend(self, qkv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        tokens, H, N = qkv.shape[0], qkv.shape[1] // 3, self.num_heads
        R, _, L, _ = self.bias.shape
        q, k, v = qkv.view(R, L, 3, N, H // N).permute(2, 0, 3, 1, 4).reshape(3, R * N, L, H // N)
        bias = self.bias.expand(R, N, L, L).reshape(R * N, L, L)
        context = self._attend(q, k, v, bias, rate)
        return context.view(R, N, L, H // N).transpose(1, 2).reshape(tokens, H)

    def attend_first(self, q_first: Tensor, kv: Tensor, rate: float) -> Tensor:
        """See AttentionPlan."""
        (S, H), N = q_first.shape, self.num_heads
        k, v = kv.view(-1, 2, N, H // N).permute(1, 2, 0, 3)  # (N, R * L, D) each
        q = q_first.view(S, N, H // N).transpose(0, 1)
        context = self._attend(q, k, v, self.first_bias.expand(N, -1, -1), rate)
        return context.transpose(0, 1).reshape(S, H)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rate: float) -> Tensor:
        """Return softmax(q k^T / sqrt(D) + bias) v with dropout of the weights: (B, Lq, D), of k and v (B, Lk, D)."""
        weights, factor = self.dropout.apply_unscaled(softmax_scores(q, k, bias), rate)
        if factor == 1.0:
            return torch.bmm(weights, v)
        return torch.baddbmm(v.new_empty(()), weights, v, beta=0, alpha=factor)


def plan_rows(sequence_ids: Tensor, num_examples: int, num_heads: int, dropout: Dropout) -> RowsPlan:
    """Prepare the attention of a batch of rows from its `sequence_ids`, (R, L) on the device."""
    same = sequence_ids[:, :, None] == sequence_ids[:, None, :]  # gaps attend to gaps: every query has keys
    own = torch.arange(num_examples, device=sequence_ids.device)[:, None] == sequence_ids.reshape(1, -1)
    bias, first_bias = (torch.where(mask, 0.0, FORBIDDEN) for mask in (same[:, None], own[None]))
    return RowsPlan(num_heads=num_heads, dropout=dropout, bias=bias, first_bias=first_bias)


def softmax_scores(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(q k^T / sqrt(D) + bias), (B, Lq, Lk), of q (B, Lq, D) and k (B, Lk, D).

    The softmax runs in float32, whose kernel is faster than bfloat16's on a CPU.
    """
    scale = 1 / math.sqrt(q.shape[-1])
    if bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(bias.to(q.dtype), q, k.transpose(1, 2), alpha=scale)
    return torch.softmax(scores.float(), -1).to(q.dtype)


@dataclass(frozen=True)
class WordRows:
    """Rows of a batch sorted by token id, so that a GPU adds up each word's gradient in a fixed order.

    There are as many segments as rows; the unused ones at the end are empty and point at the pad id.

    Attributes:
        order: int64 (rows,), the rows in ascending order of their token ids.
        bounds: int64 (rows + 1,), where each segment of equal ids begins in `order`, and the end of the last.
        token_ids: int64 (rows,), the token id of each segment.
    """

    order: Tensor
    bounds: Tensor
    token_ids: Tensor


@dataclass(frozen=True, kw_only=True)
class StagedBatch:
    """All that a pass through the model needs of a packed batch, on the device.

    `rows` is the number of its tokens, in a flat batch rounded up by `rounded_rows`; R * L in the rows layout.

    Attributes:
        input_ids: int64 (rows,); 0 in padding rows, as are the next two.
        token_type_ids: int64 (rows,).
        position_ids: int64 (rows,).
        first_token: int64 (S,), the row of each example's first token.
        labels: int64 (S,), float32 (S,) or (S, num_outputs); None in prediction.
        plan: how the tokens attend, and what is dropped.
        word_rows: for the gradient of the word embedding on a GPU; None elsewhere.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    first_token: Tensor
    labels: Tensor | None = None
    plan: AttentionPlan
    word_rows: WordRows | None = None


@dataclass(frozen=True)
class BatchShape:
    """All that the kernels of a step depend on, beside the contents of arrays.

    Attributes:
        rows: rows of the matrices.
        max_length: L in the rows layout; for a flat batch on a GPU the tokens of the longest example, rounded up.
        num_examples: S.
    """

    rows: int
    max_length: int
    num_examples: int


def rounded_rows(num_tokens: int, *, multiple: int, spare: int = 0) -> int:
    """Return the rows of the matrices for a flat batch of `num_tokens` tokens: these, rounded up to one of few values.

    Each value costs: oneDNN generates programs for it on a CPU, and a GPU records a step for it. Above 32 * `multiple`
    tokens less than a 32nd of the rows is padding, spare rows aside.

    Args:
        multiple: least multiple to round up to.
        spare: rows that have to follow the tokens.
    """
    multiple = max(multiple, 1 << max(0, num_tokens.bit_length() - 6))
    return -(-(num_tokens + spare) // multiple) * multiple


def token_arrays(batch: PackedBatch, rows: int) -> dict[str, NDArray[Any]]:
    """Return the first fields of `StagedBatch` as arrays; those of tokens are int64, with zeros up to `rows` elements."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in ("input_ids", "token_type_ids", "position_ids"):
        values = getattr(batch, name)
        arrays[name] = np.zeros(rows, np.int64)
        arrays[name][: values.size] = values.reshape(-1)
    arrays["first_token"] = batch.first_token
    return arrays if batch.labels is None else {**arrays, "labels": batch.labels}
