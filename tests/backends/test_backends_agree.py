"""All backends train alike: the same losses and weights from the same batches, exact resuming, few programs."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.models.checkpoint import load_checkpoint
from isinglass.models.source import load_model
from isinglass.packing import plan_epoch
from isinglass.tasks import TASKS
from isinglass.training.loop import learning_rate
from isinglass.training.preparation import Packer, prepare_split
from tests.backends.variants import KERAS, VARIANTS, backend_for, pack
from tests.tiny import ARCHITECTURES, random_tokens, save_tiny, types_of, write_glue

STEPS = 20


def train_steps(backend, variant: str, tokens, labels, config: TrainConfig) -> list[float]:
    for step, index in enumerate(plan_epoch(len(tokens), config.batch_size, seed=1, epoch=0)):
        rate = learning_rate(config, step, STEPS)
        backend.train_step([pack(variant, tokens, index, labels)], step=step, learning_rate=rate)
    return backend.take_losses()


@pytest.mark.parametrize("num_outputs", [3, 1])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_twenty_steps_lead_to_the_same_weights(family: str, num_outputs: int, tmp_path) -> None:
    """Guards against a different epsilon, decay, clipping or bias correction, and a last batch divided by a wrong number."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, family))
    rng = np.random.default_rng(0)
    tokens = random_tokens(list(rng.integers(3, 30, 8 * STEPS - 3)), types=types_of(family))
    labels = rng.integers(0, 3, len(tokens)) if num_outputs > 1 else rng.uniform(0, 5, len(tokens)).astype(np.float32)
    settings = {"batch_size": 8, "learning_rate": 1e-3, "weight_decay": 0.1, "warmup_ratio": 0.1, "dropout": 0.0}
    found = {}
    for variant in VARIANTS:
        backend = backend_for(variant, checkpoint, num_outputs, **settings)
        losses = train_steps(backend, variant, tokens, labels, TrainConfig(**settings))
        found[variant] = losses, backend.weights()
    expected_losses, expected_weights = found.pop(VARIANTS[0])
    for variant, (losses, weights) in found.items():
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
        assert weights.keys() == expected_weights.keys()
        for name, expected in expected_weights.items():
            if ".key.bias" in name:  # the softmax ignores it: its gradient is rounding
                continue
            difference = np.linalg.norm(weights[name] - expected) / np.linalg.norm(expected)
            assert difference <= 1e-4, f"{variant}, {name}: {difference:.1e}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_restored_backend_continues_bit_for_bit(variant: str, tmp_path) -> None:
    """With all dropout on: a run resumed from a checkpoint must end as one that was not stopped."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert"))
    rng = np.random.default_rng(0)
    tokens, labels = random_tokens([7] * 24), rng.integers(0, 3, 24)
    batches = [pack(variant, tokens, np.arange(start, start + 8), labels) for start in (0, 8, 16)]
    first, second = (backend_for(variant, checkpoint, batch_size=8, weight_decay=0.1) for _ in range(2))
    first.train_step(batches[:1], step=0, learning_rate=1e-3)
    second.restore({name: array.copy() for name, array in first.state().items()})
    for backend in (first, second):
        for step in (1, 2):
            backend.train_step(batches[step : step + 1], step=step, learning_rate=1e-3)
    assert first.take_losses()[1:] == second.take_losses()
    resumed = second.weights()
    for name, expected in first.weights().items():
        np.testing.assert_array_equal(resumed[name], expected, err_msg=name)


def test_dropout_has_its_rate_and_is_a_function_of_seed_step_and_part() -> None:
    from keras import ops

    from isinglass.backends.keras.dropout import DropoutMasks, dropout, step_key

    def draw(seed: int, step: int, draws: int = 1, part: int = 0) -> np.ndarray:
        masks = DropoutMasks(ops.convert_to_tensor(step_key(seed, step, part)))
        for _ in range(draws):
            kept = np.asarray(masks.draw((1000, 1000), 0.1))
        return kept

    assert abs(draw(1, 1).mean() - 0.9) < 4 * np.sqrt(0.09 / 1e6)
    np.testing.assert_array_equal(draw(1, 5), draw(1, 5))
    others = [draw(1, 5), draw(5, 1), draw(1, 6), draw(1, 5, draws=2), draw(1, 5, part=1), draw(1, 5, part=2)]
    for i, one in enumerate(others):
        for other in others[:i]:
            correlation = np.mean((one - 0.9) * (other - 0.9)) / 0.09
            assert abs(correlation) < 5 / 1000
    ones = np.asarray(dropout(ops.ones((1000, 1000)), 0.1, DropoutMasks(ops.convert_to_tensor(step_key(1, 1)))))
    assert abs(ones.mean() - 1) < 1e-3
    assert np.unique(ones).tolist() == [0.0, pytest.approx(65536 / (65536 - 6554))]
    assert abs(np.corrcoef(draw(1, 5)[:, ::2].ravel(), draw(1, 5)[:, 1::2].ravel())[0, 1]) < 5 / 700, "halves of one word"


def test_an_epoch_of_mrpc_needs_at_most_four_training_programs(glue_dir) -> None:
    """XLA compiles each batch shape. There must be a handful of shapes: few sizes of rows, and short batches are padded."""
    config = TrainConfig(task="mrpc", backend=KERAS, data_dir=str(glue_dir))
    task = TASKS["mrpc"]
    checkpoint = replace(load_model("demo"), label_names=task.labels)
    tokens = prepare_split(open_data(config), task.train, config, checkpoint).tokens
    packer = Packer(config, checkpoint)
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


def test_a_step_in_micro_batches_leaves_the_weights_of_a_whole_one(tmp_path) -> None:
    """Guards against equal weights for micro-batches of unequal size, clipping of each micro-batch, or an update of each."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "electra"))
    rng = np.random.default_rng(0)
    tokens, labels = random_tokens(list(rng.integers(3, 9, 15))), rng.integers(0, 3, 15)  # short texts: few shapes to trace
    settings = {"batch_size": 8, "max_length": 32, "weight_decay": 0.1, "dropout": 0.0, "max_grad_norm": 0.1}
    packer = Packer(TrainConfig(backend=KERAS, **settings), checkpoint)
    found = []
    for parts in (1, 2, 3):
        backend = backend_for(f"{KERAS}-rows", checkpoint, **settings)
        whole_steps = (np.arange(8), np.arange(8, 15))  # the micro-batches of the second step differ in size
        steps = [packer.pack_parts(tokens, index, labels, parts) for index in whole_steps]
        for step, batches in enumerate(steps):
            backend.train_step(batches, step=step, learning_rate=1e-3)
        found.append((backend.take_losses(), backend.weights()))
        shapes = {batch.input_ids.shape for batches in steps for batch in batches}
        assert backend.compilations == len(shapes) + (parts > 1), "one more that updates, where there are parts"
    (whole_losses, whole), *others = found
    for losses, weights in others:
        np.testing.assert_allclose(losses, whole_losses, rtol=2e-6)
        for name, expected in whole.items():
            if ".key.bias" not in name:  # softmax ignores this bias: its gradient is only rounding error
                assert np.linalg.norm(weights[name] - expected) <= 1e-5 * np.linalg.norm(expected), name


MEMORY = """
import json, resource, sys
from pathlib import Path
import numpy as np
from isinglass.backends.keras.backend import KerasBackend
from isinglass.config import resolve
from isinglass.errors import DeviceMemoryError
from isinglass.training.trainer import train

megabytes = int(sys.argv[4])
step, changed = KerasBackend.train_step, []

def step_in_little_memory(backend, *arguments, **named):
    before = {name: array.copy() for name, array in backend.state().items()}
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    if megabytes:
        resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), unlimited[1]))
    try:
        step(backend, *arguments, **named)
    except DeviceMemoryError:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
        state = backend.state().items()  # the learning rate, a scalar, is set before the step
        changed.extend(name for name, array in state if array.ndim and not np.array_equal(array, before[name]))
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)

KerasBackend.train_step = step_in_little_memory
flags = {"data_dir": sys.argv[1], "model": sys.argv[2], "backend": sys.argv[3], "batch_size": 1500, "max_length": 24}
run = train(resolve(task="mrpc", flags=flags | {"epochs": 2, "learning_rate": 1e-3, "weight_decay": 0.1, "dropout": 0.0}))
print(json.dumps([run.result.notes, [step.loss for step in run.steps], run.result.compilations, changed]))
"""


@pytest.mark.slow
def test_a_step_that_finds_no_memory_is_done_in_micro_batches_with_the_same_result(tmp_path) -> None:
    """Both the limit on the address space and the refusal of TensorFlow's or JAX's allocator are real.

    Which allocation reaches the limit first depends on the CPU. In an allocation of their own the frameworks abort or hang
    (docs/experiments.md). So the limit is raised until a run ends.
    """
    data = write_glue(TASKS["mrpc"], tmp_path / "glue", rows={"train": 1500, "dev": 8, "test": 1})
    model = save_tiny(tmp_path / "model")
    env = os.environ | {"KERAS_BACKEND": KERAS, "MALLOC_ARENA_MAX": "1"}  # an arena takes 64 MB of the address space

    def run(megabytes: int) -> list[object] | None:
        command = [sys.executable, "-c", MEMORY, str(data), str(model), KERAS, str(megabytes)]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired:
            return None
        assert megabytes or done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout) if done.returncode == 0 else None

    whole_notes, whole_losses, whole_programs, _ = run(0)
    limited = next(filter(None, map(run, range(800, 2600, 200))), None)
    assert limited is not None, "under no limit did a run end"
    notes, losses, programs, changed = limited
    assert (whole_notes, whole_programs) == ([], 1)
    assert re.search(r"Step 0: 1500 examples do not fit into the memory of CPU: .*\. Steps are cut into 2 micro-", notes[0])
    assert changed == [], "neither weight decay nor anything else comes before the memory sufficed"
    assert programs == 2 + len(notes), "the whole step, one for each size of parts, and one that updates"
    np.testing.assert_allclose(losses, whole_losses, rtol=0, atol=1e-5)
