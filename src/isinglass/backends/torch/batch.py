"""A packed batch on the device, and the parts of a training step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.torch.attention import AttentionPlan
from isinglass.packing import PackedBatch


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

    `rows` is the number of its tokens, in a flat batch rounded up by `RowRounding`; R * L in the rows layout.

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


@dataclass(frozen=True)
class MicroBatch:
    """A part of a training step.

    Attributes:
        step: number of the step in the run.
        part: number of the micro-batch in the step.
        weight: factor of its mean loss in the loss of the step.
        is_last: whether it is the last one of the step.
    """

    batch: PackedBatch
    step: int
    part: int
    weight: float
    is_last: bool


@dataclass(frozen=True)
class MicroBatchGradient:
    """What forward and backward pass of a micro-batch leave beside the gradients of the parameters.

    Attributes:
        batch: the micro-batch on the device.
        loss: the mean loss times the micro-batch's weight.
        embeddings: (rows, E), the gradient of each token's word embedding; None if these are frozen.
    """

    part: MicroBatch
    batch: StagedBatch
    loss: Tensor
    embeddings: Tensor | None


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
