"""bf16 products computed in fp32 arithmetic: the numerics of bf16, forward and backward."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isinglass.backends.torch.cpu.linear import WidenedProducts


def products(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b, bias = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in ((7, 33), (33, 5), (5,)))
    batch = torch.randn((3, 7, 33), generator=generator).to(dtype).requires_grad_()
    found = [
        a @ b,
        torch.addmm(bias, a, b),
        torch.bmm(batch, b.expand(3, -1, -1)),
        torch.baddbmm(bias, batch, b.expand(3, -1, -1), alpha=0.5),
    ]
    with torch.no_grad():  # as in a gradient written by hand
        found.append(
            torch.full((3, 7, 5), float("nan"), dtype=dtype).baddbmm_(batch, b.expand(3, -1, -1), beta=0, alpha=0.5)
        )
    sum(one.float().square().sum() for one in found).backward()
    return [*(one.detach() for one in found), *(leaf.grad for leaf in (a, b, bias, batch))]


def test_widened_products_are_those_of_bf16() -> None:
    """Guards against a product that is not rounded, or is rounded twice. One unit in the last of 8 bits is allowed."""
    plain = products(torch.bfloat16)
    with WidenedProducts():
        widened = products(torch.bfloat16)
    for one, other in zip(widened, plain, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other.float(), rtol=2**-7, atol=2**-5)


class Recorder(TorchDispatchMode):
    """A dispatch mode that records the dtypes in which products are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        if any(name in str(func) for name in ("mm", "linear", "matmul")):
            self.kinds |= {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("bias", [True, False])
def test_no_product_of_a_model_escapes(context, bias: bool) -> None:
    """Guards against products that are not intercepted, which made evaluation seven times slower than necessary."""
    layer, x = torch.nn.Linear(8, 4, bias=bias), torch.randn(2, 3, 8)
    recorder = Recorder()
    with context(), recorder, WidenedProducts(), torch.autocast("cpu", torch.bfloat16):
        flat, batched = layer(x[0]), layer(x)
        attended = torch.bmm(batched, batched.transpose(1, 2))
        with torch.no_grad():
            torch.empty_like(attended).baddbmm_(batched, batched.transpose(1, 2), beta=0)
    assert {one.dtype for one in (flat, batched, attended)} == {torch.bfloat16}
    assert recorder.kinds == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_are_left_alone(dtype: torch.dtype) -> None:
    plain = products(dtype)
    with WidenedProducts():
        widened = products(dtype)
    for one, other in zip(widened, plain, strict=True):
        assert torch.equal(one, other)
