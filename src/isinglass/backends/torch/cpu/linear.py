"""y = x W^T + b, by the library that multiplies fastest on this CPU.

PyTorch gives fp32 products to MKL, which on AMD's processors computes in AVX2 even where they have AVX-512; oneDNN, which
PyTorch brings too, is more than twice as fast there. In bf16 PyTorch takes oneDNN itself: written out here, the bias is
added inside of the product (docs/experiments.md).
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isinglass.backends.cpu import has_fast_bf16, mkl_leaves_avx512_unused

# the layout that oneDNN's products like best, worth it where the weight is copied anyway
_REORDER: Final = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_HAS_ONEDNN: Final = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_IN_FP32: Final = _HAS_ONEDNN and mkl_leaves_avx512_unused()
_IN_BF16: Final = _HAS_ONEDNN and has_fast_bf16()


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    _cast: tuple[int, Tensor] | None = None  # version of the weight, and it in the precision of the last prediction

    def forward(self, x: Tensor) -> Tensor:
        """(T, in) to (T, out)."""
        dtype = _dtype_of_onednn(x)
        if dtype is None:
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            self._cast = None  # it is about to be another
            return linear(x, self.weight, self.bias)
        return self._predicted(x, dtype)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of `forward`; outside training it is part of the product."""
        dtype = _dtype_of_onednn(x)
        if dtype is None or torch.is_grad_enabled():
            return F.gelu(self(x))
        return self._predicted(x, dtype, "gelu")

    def _predicted(self, x: Tensor, dtype: torch.dtype, then: str = "none") -> Tensor:
        version, cast = self.weight._version, self._cast
        if cast is None or cast[0] != version or cast[1].dtype != dtype:
            weight = self.weight.detach()
            weight = _REORDER(weight.to(dtype)) if _REORDER and weight.dtype != dtype else weight.to(dtype)
            self._cast = cast = version, weight
        return _product(x.to(dtype), cast[1], self.bias.to(dtype), then)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`: x (T, in), weight (out, in), bias (out,) to (T, out); under autocast in its precision."""
    dtype = _dtype_of_onednn(x)
    return F.linear(x, weight, bias) if dtype is None else _OneDnnLinear.apply(x, weight, bias, dtype)


def _dtype_of_onednn(x: Tensor) -> torch.dtype | None:
    """What oneDNN is to compute in; None: PyTorch is to do as it does."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype if (dtype == torch.bfloat16 and _IN_BF16) or (dtype == torch.float32 and _IN_FP32) else None


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype_of_x = x.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        dx = _product(grad, weight.t()).to(ctx.dtype_of_x) if of_x else None
        dw = _weight_gradient(grad, x).float() if of_weight else None
        return dx, dw, grad.sum(0).float() if of_bias else None, None


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(T, out) and (T, in) to (out, in)."""
    if grad.dtype == torch.bfloat16:
        return grad.t() @ x  # of oneDNN's two products the faster one here
    if grad.shape[1] <= x.shape[1]:
        return _product(grad.t(), x.t())
    return _product(x.t(), grad.t()).t().contiguous()  # the longer side second, and the result turned


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """(m, k) times (n, k) transposed, plus bias; `then` names what oneDNN does with each element of it."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, then, [], "none" if then == "gelu" else "")
    return product
