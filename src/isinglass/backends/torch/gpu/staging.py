"""The arrays of a batch on their way to the device: one copy, for which nothing waits."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

ALIGNMENT: Final = 16  # bytes: each array begins at a multiple

Arrays = Mapping[str, np.ndarray[Any, Any]]


def to_device(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Return tensors of the arrays' shapes and dtypes, by the same names: views of one buffer that was copied at once."""
    return unstage(stage(arrays, device).to(device, non_blocking=True), arrays)


def stage(arrays: Arrays, device: torch.device) -> Tensor:
    """Return a uint8 buffer on the host in which the arrays lie one after another.

    For a GPU it is pinned memory, so that the copy runs beside the host and in the order of the stream. PyTorch's allocator
    gives the memory away again only after the copy.
    """
    sizes = [_aligned_bytes(array) for array in arrays.values()]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    memory, start = buffer.numpy(), 0
    for array, size in zip(arrays.values(), sizes, strict=True):
        memory[start : start + array.nbytes].view(array.dtype)[:] = array.reshape(-1)
        start += size
    return buffer


def unstage(buffer: Tensor, arrays: Arrays) -> dict[str, Tensor]:
    """Return views of a buffer in which arrays of these shapes and dtypes lie as `stage` writes them."""
    pieces = buffer.split([_aligned_bytes(array) for array in arrays.values()])
    return {name: _view(piece, array) for (name, array), piece in zip(arrays.items(), pieces, strict=True)}


def _aligned_bytes(array: np.ndarray[Any, Any]) -> int:
    return -(-array.nbytes // ALIGNMENT) * ALIGNMENT


def _view(piece: Tensor, array: np.ndarray[Any, Any]) -> Tensor:
    dtype = torch.from_numpy(array.reshape(-1)[:0]).dtype
    return piece[: math.prod(array.shape) * array.itemsize].view(dtype).view(array.shape)
