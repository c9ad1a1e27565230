"""Both frameworks from the same weights over the same batches: the same curve, the same weights, few programs."""

import numpy as np
import pytest

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.models.checkpoint import load_checkpoint
from isinglass.models.source import load_model
from isinglass.packing import plan_epoch
from isinglass.tasks import TASKS
from isinglass.training.loop import Packer
from isinglass.training.preparation import prepare_split
from isinglass.training.schedule import learning_rate
from tests.backends.variants import KERAS, backend_for, pack
from tests.tiny import FAMILIES, random_tokens, save_tiny

STEPS = 20


def train_steps(backend, variant: str, tokens, labels, config: TrainConfig) -> list[float]:
    for step, index in enumerate(plan_epoch(len(tokens), config.batch_size, seed=1, epoch=0)):
        rate = learning_rate(config, step, STEPS)
        backend.train_step([pack(variant, tokens, index, labels)], step=step, learning_rate=rate)
    return backend.take_losses()


@pytest.mark.parametrize("num_outputs", [3, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_steps_lead_to_the_same_weights(family: str, num_outputs: int, tmp_path) -> None:
    """Guards against another epsilon, decay, clipping, bias correction or a last batch divided by the wrong number."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, family))
    rng = np.random.default_rng(0)
    tokens = random_tokens(list(rng.integers(3, 30, 8 * STEPS - 3)), types=1 if family == "roberta" else 2)
    labels = rng.integers(0, 3, len(tokens)) if num_outputs > 1 else rng.uniform(0, 5, len(tokens)).astype(np.float32)
    settings = {"batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_ratio": 0.1, "dropout": 0.0}
    found = {}
    for variant in ("torch-flat", f"{KERAS}-rows"):
        backend = backend_for(variant, checkpoint, num_outputs, **settings)
        losses = train_steps(backend, variant, tokens, labels, TrainConfig(**settings))
        found[variant] = losses, backend.weights()
    (torch_losses, torch_weights), (keras_losses, keras_weights) = found.values()
    np.testing.assert_allclose(keras_losses, torch_losses, rtol=1e-4)
    assert keras_weights.keys() == torch_weights.keys()
    for name, expected in torch_weights.items():
        difference = np.linalg.norm(keras_weights[name] - expected)
        scale = np.linalg.norm(expected)
        if ".key.bias" in name:  # softmax does not see it: its gradient is rounding alone
            continue
        assert difference <= 1e-4 * scale, f"{name}: {difference / scale:.1e}"


def test_dropout_has_its_rate_and_is_a_function_of_seed_and_step() -> None:
    from keras import ops

    from isinglass.backends.keras.dropout import DropoutMasks, dropout, step_key

    def draw(seed: int, step: int, draws: int = 1) -> np.ndarray:
        masks = DropoutMasks(ops.convert_to_tensor(step_key(seed, step)))
        for _ in range(draws):
            kept = np.asarray(masks.draw((1000, 1000), 0.1))
        return kept

    assert abs(draw(1, 1).mean() - 0.9) < 4 * np.sqrt(0.09 / 1e6)
    np.testing.assert_array_equal(draw(1, 5), draw(1, 5))
    others = [draw(1, 5), draw(5, 1), draw(1, 6), draw(1, 5, draws=2)]
    for i, one in enumerate(others):
        for other in others[:i]:
            correlation = np.mean((one - 0.9) * (other - 0.9)) / 0.09
            assert abs(correlation) < 5 / 1000
    ones = np.asarray(dropout(ops.ones((1000, 1000)), 0.1, DropoutMasks(ops.convert_to_tensor(step_key(1, 1)))))
    assert abs(ones.mean() - 1) < 1e-3
    assert np.unique(ones).tolist() == [0.0, pytest.approx(1 / 0.9)]


def test_an_epoch_of_mrpc_needs_at_most_four_training_programs(glue_dir) -> None:
    """Rows come in few sizes, and a short last batch is filled up: XLA compiles a handful of programs, not hundreds."""
    config = TrainConfig(task="mrpc", backend=KERAS, data_dir=str(glue_dir))
    checkpoint, task = load_model("demo"), TASKS["mrpc"]
    tokens = prepare_split(open_data(config), task.train, config, checkpoint, task.labels).tokens
    packer = Packer.of(config, checkpoint)
    shapes = {packer.pack(tokens, index, None).input_ids.shape for index in plan_epoch(len(tokens), 32, seed=42, epoch=0)}
    assert len(shapes) <= 4


def test_programs_are_counted_by_the_shapes_they_were_traced_for(tmp_path) -> None:
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert"))
    backend = backend_for(f"{KERAS}-rows", checkpoint, batch_size=4)
    tokens, labels = random_tokens([5] * 12, types=1), np.zeros(12, np.int64)
    for step, (start, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        backend.train_step([pack(KERAS, tokens, np.arange(start, stop), labels)], step=step, learning_rate=1e-5)
    assert backend.compilations == 1
    assert backend.compile_seconds > 0
    assert len(backend.take_losses()) == 3
