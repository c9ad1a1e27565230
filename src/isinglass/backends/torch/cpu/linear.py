"""Products of matrices in the way that is fastest on this CPU: y = x W^T + b by oneDNN, and bf16 in fp32 arithmetic.

PyTorch computes fp32 products by MKL, which on AMD's processors uses AVX2 even where they have AVX-512. oneDNN, which is a
part of PyTorch too, is more than twice as fast there. In bf16 PyTorch uses oneDNN itself; here the bias is added inside of
the product (docs/experiments.md).
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isinglass.backends.cpu import has_fast_bf16, mkl_leaves_avx512_unused

# brings a weight into the layout that oneDNN multiplies fastest: worth it where the weight is copied anyway
_REORDER: Final = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_HAS_ONEDNN: Final = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_IN_FP32: Final = _HAS_ONEDNN and mkl_leaves_avx512_unused()
_IN_BF16: Final = _HAS_ONEDNN and has_fast_bf16()
# inference mode dispatches `linear` itself, other modes `mm` or `addmm`
_PRODUCTS: Final = frozenset(getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "linear"))


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    _cast: tuple[int, Tensor] | None = None  # version of the weight, and its copy in the precision of the last prediction

    def forward(self, x: Tensor) -> Tensor:
        """Return (T, out) for (T, in)."""
        dtype = _dtype_of_onednn(x)
        if dtype is None:
            return F.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            self._cast = None  # the weight is about to change
            return linear(x, self.weight, self.bias)
        return self._predict(x, dtype)

    def gelu(self, x: Tensor) -> Tensor:
        """Return GELU(forward(x)); outside of training it is a part of the product."""
        dtype = _dtype_of_onednn(x)
        if dtype is None or torch.is_grad_enabled():
            return F.gelu(self(x))
        return self._predict(x, dtype, "gelu")

    def _predict(self, x: Tensor, dtype: torch.dtype, activation: str = "none") -> Tensor:
        version, weight = self._cast or (None, None)
        if weight is None or version != self.weight._version or weight.dtype != dtype:
            weight = self.weight.detach()
            weight = _REORDER(weight.to(dtype)) if _REORDER and weight.dtype != dtype else weight.to(dtype)
            self._cast = self.weight._version, weight
        return _product(x.to(dtype), weight, self.bias.to(dtype), activation)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b, (T, out), for x (T, in), weight (out, in) and bias (out,); under autocast in its precision."""
    dtype = _dtype_of_onednn(x)
    return F.linear(x, weight, bias) if dtype is None else _OneDnnLinear.apply(x, weight, bias, dtype)


def _dtype_of_onednn(x: Tensor) -> torch.dtype | None:
    """Return the precision in which oneDNN is to compute; None: leave the product to PyTorch."""
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
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_x = _product(grad, weight.t()).to(ctx.dtype_of_x) if needs_x else None
        grad_weight = _weight_gradient(grad, x).float() if needs_weight else None
        return grad_x, grad_weight, grad.sum(0).float() if needs_bias else None, None


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return grad^T x, (out, in), for grad (T, out) and x (T, in)."""
    if grad.dtype == torch.bfloat16:
        return grad.t() @ x  # the faster one of oneDNN's two products here
    if grad.shape[1] <= x.shape[1]:
        return _product(grad.t(), x.t())
    return _product(x.t(), grad.t()).t().contiguous()  # faster with the longer side second, though the result is transposed


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """Return activation(a b^T + bias), (m, n), for a (m, k) and b (n, k); oneDNN applies the activation by its name."""
    algorithm = "none" if activation == "gelu" else ""  # exact GELU, not tanh's
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, activation, [], algorithm)
    return product


class WidenedProducts(TorchDispatchMode):
    """A context in which products of bf16 matrices run in fp32 and are rounded to bf16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.baddbmm_.default and args[0].dtype == torch.bfloat16:
            return args[0].copy_(self.__torch_dispatch__(torch.ops.aten.baddbmm.default, types, args, kwargs))
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        return func(*(None if arg is None else arg.float() for arg in args), **(kwargs or {})).bfloat16()
