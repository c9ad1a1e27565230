"""Two parallel micro-batches on a CPU: same result as in sequence, same result each time, and no state left behind."""

import numpy as np
import pytest
import torch

from isinglass.backends.protocol import LEAST_PARALLEL_TOKENS, parts_of_step
from isinglass.backends.torch.cpu.backend import PARALLEL_BATCHES, in_parallel
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError
from isinglass.models.checkpoint import Weights, load_checkpoint
from isinglass.training.evaluation import predict
from isinglass.training.preparation import Packer
from tests.backends.variants import backend_for
from tests.tiny import random_tokens, save_tiny


@pytest.fixture(autouse=True)
def threads():
    """Set as many threads as the parallel batches need, even if the machine has fewer cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(PARALLEL_BATCHES)
    yield
    assert torch.get_num_threads() == PARALLEL_BATCHES
    torch.set_num_threads(before)


def trained(path, *, at_once: bool, precision: str = "fp32") -> tuple[Weights, list[float]]:
    """Return the weights and losses after five steps of 12 examples with all dropout on."""
    checkpoint = load_checkpoint(path)
    rng = np.random.default_rng(0)
    tokens, labels = random_tokens(list(rng.integers(3, 40, 60))), rng.integers(0, 3, 60)
    backend = backend_for("torch-flat", checkpoint, precision=precision)
    packer = Packer(TrainConfig(), checkpoint)
    assert backend.parallel_batches == PARALLEL_BATCHES
    backend.parallel_batches = PARALLEL_BATCHES if at_once else 1
    for step in range(5):
        batches = packer.pack_parts(tokens, np.arange(12 * step, 12 * step + 12), labels, PARALLEL_BATCHES)
        backend.train_step(batches, step=step, learning_rate=1e-3)
    return backend.weights(), backend.take_losses()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_parallel_batches_repeat_to_the_last_bit(tmp_path, precision: str) -> None:
    """Guards against gradients that are added in the order in which the threads finish."""
    path = save_tiny(tmp_path, "bert", labels=("a", "b", "c"))
    (weights, losses), *again = (trained(path, at_once=True, precision=precision) for _ in range(4))
    for other_weights, other_losses in again:
        assert other_losses == losses
        for name, expected in weights.items():
            np.testing.assert_array_equal(other_weights[name], expected)


def test_two_parallel_batches_are_the_same_micro_batches_one_after_another(tmp_path) -> None:
    """Guards against a thread that draws different masks, weighs its examples differently, or loses a gradient."""
    path = save_tiny(tmp_path, "bert", labels=("a", "b", "c"))
    (weights, losses), (expected, expected_losses) = (trained(path, at_once=at_once) for at_once in (True, False))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for name, value in expected.items():
        if ".key.bias" not in name:  # softmax ignores this bias: its gradient is only rounding error
            np.testing.assert_allclose(weights[name], value, atol=1e-5)


def test_prediction_in_two_parallel_batches_gives_every_example_its_own_logits(tmp_path) -> None:
    """Guards against mixed-up batches: thirteen examples in batches of unequal size, and an odd number of batches."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert", labels=("a", "b", "c")))
    tokens = random_tokens([5, 40, 7, 9, 31, 2, 17, 23, 8, 8, 12, 3, 29])
    backend = backend_for("torch-flat", checkpoint)
    packer = Packer(TrainConfig(eval_tokens=110), checkpoint)
    assert len(packer.evaluation_batches(tokens, PARALLEL_BATCHES)) % PARALLEL_BATCHES == 1
    alone = [backend.predict([packer.pack(tokens, np.array([i]), None)])[0][0] for i in range(len(tokens))]
    np.testing.assert_allclose(predict(backend, packer, tokens, "dev"), alone, atol=1e-5)


def test_batches_that_do_not_fit_are_predicted_alone_and_then_in_halves(tmp_path, caplog, monkeypatch) -> None:
    """Guards against examples that are lost, or predicted twice, where memory is short."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert", labels=("a", "b", "c")))
    tokens = random_tokens([5, 40, 7, 9, 31, 2, 17, 23, 8, 8, 12, 3, 29])
    backend = backend_for("torch-flat", checkpoint)
    packer = Packer(TrainConfig(eval_tokens=110), checkpoint)
    expected = predict(backend, packer, tokens, "dev")
    whole = backend.predict

    def predict_few(batches):
        if sum(batch.num_examples for batch in batches) > 3:
            raise DeviceMemoryError("Too much.")
        return whole(batches)

    monkeypatch.setattr(backend, "predict", predict_few)
    np.testing.assert_allclose(predict(backend, packer, tokens, "dev"), expected, atol=1e-5)
    assert "one at a time" in caplog.text and "halved" in caplog.text


def test_a_parallel_batch_that_fails_is_heard_and_the_other_ends_first() -> None:
    """Guards against a lost error, a thread count that stays reduced, and work that continues after the call returned."""
    ended = []

    def fails() -> None:
        raise ValueError("so it is")

    def ends() -> None:
        ended.append(torch.get_num_threads())

    for tasks in ([fails, ends], [ends, fails]):
        with pytest.raises(ValueError, match="so it is"):
            in_parallel(lambda task: task(), tasks)
    assert ended == [1, 1]


def test_a_small_step_is_not_cut() -> None:
    assert [parts_of_step(tokens, 2) for tokens in (1, LEAST_PARALLEL_TOKENS - 1, LEAST_PARALLEL_TOKENS)] == [1, 1, 2]
    assert parts_of_step(10_000, 1) == 1
