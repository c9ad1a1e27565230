"""Loss functions and updated weights: each backend against formulas written in NumPy, and against the other backend."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from isinglass.backends.protocol import Objective, UpdateRule
from isinglass.config import TrainConfig
from isinglass.models.blueprint import Parameter
from isinglass.models.checkpoint import load_checkpoint
from tests.backends.gradients import loss_and_gradients
from tests.backends.variants import KERAS, VARIANTS, backend_for, in_file_order, pack
from tests.tiny import random_tokens, save_tiny

LENGTHS = [3, 9, 5, 12, 7, 4, 8, 6]
WEIGHTS = (0.5, 2.0, 1.5)


def weighted(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    """Return the mean over the examples of the smoothed cross entropy times the weight of the example's class."""
    targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    losses = -(targets * log_softmax(logits.astype(np.float64), axis=1)).sum(1)
    return float((losses * np.array(WEIGHTS)[labels]).mean())


def several(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    """Return the mean binary cross entropy over examples and outputs, with the term of a present label times its weight."""
    targets = labels * (1 - smoothing) + smoothing / 2
    chances = expit(logits.astype(np.float64))
    return float(-(np.array(WEIGHTS) * targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_the_loss_is_what_the_objective_says(kind: str, variant: str, tmp_path) -> None:
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert"))
    tokens, rng = random_tokens(LENGTHS), np.random.default_rng(0)
    if kind == "multilabel":
        labels, expected = rng.integers(0, 2, (8, 3)).astype(np.float32), several
    else:
        labels, expected = rng.integers(0, 3, 8), weighted
    objective = Objective(kind=kind, num_outputs=3, class_weights=WEIGHTS, label_smoothing=0.2)
    backend = backend_for(variant, checkpoint, objective=objective, batch_size=8, dropout=0.0)
    batch = pack(variant, tokens, np.arange(8), labels)
    logits = in_file_order(batch, backend.predict([batch])[0])
    assert loss_and_gradients(backend, batch)[0] == pytest.approx(expected(logits, labels, 0.2), rel=1e-5)


def test_both_frameworks_learn_several_labels_alike(tmp_path) -> None:
    """Fails if weights differ after ten steps with class weights, smoothing, layer decay, frozen layers and weight decay."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "electra"))
    rng = np.random.default_rng(1)
    tokens, labels = random_tokens(list(rng.integers(3, 30, 40))), rng.integers(0, 2, (40, 3)).astype(np.float32)
    objective = Objective(kind="multilabel", num_outputs=3, class_weights=WEIGHTS, label_smoothing=0.1)
    settings = {"batch_size": 8, "dropout": 0.0, "weight_decay": 0.1, "layer_decay": 0.5, "freeze_layers": 1}
    found = []
    for variant in ("torch-flat", f"{KERAS}-rows"):
        backend = backend_for(variant, checkpoint, objective=objective, **settings)
        for step in range(10):
            index = np.arange(8) + 8 * (step % 5)
            backend.train_step([pack(variant, tokens, index, labels)], step=step, learning_rate=1e-3)
        found.append((backend.take_losses(), backend.weights()))
    (losses, weights), (other_losses, other_weights) = found
    np.testing.assert_allclose(other_losses, losses, rtol=1e-4)
    for name, expected in weights.items():
        frozen = name.startswith(("embeddings", "encoder.layer.0."))
        assert np.array_equal(expected, checkpoint.weights.get(name)) == frozen, name
        if ".key.bias" not in name:  # softmax ignores this bias: its gradient is only rounding error
            assert np.linalg.norm(other_weights[name] - expected) <= 1e-4 * np.linalg.norm(expected), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_lower_layer_moves_by_its_share_of_the_rate(variant: str, tmp_path) -> None:
    """AdamW's first step moves each weight by its learning rate, whatever its gradient: the ratio of steps is the decay."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert", labels=("a", "b", "c")))
    tokens, labels = random_tokens(LENGTHS), np.arange(8) % 3
    backend = backend_for(variant, checkpoint, batch_size=8, dropout=0.0, layer_decay=0.5, max_grad_norm=1e9)
    before = backend.weights()
    backend.train_step([pack(variant, tokens, np.arange(8), labels)], step=0, learning_rate=1e-3)
    after = backend.weights()

    def moved(name: str) -> float:
        return float(np.abs(after[name] - before[name]).max())

    assert moved("head.output.weight") == pytest.approx(1e-3, rel=1e-2)
    assert moved("encoder.layer.1.output.dense.weight") == pytest.approx(5e-4, rel=1e-2)
    assert moved("encoder.layer.0.output.dense.weight") == pytest.approx(2.5e-4, rel=1e-2)
    assert moved("embeddings.word_embeddings.weight") == pytest.approx(1.25e-4, rel=1e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_can_be_put_back(variant: str, tmp_path) -> None:
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert"))
    tokens, labels = random_tokens(LENGTHS), np.arange(8) % 3
    backend = backend_for(variant, checkpoint, batch_size=8)
    batch = pack(variant, tokens, np.arange(8), labels)
    weights, logits = backend.weights(), backend.predict([batch])[0]
    backend.train_step([batch], step=0, learning_rate=1e-2)
    assert not np.array_equal(backend.predict([batch])[0], logits)
    backend.load(weights)
    np.testing.assert_array_equal(backend.predict([batch])[0], logits)


def test_factors_of_the_learning_rate() -> None:
    def factors(**settings: object) -> list[float]:
        parameters = [Parameter("x", "matrix", (2, 2), depth) for depth in range(4)]
        return [UpdateRule.of(parameter, 2, TrainConfig(**settings)).rate_factor for parameter in parameters]

    assert factors() == [1, 1, 1, 1]
    assert factors(layer_decay=0.5) == [0.125, 0.25, 0.5, 1]
    assert factors(freeze_embeddings=True) == [0, 1, 1, 1]
    assert factors(freeze_layers=2) == [0, 0, 0, 1]
