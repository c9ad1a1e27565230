"""The GPU engine, run on a CPU by Triton's interpreter without CUDA: it trains the same as the CPU engine."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from isinglass.backends.protocol import Objective
from isinglass.backends.torch.backend import TorchBackend
from isinglass.backends.torch.cpu.backend import CpuBackend
from isinglass.backends.torch.gpu.attention import PaddedPlan
from isinglass.backends.torch.gpu.backend import GpuBackend
from isinglass.backends.torch.gpu.triton import layers
from isinglass.backends.torch.gpu.triton.attention import TritonPlan
from isinglass.backends.torch.model import Classifier
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import load_checkpoint
from tests.backends.variants import pack
from tests.interpreted import mend_products
from tests.tiny import random_tokens, save_tiny

mend_products()
CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the other tests run it")


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a pretended GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(layers, "_WRITES_FP32", False)


def backend_on(kind: type[CpuBackend | GpuBackend], path, **settings: object) -> TorchBackend:
    """Return a backend without dropout, because each device draws masks in its own way."""
    config = TrainConfig(dropout=0.0, weight_decay=0.01, **settings)
    checkpoint = load_checkpoint(path)
    model = Classifier(checkpoint.blueprint.with_dropout(0.0), 3)
    model.load(checkpoint.weights, config.seed)
    objective = Objective(kind="classification", num_outputs=3)
    if kind is CpuBackend:
        return CpuBackend(config, model, objective, None)
    return GpuBackend(config, model, objective, None, CPU)


def train(backend: TorchBackend, variant: str) -> tuple[list[float], np.ndarray]:
    """Train four steps on batches of different shapes, the last in two micro-batches, and predict."""
    tokens, labels = random_tokens([5, 9, 30, 40, 12, 3, 64, 20, 7, 7, 31, 2], 1), np.arange(12) % 3
    steps = [[[0, 1, 2]], [[3, 4]], [[5, 6, 7, 8]], [[9, 10], [11]]]
    for step, parts in enumerate(steps):
        batches = [pack(variant, tokens, np.array(part), labels) for part in parts]
        backend.train_step(batches, step=step, learning_rate=1e-3)
    (logits,) = backend.predict([pack(variant, tokens, np.arange(12), None)])
    return backend.take_losses(), logits


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.08)])
def test_flat_batches_train_as_on_a_cpu(tmp_path, precision: str, tolerance: float):
    """Covers staging, gradients of words and micro-batches.

    The attention is padded in fp32. In bf16 it is Triton's, and the layers are fused.
    """
    path = save_tiny(tmp_path, "bert", labels=("a", "b", "c"))
    rehearsed, expected = (backend_on(kind, path, precision=precision) for kind in (GpuBackend, CpuBackend))
    assert rehearsed._flat_plan is (PaddedPlan if precision == "fp32" else TritonPlan)
    assert (rehearsed._model.fused is not None) == (precision == "bf16") and rehearsed.notes == []
    for found, wanted in zip(train(rehearsed, "torch-flat"), train(expected, "torch-flat"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_batches_of_rows_train_as_on_a_cpu(tmp_path):
    path = save_tiny(tmp_path, "bert", labels=("a", "b", "c"))
    rehearsed, expected = (backend_on(kind, path, layout="rows") for kind in (GpuBackend, CpuBackend))
    for found, wanted in zip(train(rehearsed, "torch-rows"), train(expected, "torch-rows"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_key_holds_all_that_a_recorded_step_depends_on(tmp_path):
    """Batches of one shape must share a key. Another number of rows or examples, or a longer example, must change it."""
    backend = backend_on(GpuBackend, save_tiny(tmp_path, "bert", labels=("a", "b", "c")))
    tokens = random_tokens([10, 20, 20, 10, 15, 15, 30, 70, 1], 1)

    def key(*index: int):
        return backend._shape(pack("torch-flat", tokens, np.array(index), None))

    assert key(0, 1) == key(2, 3) == key(4, 5)
    assert len({key(0, 1), key(6), key(0, 1, 2, 3, 4), key(7), key(0, 1, 8)}) == 5
