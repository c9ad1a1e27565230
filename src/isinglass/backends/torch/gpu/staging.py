"""A batch's way to the device: one copy, which nobody waits for."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

ALIGNMENT: Final = 16  # bytes: where each array begins

Arrays = Sequence[np.ndarray[Any, Any]]


def to_device(arrays: Arrays, device: torch.device) -> list[Tensor]:
    """The arrays as tensors of their shapes and dtypes, views of one buffer that was copied in one piece."""
    return unstage(stage(arrays, device).to(device, non_blocking=True), arrays)


def stage(arrays: Arrays, device: torch.device) -> Tensor:
    """The arrays end to end in one uint8 buffer of this host.

    For a GPU it lies in pinned memory, so that the copy runs beside the host and in the order of the stream. The memory
    goes back to PyTorch's allocator, which hands it out again only after the copy.
    """
    sizes = _sizes(arrays)
    staged = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    memory, start = staged.numpy(), 0
    for array, size in zip(arrays, sizes, strict=True):
        memory[start : start + array.nbytes].view(array.dtype)[:] = array.reshape(-1)
        start += size
    return staged


def unstage(buffer: Tensor, arrays: Arrays) -> list[Tensor]:
    """Views of a buffer in which arrays of these shapes and dtypes lie as `stage` lays them."""
    pieces = buffer.split(_sizes(arrays))
    return [_as(array, piece) for array, piece in zip(arrays, pieces, strict=True)]


def _sizes(arrays: Arrays) -> list[int]:
    return [-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays]


def _as(array: np.ndarray[Any, Any], piece: Tensor) -> Tensor:
    dtype = torch.from_numpy(array.reshape(-1)[:0]).dtype
    return piece[: math.prod(array.shape) * array.itemsize].view(dtype).view(array.shape)
