"""Plan which examples share a step, and pack them into the batch that every backend takes.

The plan is a pure function of (number of examples, batch size, seed, epoch). Lengths, backend and earlier steps do not
enter. So all backends train on the same batches, and a run that resumes in epoch 3 needs no stored generator state.

In `flat` no token is padding; in `rows` the gaps are marked.

S examples with T real tokens. Written out for S = 2, ids of `[CLS] a b [SEP]` and `[CLS] c [SEP]`:

`flat`, one axis of T tokens without gaps, shortest example first (neighbours of like length make attention cheap):

    input_ids        101    7  102  101    5    6  102        example_index  1  0
    token_type_ids     0    0    0    0    0    0    0        first_token    0  3
    position_ids       0    1    2    0    1    2    3        labels         of examples 1, 0
    sequence_ids       0    0    0    1    1    1    1        cu_seqlens     0  3  7

`rows`, R x L with L = 8, first fit, longest first, gaps marked by `sequence_ids` -1; rows beyond those needed are gaps:

    input_ids        101    5    6  102  101    7  102    0   example_index  0  1
    token_type_ids     0    0    0    0    0    0    0    0   first_token    0  4   (positions in the flattened R * L)
    position_ids       0    1    2    3    0    1    2    0   labels         of examples 0, 1
    sequence_ids       0    0    0    0    1    1    1   -1
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64
from numpy.typing import NDArray

from isinglass.data.tokenization import TokenizedTexts
from isinglass.tasks import Labels


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """S examples of one step. Shapes are (T,) in the `flat` layout and (R, L) in `rows`; see the module's example.

    Attributes:
        input_ids: int32; the pad id in gaps.
        token_type_ids: int32; 0 in gaps.
        position_ids: int32; restart at 0 with each example (a family that counts from elsewhere adds its offset).
        sequence_ids: int32; which of the S examples a token belongs to, -1 in a gap.
        first_token: int64 (S,), where each example begins on the flattened token axis.
        lengths: int64 (S,), tokens of each example.
        example_index: int64 (S,), the position of each example in its file.
        labels: int64 (S,), float32 (S,) or float32 (S, outputs), or None where they are hidden.
    """

    input_ids: Int32[np.ndarray, "..."]
    token_type_ids: Int32[np.ndarray, "..."]
    position_ids: Int32[np.ndarray, "..."]
    sequence_ids: Int32[np.ndarray, "..."]
    first_token: Int64[np.ndarray, " S"]
    lengths: Int64[np.ndarray, " S"]
    example_index: Int64[np.ndarray, " S"]
    labels: Labels | None

    @property
    def num_examples(self) -> int:
        """S, the number of examples."""
        return len(self.example_index)

    @property
    def num_tokens(self) -> int:
        """T, the number of real tokens: gaps do not count."""
        return int(self.lengths.sum())

    @property
    def is_flat(self) -> bool:
        """Whether the layout is `flat`."""
        return self.input_ids.ndim == 1

    @property
    def cu_seqlens(self) -> Int64[np.ndarray, " S_plus_1"]:
        """Offsets of the examples on the token axis, and T at the end: only `flat` lays examples end to end."""
        assert self.is_flat
        return np.concatenate([[0], np.cumsum(self.lengths)])


def pack_flat(tokens: TokenizedTexts, index: Int64[np.ndarray, " S"], labels: Labels | None) -> PackedBatch:
    """Lay the examples `index` of `tokens` end to end, shortest first.

    Args:
        labels: of all N examples, or None.
    """
    starts, ends = tokens.offsets[index], tokens.offsets[index + 1]
    order = np.argsort(ends - starts, kind="stable")
    index, starts, lengths = index[order], starts[order], (ends - starts)[order]
    first_token = np.cumsum(lengths) - lengths
    sequence_ids = np.repeat(np.arange(len(index)), lengths)
    position_ids = np.arange(int(lengths.sum())) - first_token[sequence_ids]
    source = starts[sequence_ids] + position_ids
    return PackedBatch(
        input_ids=tokens.input_ids[source],
        token_type_ids=tokens.token_type_ids[source].astype(np.int32),
        position_ids=position_ids.astype(np.int32),
        sequence_ids=sequence_ids.astype(np.int32),
        first_token=first_token,
        lengths=lengths,
        example_index=index,
        labels=None if labels is None else labels[index],
    )


def row_counts(limit: int) -> list[int]:
    """Return the sizes that R may have, up to the first that is at least `limit`: few programs to compile, little waste.

    They have three significant bits, so that rounding up adds less than a quarter, a ninth on average:
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ...
    """
    counts = [1]
    while counts[-1] < limit:
        counts.append(counts[-1] + 2 ** max(0, counts[-1].bit_length() - 3))
    return counts


def pack_rows(
    tokens: TokenizedTexts,
    index: Int64[np.ndarray, " S"],
    labels: Labels | None,
    *,
    row_length: int,
    row_counts: Sequence[int],
    pad_token_id: int,
) -> PackedBatch:
    """Lay the examples `index` into rows of `row_length` tokens, first fit, longest first.

    Args:
        row_length: L, at least the length of the longest example.
        row_counts: the few sizes that R may have, ascending. R is the smallest that suffices, so that compilers see few
            shapes; if none suffices, R is the number of rows needed.
        pad_token_id: fills the gaps.
    """
    flat = pack_flat(tokens, index, labels)
    order = np.argsort(-flat.lengths, kind="stable")
    assert flat.lengths.max() <= row_length, "an example is longer than a row"
    used: list[int] = []  # tokens in each row so far
    first_token = np.empty(len(index), np.int64)  # of each sequence of `flat`
    for sequence in order:
        length = int(flat.lengths[sequence])
        row = next((r for r, filled in enumerate(used) if filled + length <= row_length), len(used))
        if row == len(used):
            used.append(0)
        first_token[sequence] = row * row_length + used[row]
        used[row] += length
    num_rows = next((count for count in row_counts if count >= len(used)), len(used))
    rank = np.argsort(order)
    target = first_token[flat.sequence_ids] + flat.position_ids

    def lay(values: NDArray[Any], gap: int) -> Int32[np.ndarray, "R L"]:
        out = np.full(num_rows * row_length, gap, np.int32)
        out[target] = values
        return out.reshape(num_rows, row_length)

    return PackedBatch(
        input_ids=lay(flat.input_ids, pad_token_id),
        token_type_ids=lay(flat.token_type_ids, 0),
        position_ids=lay(flat.position_ids, 0),
        sequence_ids=lay(rank[flat.sequence_ids], -1),
        first_token=first_token[order],
        lengths=flat.lengths[order],
        example_index=flat.example_index[order],
        labels=None if flat.labels is None else flat.labels[order],
    )


def num_steps(num_examples: int, batch_size: int) -> int:
    """Return the steps of one epoch: the last, shorter batch counts; no example is dropped."""
    return -(-num_examples // batch_size)


def plan_epoch(num_examples: int, batch_size: int, *, seed: int, epoch: int) -> list[Int64[np.ndarray, " S"]]:
    """Shuffle all examples and cut them into steps of `batch_size`; the last step has what is left.

    Example: `plan_epoch(5, 2, seed=0, epoch=0)` is three arrays of 2, 2 and 1 indices; together they are 0 to 4.
    """
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_examples).astype(np.int64)
    return [order[start : start + batch_size] for start in range(0, num_examples, batch_size)]


def shard_step(lengths: Int64[np.ndarray, " S"], shards: int) -> list[Int64[np.ndarray, " s"]]:
    """Distribute the examples of a step over processes or micro-batches, with about the same number of tokens for each.

    The longest example comes first, and each goes to the shard that has the fewest tokens so far: no shard has more than
    4/3 of the least possible maximum (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969).

    Example: `shard_step([9, 5, 4, 1], 2)` returns the positions [0, 3] and [1, 2]: ten tokens and nine. With fewer
    examples than shards some shards are empty.
    """
    positions_of: list[list[int]] = [[] for _ in range(shards)]
    loads = [(0, shard) for shard in range(shards)]
    for position in np.argsort(-lengths, kind="stable").tolist():
        tokens, shard = heapq.heappop(loads)
        positions_of[shard].append(position)
        heapq.heappush(loads, (tokens + int(lengths[position]), shard))
    return [np.array(sorted(positions), np.int64) for positions in positions_of]


def plan_evaluation(lengths: Int64[np.ndarray, " N"], max_tokens: int) -> Iterator[Int64[np.ndarray, " S"]]:
    """Yield batches that hold every example once, longest first, each with at most `max_tokens` tokens (or one example).

    Neighbours have similar lengths, which makes attention cheap. Logits do not depend on neighbours; the caller restores
    the order of the file by `PackedBatch.example_index`. The longest come first, so that a batch that does not fit into
    memory fails at once.
    """
    order = np.argsort(-lengths, kind="stable").astype(np.int64)
    start = 0
    while start < len(order):
        ends = np.cumsum(lengths[order[start : start + max_tokens]])
        count = max(1, int(np.searchsorted(ends, max_tokens, side="right")))
        yield order[start : start + count]
        start += count
