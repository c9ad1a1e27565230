"""bf16 products on a CPU that has no instructions for them.

There PyTorch computes them ten to sixty times slower than fp32 products (docs/experiments.md). The operands of a bf16
product have 8 significant bits, its sums are fp32, and only the result is rounded. An fp32 product of the widened operands,
rounded once, is the same: it has the numerics of bf16 at nearly the speed of fp32.
"""

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# inference mode dispatches `linear` itself, other modes `mm` or `addmm`
_PRODUCTS: Final = frozenset(getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "linear"))


class WidenedProducts(TorchDispatchMode):
    """A context in which products of bf16 matrices run in fp32 and are rounded to bf16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.baddbmm_.default and args[0].dtype == torch.bfloat16:
            return args[0].copy_(self.__torch_dispatch__(torch.ops.aten.baddbmm.default, types, args, kwargs))
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        return func(*(None if arg is None else arg.float() for arg in args), **(kwargs or {})).bfloat16()
