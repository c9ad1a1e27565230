"""Linear layers by oneDNN: the same values and gradients as PyTorch's, on whichever CPU runs the tests."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from isinglass.backends.torch.cpu import linear as module
from isinglass.backends.torch.cpu.linear import Linear, linear


@pytest.mark.parametrize(("out", "width"), [(48, 16), (16, 48), (3, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [True, False])
def test_values_and_gradients(monkeypatch, out: int, width: int, dtype: torch.dtype, frozen: bool) -> None:
    """Guards against a transposed product, and against a path that only some CPUs take and no test covers."""
    monkeypatch.setattr(module, "_IN_FP32", True)
    monkeypatch.setattr(module, "_IN_BF16", True)
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, gradient = (torch.randn(*s, generator=generator) for s in ((9, width), (out, width), (out,), (9, out)))
    found = []
    for function in (linear, F.linear):
        leaves = [x.clone().requires_grad_(), *(t.clone().requires_grad_(not frozen) for t in (weight, bias))]
        with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
            y = function(*leaves)
        y.backward(gradient.to(dtype))
        if function is linear:
            assert type(y.grad_fn).__name__ == "_OneDnnLinearBackward"
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    ours, plain = found
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2**-5}
    for one, other in zip(ours, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictions_follow_the_weights(monkeypatch, dtype: torch.dtype) -> None:
    """Guards against a weight that was cast for one prediction and is used for the next, after it has changed."""
    monkeypatch.setattr(module, "_IN_FP32", True)
    monkeypatch.setattr(module, "_IN_BF16", True)
    layer, x = Linear(16, 8), torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2**-6, "atol": 2**-5}
    with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
        for change in (lambda: None, lambda: layer.weight.data.copy_(torch.ones(8, 16)), optimizer.step):
            layer(x).float().sum().backward()
            change()
            with torch.inference_mode():
                assert layer(x).dtype == dtype
                torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), **close)
                torch.testing.assert_close(layer.gelu(x), F.gelu(F.linear(x, layer.weight, layer.bias)), **close)
            before = layer(x).detach()
            optimizer.step()
            with torch.no_grad():
                assert not torch.equal(layer(x), before)
