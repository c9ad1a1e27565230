"""How the tokens of a batch attend and what is dropped: the interface of all devices, and the plan for the rows layout.

Shapes: T tokens of S examples, H hidden size = N heads x D head size; R rows of L tokens in the rows layout.

- `cpu/attention.py`, `gpu/attention.py`: flat batches, fast.
- `RowsPlan`: the plain way, on every device and in compiled models. Every row attends within itself, masked by example.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

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
