"""Packing is exact for every installed backend: a packed batch computes what each of its examples computes alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.backends.protocol import Backend
from isinglass.models.checkpoint import Checkpoint, load_checkpoint
from tests.backends.gradients import loss_and_gradients
from tests.backends.variants import VARIANTS, backend_for, in_file_order, pack
from tests.tiny import ARCHITECTURES, random_tokens, save_tiny

lengths = st.lists(st.integers(1, 64), min_size=2, max_size=12)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(request, tmp_path_factory) -> Checkpoint:
    return load_checkpoint(save_tiny(tmp_path_factory.mktemp(request.param), request.param, labels=("a", "b", "c")))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def backend(variant: str, checkpoint: Checkpoint) -> Backend:
    return backend_for(variant, checkpoint, batch_size=12)


@settings(max_examples=15, deadline=None)
@given(lengths=lengths, seed=st.integers(0, 99))
def test_logits_loss_and_gradients_are_those_of_each_example_alone(
    variant: str, backend: Backend, checkpoint: Checkpoint, lengths: list[int], seed: int
) -> None:
    """In fp32, logits must agree to 1e-5; loss and gradients must be the means over the single examples."""
    types = 1 if checkpoint.blueprint.embeddings.token_types < 2 else 2
    tokens, n = random_tokens(lengths, seed, types=types), len(lengths)
    labels = np.random.default_rng(seed).integers(0, 3, n)
    singles = [pack(variant, tokens, np.array([i]), labels) for i in range(n)]
    alone = np.concatenate([backend.predict([single])[0] for single in singles])
    batch = pack(variant, tokens, np.arange(n), labels)
    np.testing.assert_allclose(in_file_order(batch, backend.predict([batch])[0]), alone, rtol=0, atol=1e-5)

    loss, together = loss_and_gradients(backend, batch)
    losses, summed = [], None
    for single in singles:
        single_loss, found = loss_and_gradients(backend, single)
        losses.append(single_loss)
        summed = found if summed is None else {name: summed[name] + found[name] for name in found}
    assert loss == pytest.approx(np.mean(losses), rel=2e-6, abs=1e-6)
    assert any(np.abs(gradient).max() > 1e-3 for gradient in together.values())
    for name, gradient in together.items():
        expected = summed[name] / n
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(gradient / scale, expected / scale, rtol=0, atol=1e-5, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(lengths=lengths, seed=st.integers(0, 99))
def test_changing_one_example_changes_no_others_logits(
    variant: str, backend: Backend, lengths: list[int], seed: int
) -> None:
    """Attention must not leak from one example into its neighbour. The logits are compared bit for bit."""
    tokens = random_tokens(lengths, seed, types=1)
    other = random_tokens(lengths, seed + 1, types=1)
    victim = seed % len(lengths)
    a, b = tokens.offsets[victim], tokens.offsets[victim + 1]
    changed = tokens.input_ids.copy()
    changed[a:b] = other.input_ids[a:b]
    altered = dataclasses.replace(tokens, input_ids=changed)
    before, after = (pack(variant, t, np.arange(len(lengths)), None) for t in (tokens, altered))
    first, second = (in_file_order(batch, backend.predict([batch])[0]) for batch in (before, after))
    untouched = np.arange(len(lengths)) != victim
    np.testing.assert_array_equal(first[untouched], second[untouched])


def test_the_first_steps_gradient_leaves_nothing_for_the_second(variant: str, backend: Backend) -> None:
    """A gradient buffer that is kept between steps must be cleared."""
    tokens = random_tokens([9, 4, 30, 12], types=1)
    labels = np.array([0, 1, 2, 0])
    first, second = (pack(variant, tokens, np.array(index), labels) for index in ([0, 1], [2, 3]))
    _, expected = loss_and_gradients(backend, second)
    loss_and_gradients(backend, first)
    _, gradients = loss_and_gradients(backend, second)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-7, err_msg=name)
