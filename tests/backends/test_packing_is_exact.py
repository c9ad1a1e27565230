"""The heart of it: a packed batch computes what each of its examples computes alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.backends.torch.backend import TorchBackend
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import Checkpoint, load_checkpoint
from isinglass.packing import PackedBatch, pack_flat, pack_rows
from tests.tiny import FAMILIES, random_tokens, save_tiny

MAX_LENGTH = 64
lengths = st.lists(st.integers(1, MAX_LENGTH), min_size=2, max_size=12)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Checkpoint:
    return load_checkpoint(save_tiny(tmp_path_factory.mktemp(request.param), request.param, labels=("a", "b", "c")))


def backend(checkpoint: Checkpoint) -> TorchBackend:
    return TorchBackend(TrainConfig(), checkpoint, 3, torch.device("cpu"))


def pack(tokens, index, labels, rows: bool) -> PackedBatch:
    if rows:
        return pack_rows(tokens, index, labels, row_length=MAX_LENGTH, row_counts=(4, 8, 16), pad_token_id=0)
    return pack_flat(tokens, index, labels)


def in_file_order(batch: PackedBatch, outputs: np.ndarray) -> np.ndarray:
    return outputs[np.argsort(batch.example_index)]


@settings(max_examples=15, deadline=None)
@given(lengths=lengths, seed=st.integers(0, 99), rows=st.booleans())
def test_logits_loss_and_gradients_are_those_of_each_example_alone(
    checkpoint: Checkpoint, lengths: list[int], seed: int, rows: bool
) -> None:
    """In fp32: logits to 1e-5; the mean of the single losses; the mean of the single gradients."""
    types = 1 if checkpoint.config.type_vocab_size < 2 else 2
    tokens, n = random_tokens(lengths, seed, types=types), len(lengths)
    labels = np.random.default_rng(seed).integers(0, 3, n)
    model = backend(checkpoint)
    singles = [pack_flat(tokens, np.array([i]), labels) for i in range(n)]
    alone = np.concatenate([model.predict(single) for single in singles])
    batch = pack(tokens, np.arange(n), labels, rows)
    np.testing.assert_allclose(in_file_order(batch, model.predict(batch)), alone, rtol=0, atol=1e-5)

    loss = float(model.backward(batch, None))
    together = model.gradients()
    losses, summed = [], None
    for single in singles:
        model.clear_gradients()
        losses.append(float(model.backward(single, None)))
        found = model.gradients()
        summed = found if summed is None else {name: summed[name] + found[name] for name in found}
    assert loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert any(np.abs(gradient).max() > 1e-3 for gradient in together.values())
    for name, gradient in together.items():
        expected = summed[name] / n
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(gradient / scale, expected / scale, rtol=0, atol=1e-5, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(lengths=lengths, seed=st.integers(0, 99), rows=st.booleans())
def test_changing_one_example_changes_no_others_logits(
    checkpoint: Checkpoint, lengths: list[int], seed: int, rows: bool
) -> None:
    """Bit for bit: attention must not leak from one example into its neighbour."""
    tokens = random_tokens(lengths, seed, types=1)
    other = random_tokens(lengths, seed + 1, types=1)
    victim = seed % len(lengths)
    a, b = tokens.offsets[victim], tokens.offsets[victim + 1]
    changed = tokens.input_ids.copy()
    changed[a:b] = other.input_ids[a:b]
    model = backend(checkpoint)
    before = pack(tokens, np.arange(len(lengths)), None, rows)
    first = in_file_order(before, model.predict(before))
    import dataclasses

    altered = dataclasses.replace(tokens, input_ids=changed)
    second = in_file_order(before, model.predict(pack(altered, np.arange(len(lengths)), None, rows)))
    untouched = np.arange(len(lengths)) != victim
    np.testing.assert_array_equal(first[untouched], second[untouched])


def test_the_first_steps_gradient_leaves_nothing_for_the_second(checkpoint: Checkpoint) -> None:
    """The word embedding's gradient buffer is kept between steps: rows of an earlier step must be clear again."""
    tokens = random_tokens([9, 4, 30, 12], types=1)
    labels = np.array([0, 1, 2, 0])
    model = backend(checkpoint)
    first, second = (pack_flat(tokens, np.array(index), labels) for index in ([0, 1], [2, 3]))
    model.backward(second, None)
    expected = model.gradients()
    model.clear_gradients()
    model.backward(first, None)
    model.clear_gradients()
    model.backward(second, None)
    for name, gradient in model.gradients().items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-7, err_msg=name)
