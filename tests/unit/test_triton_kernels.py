"""The Triton kernels and the layers built from them, by Triton's interpreter on a CPU (conftest.py), else on the GPU."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from isinglass.backends.protocol import UpdateRule
from isinglass.backends.torch import optimizer
from isinglass.backends.torch.batch import NO_DROPOUT
from isinglass.backends.torch.gpu.attention import KernelDropout, PlacedDropout, begin_dropout
from isinglass.backends.torch.gpu.triton import kernels, layers
from isinglass.backends.torch.gpu.triton.attention import TritonPlan
from isinglass.backends.torch.gpu.triton.layers import FusedLayers, why_not_fused
from isinglass.backends.torch.model import Classifier, Layer
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import load_checkpoint
from tests.interpreted import mend_products
from tests.tiny import save_tiny

mend_products()

DEVICE = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
HALVES = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
ROWS, H, PROGRAMS = 37, 24, 5


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def key_of(step: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(begin_dropout(seed, step, DEVICE)).to(DEVICE)


def training_plan(step: int) -> TritonPlan:
    """Return a plan for three examples in 64 rows, with the dropout of a step."""
    dropout = KernelDropout(key_of(step, seed=3))
    return TritonPlan.prepare(np.array([5, 9, 20]), 3, DEVICE, dropout)


@HALVES
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("given", ["both", "fp32", "half"])
def test_add_norm_is_dropout_sum_and_layer_norm(half: torch.dtype, rate: float, given: str):
    """Compares forward and backward with PyTorch, with the mask taken from the result itself."""
    x, residual, gain, bias = normal(ROWS, H, dtype=half), normal(ROWS, H, seed=1), normal(H, seed=2), normal(H, seed=3)
    dropout = PlacedDropout(rate, key_of(1), 7)
    out, out_half, statistics = kernels.add_norm(x, residual, gain, bias, 1e-5, dropout)
    kept = ((statistics.sum - residual).abs() > 1e-6) | (x == 0)
    assert bool(kept.all()) == (rate == 0)

    leaves = [tensor.clone().float().requires_grad_() for tensor in (x, residual, gain, bias)]
    dropped = leaves[0] * kept / (1 - rate)
    expected = F.layer_norm(leaves[1] + dropped, (H,), leaves[2], leaves[3], 1e-5)
    torch.testing.assert_close(out, expected.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(out_half, out.to(half))

    grad, grad_half = normal(ROWS, H, seed=4), normal(ROWS, H, dtype=half, seed=5)
    grads = {"both": (grad, grad_half), "fp32": (grad, None), "half": (None, grad_half)}[given]
    total = sum(each.float() for each in grads if each is not None)
    wide = torch.full((PROGRAMS, 3 * H + 4), 9.0, device=DEVICE)  # the kernel's columns are among others
    of_residual, of_x = kernels.add_norm_backward(*grads, statistics, gain, dropout, wide[:, 2 : 3 * H + 2], half)
    of_expected = torch.autograd.grad(expected, leaves, total)
    torch.testing.assert_close(of_residual, of_expected[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(of_x, of_expected[0].to(half), rtol=0.02, atol=1e-3)
    of_gain, of_bias, of_sum = kernels.column_sums(wide)[2 : 3 * H + 2].view(3, H)
    torch.testing.assert_close(of_gain, of_expected[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_bias, of_expected[3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_sum, of_expected[0].sum(0), rtol=1e-4, atol=2e-4)
    assert (wide[:, :2] == 9).all() and (wide[:, -2:] == 9).all()


def masks(step: int, place: int, rate: float, rows: int = 256, columns: int = 512) -> np.ndarray:
    ones, zeros = torch.ones(rows, columns, device=DEVICE, dtype=torch.float16), torch.zeros(rows, columns, device=DEVICE)
    dropout = PlacedDropout(rate, key_of(step), place)
    found = kernels.add_norm(ones, zeros, zeros[0], zeros[0], 1e-5, dropout)[2].sum.cpu().numpy()
    np.testing.assert_allclose(found[found > 0], 1 / (1 - rate), rtol=1e-6)
    return (found > 0).astype(np.float64)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_masks_keep_their_rate_and_are_independent(rate: float):
    """The rate is within 5 standard deviations. Neighbours, rows, places and steps must be uncorrelated."""
    one = masks(1, 0, rate)
    deviation = np.sqrt(rate * (1 - rate) / one.size)
    assert one.mean() == pytest.approx(1 - rate, abs=5 * deviation)
    np.testing.assert_array_equal(one, masks(1, 0, rate))
    centred = one - one.mean()
    others = [masks(1, 1, rate), masks(2, 0, rate)]
    pairs = [(centred, other - other.mean()) for other in others]
    pairs += [(centred[:, lag:], centred[:, :-lag]) for lag in (1, 2, 3, 4, 128)] + [(centred[1:], centred[:-1])]
    for a, b in pairs:
        assert abs((a * b).mean()) / (rate * (1 - rate)) < 5 / np.sqrt(a.size)


@HALVES
def test_gelu_backward_and_its_sums(half: torch.dtype):
    x, grad = normal(ROWS, 40, dtype=half), normal(ROWS, 40, dtype=half, seed=1)
    partial = torch.empty(PROGRAMS, 40, device=DEVICE)
    found = kernels.gelu_backward(grad, x, partial)
    leaf = x.float().requires_grad_()
    (expected,) = torch.autograd.grad(F.gelu(leaf), leaf, grad.float())
    torch.testing.assert_close(found, expected.to(half), rtol=0.01, atol=1e-3)
    torch.testing.assert_close(kernels.column_sums(partial), expected.sum(0), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def layer(tmp_path_factory) -> Layer:
    blueprint = load_checkpoint(save_tiny(tmp_path_factory.mktemp("model"), "bert", labels=("a", "b"))).blueprint
    torch.manual_seed(0)
    return Layer(blueprint, 0).to(DEVICE)


@pytest.fixture(autouse=True)
def products_in_half(monkeypatch):
    """Disable products with an fp32 result on a CPU, where PyTorch has none for half precision."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(layers, "_WRITES_FP32", False)


@HALVES
def test_a_fused_layer_does_what_the_layer_does(layer: Layer, half: torch.dtype):
    """Outputs and all gradients must agree to half precision. The same check runs before each training on a GPU."""
    assert why_not_fused([layer], 3, half) is None


def test_a_fused_layer_that_computes_something_else_is_found_out(layer: Layer, monkeypatch):
    kernel = kernels.gelu_backward
    monkeypatch.setattr(kernels, "gelu_backward", lambda grad, x, partial: kernel(grad, x + 0.2, partial))
    assert "off" in why_not_fused([layer], 3, torch.bfloat16)

    def fails(*_: object) -> None:
        raise RuntimeError("no kernel image\nand more")

    monkeypatch.setattr(kernels, "gelu_backward", fails)
    assert "no kernel image" in why_not_fused([layer], 3, torch.bfloat16)


def test_layers_in_a_row_have_masks_of_their_own(layer: Layer):
    """The masks of a step must also be the same each time."""
    x = normal(64, H)

    def run(step: int, number: int) -> torch.Tensor:
        plan = training_plan(step)
        out = FusedLayers([layer] * number, torch.bfloat16)(x, plan).detach()
        assert plan.dropout.at_next_place(0.1).place == 3 * number
        return out

    assert torch.equal(run(1, 2), run(1, 2)) and not torch.equal(run(1, 2), run(2, 2))


def test_fused_layers_predict_as_plain_ones(layer: Layer):
    """Prediction has no dropout to draw, and casts the weights by itself."""
    plan, x = dataclasses.replace(training_plan(1), dropout=NO_DROPOUT), normal(64, H)
    with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
        found = FusedLayers([layer, layer], torch.bfloat16)(x.clone(), plan)
        expected = layer(layer(x.clone(), plan, None), plan, None)
    assert torch.equal(found, expected)


def test_halves_are_cast_when_weights_are_loaded_and_after_each_step(tmp_path):
    """Small weights after the step, large ones by the kernel that steps them; frozen weights stay as they are."""
    checkpoint = load_checkpoint(save_tiny(tmp_path, "bert", labels=("a", "b")))
    model = Classifier(checkpoint.blueprint, 2).to(DEVICE)
    but_last: Any = model.layers[:-1]
    model.fused = FusedLayers(but_last, torch.bfloat16)
    model.load(checkpoint.weights, 0)
    for weight, half in model.fused.halves.items():
        assert torch.equal(half, weight.bfloat16())
    large, small, frozen = but_last[0].qkv.weight, but_last[0].output.weight, but_last[0].output.bias
    rules = [(weight, UpdateRule(float(weight is not frozen), decays=False)) for weight in (large, small, frozen)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer, "LARGE", large.numel())
        stepper = optimizer.Optimizer(rules, TrainConfig(), model.fused.halves, scales_loss=False)
    before = {weight: half.clone() for weight, half in model.fused.halves.items()}
    large.grad, small.grad = torch.ones_like(large), torch.ones_like(small)
    for group in stepper._groups:  # as on a GPU, whose kernels read the rate from memory
        group["lr"] = torch.tensor(0.1, device=DEVICE)
    stepper.step()
    for weight in (large, small):
        half = model.fused.halves[weight]
        torch.testing.assert_close(half, weight.detach().bfloat16())  # Triton's interpreter cuts bits off
        assert not torch.equal(half, before[weight])
    assert torch.equal(model.fused.halves[frozen], before[frozen])


def test_other_activations_are_not_fused(layer: Layer, monkeypatch):
    monkeypatch.setattr(layer, "activation", F.relu)
    assert "GELU" in why_not_fused([layer], 3, torch.bfloat16)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_pytorchs(decay: float):
    """Compares 30 steps of different gradients, learning rates and scales, from the first step on."""
    weight = normal(3000)
    expected = weight.clone().requires_grad_()
    betas, eps = (0.9, 0.999), 1e-8
    theirs = torch.optim.AdamW([expected], lr=1.0, betas=betas, eps=eps, weight_decay=decay)
    mean, square, half = torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros_like(weight, dtype=torch.bfloat16)
    for step in range(1, 31):
        grad, scale, rate = normal(3000, seed=step) * 1e-3, torch.tensor(1 + step / 7), 1e-2 / step
        expected.grad = grad / scale.to(DEVICE)
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
        corrections = torch.tensor([1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5], device=DEVICE)
        rate, scale = torch.tensor(rate, device=DEVICE), scale.to(DEVICE)
        given = {"half": half} if step % 2 == 0 else {}
        kernels.adamw(weight, mean, square, grad, scale, rate, corrections, betas=betas, eps=eps, decay=decay, **given)
    torch.testing.assert_close(half, weight.bfloat16())
    torch.testing.assert_close(weight, expected.detach(), rtol=1e-5, atol=1e-6)
