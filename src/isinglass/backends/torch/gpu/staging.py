"""The arrays of a batch on their way to the device: one copy, for which nothing waits."""

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT: Final = 16  # bytes: each array begins at a multiple

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""Group of arrays -> name -> array."""
Tensors = dict[str, dict[str, Tensor]]
"""The same on the device."""


def to_device(arrays: Arrays, device: torch.device) -> Tensors:
    """Return tensors of the arrays' shapes and dtypes: views of one buffer that was copied at once."""
    return unstage(stage(arrays, device).to(device, non_blocking=True), arrays)


def stage(arrays: Arrays, device: torch.device) -> Tensor:
    """Return a uint8 buffer on the host in which the arrays lie one after another.

    For a GPU it is pinned memory, so that the copy runs beside the host and in the order of the stream. PyTorch's allocator
    gives the memory away again only after the copy.
    """
    flat = [array for group in arrays.values() for array in group.values()]
    buffer = torch.empty(sum(map(_aligned_bytes, flat)), dtype=torch.uint8, pin_memory=device.type == "cuda")
    memory, start = buffer.numpy(), 0
    for array in flat:
        memory[start : start + array.nbytes].view(array.dtype)[:] = array.reshape(-1)
        start += _aligned_bytes(array)
    return buffer


def unstage(buffer: Tensor, arrays: Arrays) -> Tensors:
    """Return views of a buffer in which arrays of these shapes and dtypes lie as `stage` writes them."""
    pieces = iter(buffer.split([_aligned_bytes(array) for group in arrays.values() for array in group.values()]))
    return {name: {field: _view(next(pieces), array) for field, array in group.items()} for name, group in arrays.items()}


def _aligned_bytes(array: NDArray[Any]) -> int:
    return -(-array.nbytes // ALIGNMENT) * ALIGNMENT


def _view(piece: Tensor, array: NDArray[Any]) -> Tensor:
    dtype = torch.from_numpy(array.reshape(-1)[:0]).dtype
    return piece[: math.prod(array.shape) * array.itemsize].view(dtype).view(array.shape)
