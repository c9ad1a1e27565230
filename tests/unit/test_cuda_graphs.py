"""Training steps recorded as CUDA graphs give the same results as steps launched kernel by kernel. Needs a GPU."""

import numpy as np
import pytest
import torch

from isinglass.backends.protocol import Objective, create_backend
from isinglass.backends.torch.gpu.attention import begin_dropout
from isinglass.backends.torch.gpu.backend import GpuBackend
from isinglass.backends.torch.gpu.graphs import StepGraphs, Tensors
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import Checkpoint, load_checkpoint
from isinglass.packing import PackedBatch, pack_flat
from tests.tiny import random_tokens, save_tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
LENGTHS = ([5, 9, 30], [40, 50, 60, 64], [1], [60, 20, 30, 50])  # of the batches, which the steps use in turn
STEPS = 4 * len(LENGTHS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    return load_checkpoint(save_tiny(tmp_path_factory.mktemp("model"), "bert", labels=("a", "b", "c")))


def batches() -> list[PackedBatch]:
    labels = np.array([0, 1, 2, 1])
    return [pack_flat(random_tokens(each, i), np.arange(len(each)), labels) for i, each in enumerate(LENGTHS)]


def backend_on_gpu(checkpoint: Checkpoint, precision: str, *, records: bool) -> GpuBackend:
    config = TrainConfig(precision=precision, learning_rate=1e-3, weight_decay=0.01, layer_decay=0.9)
    backend = create_backend(config, checkpoint, Objective(kind="classification", num_outputs=3))
    assert isinstance(backend, GpuBackend)
    if not records:
        backend._graphs = None
    return backend


def train(backend: GpuBackend, steps: range) -> list[float]:
    found = batches()
    for step in steps:
        backend.train_step([found[step % len(found)]], step=step, learning_rate=1e-3 * (1 - step / STEPS))
    return backend.take_losses()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_recorded_steps_do_what_launched_ones_do(checkpoint: Checkpoint, precision: str):
    """Covers all kinds of dropout, a learning rate that differs between steps and layers, and four shapes in turn."""
    recorded, launched = (backend_on_gpu(checkpoint, precision, records=records) for records in (True, False))
    losses = [train(backend, range(STEPS)) for backend in (recorded, launched)]
    assert recorded.compilations == 4 and recorded.notes == launched.notes == []
    assert (recorded._model.fused is not None) == (precision in ("bf16", "fp16"))
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert len(set(losses[0])) == STEPS, "a loss that is handed out twice was overwritten by a later replay"
    begun = backend_on_gpu(checkpoint, precision, records=False).weights()
    for (name, found), expected in zip(recorded.weights().items(), launched.weights().values(), strict=True):
        if name.endswith("key.bias"):
            continue  # its gradient is only rounding error, which AdamW scales up to a whole step
        moved = float(np.abs(expected - begun[name]).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * moved + 1e-7, err_msg=name)


def test_a_run_taken_up_again_goes_on_as_it_would_have(checkpoint: Checkpoint):
    """Restoring creates new tensors for the moments, so graphs that were recorded before must not be replayed."""
    whole = backend_on_gpu(checkpoint, "bf16", records=True)
    expected = train(whole, range(STEPS))
    backend = backend_on_gpu(checkpoint, "bf16", records=True)
    train(backend, range(STEPS // 2))
    state = {name: array.copy() for name, array in backend.state().items()}
    train(backend, range(3))
    backend.restore(state)
    np.testing.assert_allclose(train(backend, range(STEPS // 2, STEPS)), expected[STEPS // 2 :], rtol=1e-4)


def test_a_step_that_cannot_be_recorded_is_launched_and_the_reason_kept():
    device = torch.device("cuda", torch.cuda.current_device())
    graphs = StepGraphs(device)

    def step(tensors: Tensors) -> torch.Tensor:
        drawn = torch.rand(1, device=device)
        return drawn + float(tensors["tokens"]["x"].sum())  # copies a number from the device

    begin_dropout(1, 1, device)
    expected = float(torch.rand(1, device=device))
    for value in (2.0, 3.0, 4.0):
        begin_dropout(1, 1, device)
        assert float(graphs.run("key", {"tokens": {"x": np.array([value])}}, step)) == pytest.approx(value + expected)
    assert graphs.refusal is not None and len(graphs) == 0
    assert torch.ones(2, device=device).sum().item() == 2, "the device goes on"
