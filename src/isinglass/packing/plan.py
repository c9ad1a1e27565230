"""Plan which examples share a step: a pure function of (number of examples, batch size, seed, epoch).

Lengths, backend and earlier steps do not enter. So all backends train on the same batches, and a run that resumes in
epoch 3 needs no stored generator state.
"""

import heapq
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64


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
