"""Self-attention over packed batches in the `rows` layout, in keras.ops.

Shapes: R rows of L places, S examples, H hidden size = N heads x D head size. Every row attends within itself, masked by
example. Softmax is computed in float32, whatever the precision of the products.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from keras import ops

from isinglass.backends.keras.dropout import DropoutMasks, masked, scaled

FORBIDDEN: Final = -1e30  # added to a score: its weight is exactly 0, in float32 and bfloat16


@dataclass(frozen=True)
class RowsPlan:
    """The masks of one batch, which all blocks share.

    Attributes:
        num_heads: N.
        bias: float32 (R, 1, L, L), 0 where query and key belong to the same example, else FORBIDDEN.
        first_bias: float32 (1, S, R * L), the same for the first token of each example and all keys.
    """

    num_heads: int
    bias: Any
    first_bias: Any


def plan_attention(sequence_ids: Any, num_examples: int, num_heads: int) -> RowsPlan:
    """Return the masks of a batch, from its `sequence_ids`, int32 (R, L)."""
    same = ops.expand_dims(sequence_ids, 2) == ops.expand_dims(sequence_ids, 1)  # gaps attend to gaps
    own = ops.expand_dims(ops.arange(num_examples, dtype="int32"), 1) == ops.reshape(sequence_ids, (1, -1))
    bias = ops.where(ops.expand_dims(same, 1), 0.0, FORBIDDEN)
    first_bias = ops.where(ops.expand_dims(own, 0), 0.0, FORBIDDEN)
    return RowsPlan(num_heads, bias, first_bias)


def _attend(q: Any, k: Any, v: Any, bias: Any, rate: float, masks: DropoutMasks | None) -> Any:
    """Return softmax(q k^T / sqrt(D) + bias) v, with dropout of the weights.

    Shapes: q (..., Lq, D); k, v (..., Lk, D); bias broadcasts to (..., Lq, Lk); the result is (..., Lq, D).
    """
    scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
    weights = ops.softmax(ops.cast(scores, "float32") * (1 / math.sqrt(q.shape[-1])) + bias)
    dropped, factor = masked(ops.cast(weights, v.dtype), rate, masks)
    return scaled(ops.matmul(dropped, v), factor)  # the context has fewer elements than the weights


def self_attention(qkv: Any, plan: RowsPlan, rate: float, masks: DropoutMasks | None) -> Any:
    """Let every token attend to the tokens of its example.

    Args:
        qkv: (R * L, 3 * H), queries, keys and values side by side.
        rate: dropout of the attention weights.
        masks: None outside training.

    Returns:
        (R * L, H).
    """
    R, _, L, _ = plan.bias.shape
    H, N = qkv.shape[1] // 3, plan.num_heads
    q, k, v = ops.unstack(ops.transpose(ops.reshape(qkv, (R, L, 3, N, H // N)), (2, 0, 3, 1, 4)), 3)  # (R, N, L, D) each
    context = _attend(q, k, v, plan.bias, rate, masks)
    return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (R * L, H))


def first_token_attention(q_first: Any, kv: Any, plan: RowsPlan, rate: float, masks: DropoutMasks | None) -> Any:
    """Let the first token of each example attend to its tokens: all that the last block needs.

    Args:
        q_first: (S, H), queries of the first tokens.
        kv: (R * L, 2 * H), keys and values side by side.

    Returns:
        (S, H).
    """
    (S, H), N = q_first.shape, plan.num_heads
    k, v = ops.unstack(ops.transpose(ops.reshape(kv, (-1, 2, N, H // N)), (1, 2, 0, 3)), 2)  # (N, R * L, D) each
    q = ops.transpose(ops.reshape(q_first, (S, N, H // N)), (1, 0, 2))
    context = _attend(q, k, v, plan.first_bias, rate, masks)
    return ops.reshape(ops.transpose(context, (1, 0, 2)), (S, H))
