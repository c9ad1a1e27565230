"""A packed batch on the device, and the parts of a training step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.torch.attention import AttentionPlan
from isinglass.backends.torch.dropout import Dropout
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
        attention: how the tokens attend.
        dropout: of all but the attention weights.
        word_rows: for the gradient of the word embedding on a GPU; None elsewhere.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    first_token: Tensor
    labels: Tensor | None = None
    attention: AttentionPlan
    dropout: Dropout
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


@dataclass(frozen=True)
class RowRounding:
    """How many rows the matrices of a flat batch have: the number of its tokens rounded up, so that it takes few values.

    Each value costs: oneDNN generates programs for it on a CPU, and a GPU records a step for it.

    Attributes:
        multiple: least multiple to round up to.
        spare: rows that have to follow the tokens.
    """

    multiple: int
    spare: int

    def rows_for(self, num_tokens: int) -> int:
        """Return the rows for `num_tokens` tokens: above 32 * `multiple` less than a 32nd more, spare rows aside."""
        multiple = max(self.multiple, 1 << max(0, num_tokens.bit_length() - 6))
        return -(-(num_tokens + self.spare) // multiple) * multiple


def token_arrays(batch: PackedBatch, rows: int) -> dict[str, NDArray[Any]]:
    """Return the first fields of `StagedBatch` as arrays; those of tokens have `rows` elements."""
    arrays = {
        "input_ids": _padded(batch.input_ids, rows),
        "token_type_ids": _padded(batch.token_type_ids, rows),
        "position_ids": _padded(batch.position_ids, rows),
        "first_token": batch.first_token,
    }
    return arrays if batch.labels is None else {**arrays, "labels": batch.labels}


def _padded(array: np.ndarray, rows: int) -> Int64[np.ndarray, " rows"]:
    """Return the array flattened as int64, with zeros after it up to `rows` elements."""
    out = np.zeros(rows, np.int64)
    out[: array.size] = array.reshape(-1)
    return out
