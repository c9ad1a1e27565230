"""bf16 products on a CPU that has no instructions for them.

PyTorch computes them there ten to sixty times slower than fp32 (docs/experiments.md). The operands of a bf16 product are
numbers with 8 significant bits, its sums are kept in fp32, and only the result is rounded: the same in fp32 arithmetic is
one product of the widened operands, rounded once. So the numerics of bf16 are had at nearly the speed of fp32.
"""

from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# in inference mode `linear` comes as a whole, elsewhere as `mm` or `addmm`
_PRODUCTS: Final = frozenset(getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "linear"))


class WidenedProducts(TorchDispatchMode):
    """Within `with WidenedProducts():` the products of bf16 matrices run in fp32 and are rounded to bf16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.baddbmm_.default and args[0].dtype == torch.bfloat16:
            return args[0].copy_(self.__torch_dispatch__(torch.ops.aten.baddbmm.default, types, args, kwargs))
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        return func(*(None if arg is None else arg.float() for arg in args), **(kwargs or {})).bfloat16()
