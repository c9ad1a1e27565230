"""Plans and layouts: which examples share a step, and where each token is placed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.data.tokenization import TokenizedTexts
from isinglass.packing import num_steps, pack_flat, pack_rows, plan_epoch, plan_evaluation, shard_step
from tests.tiny import random_tokens

lengths = st.lists(st.integers(1, 64), min_size=1, max_size=24)


@given(n=st.integers(1, 500), size=st.integers(1, 64), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 50))
def test_an_epoch_has_every_example_once_in_steps_of_batch_size(n: int, size: int, seed: int, epoch: int) -> None:
    """Guards against dropping the last, shorter batch, as the classic TensorFlow script did."""
    plan = plan_epoch(n, size, seed=seed, epoch=epoch)
    assert len(plan) == num_steps(n, size)
    assert all(len(step) == size for step in plan[:-1])
    assert sorted(np.concatenate(plan)) == list(range(n))


def test_batches_are_a_function_of_seed_and_epoch_alone() -> None:
    """Guards against hidden generator state: a resumed run must see the same batches."""

    def plan(seed: int, epoch: int) -> list[int]:
        return np.concatenate(plan_epoch(100, 32, seed=seed, epoch=epoch)).tolist()

    assert plan(3, 2) == plan(3, 2)
    assert plan(3, 2) != plan(3, 1)
    assert plan(3, 2) != plan(2, 3), "seed and epoch are not added up"


@given(lengths=lengths, shards=st.integers(1, 9))
def test_a_step_is_dealt_out_whole_and_evenly(lengths: list[int], shards: int) -> None:
    """Checks Graham's bound, with a lower bound of the fullest shard in any assignment."""
    dealt = shard_step(np.array(lengths), shards)
    assert len(dealt) == shards
    assert sorted(np.concatenate(dealt)) == list(range(len(lengths)))
    assert sum(len(shard) > 0 for shard in dealt) == min(shards, len(lengths))
    fullest = max(sum(lengths[i] for i in shard) for shard in dealt)
    ordered = sorted(lengths, reverse=True)
    if len(lengths) <= shards:
        assert fullest == ordered[0]
    else:
        least = max(sum(lengths) / shards, ordered[0], ordered[shards - 1] + ordered[shards])  # two of these share a shard
        assert fullest <= 4 / 3 * least + max(lengths) / 3


def test_the_shards_of_a_step_are_within_three_percent_on_lengths_like_those_of_mrpc() -> None:
    """Lengths are normal with MRPC's mean and deviation under the embedded tokenizer. Each run records its own figure."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(53, 13, (300, 32)), 15, 103).astype(np.int64)
    for processes in (2, 3, 4):
        fullest = [max(step[s].sum() for s in shard_step(step, processes)) / (step.sum() / processes) for step in lengths]
        assert np.mean(fullest) < 1.03


@given(lengths=lengths, budget=st.integers(1, 200))
def test_evaluation_has_every_example_once_within_the_token_budget(lengths: list[int], budget: int) -> None:
    """A batch may exceed the budget only if it consists of one example that does."""
    batches = list(plan_evaluation(np.array(lengths), budget))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert sum(lengths[i] for i in batch) <= budget or len(batch) == 1


def unpack(batch, i: int):
    """Return ids, types and positions of the batch's i-th example, wherever they are."""
    where = np.flatnonzero(batch.sequence_ids.reshape(-1) == i)
    assert where[0] == batch.first_token[i], "first_token points at the example's first token"
    assert (np.diff(where) == 1).all(), "an example lies in one piece"
    return [a.reshape(-1)[where].tolist() for a in (batch.input_ids, batch.token_type_ids, batch.position_ids)]


@given(lengths=lengths, seed=st.integers(0, 1000), rows=st.booleans())
def test_every_token_of_every_example_is_packed_once(lengths: list[int], seed: int, rows: bool) -> None:
    """Both layouts must hold each example in one piece, with positions from 0, and nothing else but gaps."""
    tokens = random_tokens(lengths, seed)
    index = np.random.default_rng(seed).permutation(len(lengths))
    labels = np.arange(len(lengths)) * 10
    if rows:
        batch = pack_rows(tokens, index, labels, row_length=64, row_counts=(2, 4, 8, 16, 32), pad_token_id=9)
        gaps = batch.sequence_ids == -1
        assert (batch.input_ids[gaps] == 9).all()
        assert batch.input_ids.shape[0] in (2, 4, 8, 16, 32)
        assert batch.input_ids.size - gaps.sum() == batch.num_tokens == sum(lengths)
    else:
        batch = pack_flat(tokens, index, labels)
        assert batch.input_ids.shape == (sum(lengths),), "no gap and no padding"
        assert batch.cu_seqlens.tolist() == [0, *np.cumsum(batch.lengths)]
    assert sorted(batch.example_index) == sorted(index)
    for i, example in enumerate(batch.example_index):
        a, b = tokens.offsets[example], tokens.offsets[example + 1]
        expected = [tokens.input_ids[a:b].tolist(), tokens.token_type_ids[a:b].tolist(), list(range(b - a))]
        assert unpack(batch, i) == expected
        assert batch.labels[i] == example * 10
        assert batch.lengths[i] == b - a


def test_the_documented_batch_of_two_sentences() -> None:
    """The module's docstring must show the actual numbers."""
    tokens = TokenizedTexts(
        input_ids=np.array([101, 5, 6, 102, 101, 7, 102], np.int32),
        token_type_ids=np.zeros(7, np.uint8),
        offsets=np.array([0, 4, 7]),
        truncated=0,
    )
    flat = pack_flat(tokens, np.array([0, 1]), None)
    assert flat.input_ids.tolist() == [101, 7, 102, 101, 5, 6, 102]
    assert flat.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert flat.example_index.tolist() == [1, 0]
    assert flat.cu_seqlens.tolist() == [0, 3, 7]
    rows = pack_rows(tokens, np.array([0, 1]), None, row_length=8, row_counts=(1,), pad_token_id=0)
    assert rows.input_ids.tolist() == [[101, 5, 6, 102, 101, 7, 102, 0]]
    assert rows.sequence_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1]]
    assert rows.first_token.tolist() == [0, 4]


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 32), min_size=20, max_size=60))
def test_first_fit_wastes_less_than_half(lengths: list[int]) -> None:
    """First fit would have merged two rows that are both at most half full."""
    batch = pack_rows(random_tokens(lengths), np.arange(len(lengths)), None, row_length=32, row_counts=(), pad_token_id=0)
    filled = (batch.sequence_ids >= 0).sum(1)
    assert (filled <= 16).sum() <= 1


def test_a_row_shorter_than_an_example_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="longer than a row"):
        pack_rows(random_tokens([9]), np.array([0]), None, row_length=8, row_counts=(1,), pad_token_id=0)
