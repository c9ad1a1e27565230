"""Training steps recorded as CUDA graphs: one for each shape of batch, replayed with new contents.

A step on a batch of 32 is about a thousand kernels of a few microseconds each. The host takes longer to launch them one by
one than the GPU takes to run them; a recorded step is launched at once.

All that changes from step to step lies where the recorded kernels read it: the batch in one buffer of each graph, the
learning rates in the optimizer's tensor, seed and offset of the random numbers where PyTorch puts them before a replay.
The graphs share one pool of memory: they run one after another, and nothing in the pool outlives its step but the loss,
which is copied out.

The arrays of a batch come to the device in one copy, for which nothing waits.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT: Final = 16  # bytes: each array begins at a multiple

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""Group of arrays -> name -> array."""
Tensors = dict[str, dict[str, Any]]
"""The same as tensors on the device."""
Step = Callable[[Tensors], Tensor]
"""Does a complete step on the tensors of a batch, optimizer included, and returns its loss. Waits for nothing."""


@dataclass(frozen=True)
class _RecordedStep:
    """A step that can be replayed.

    Attributes:
        batch: uint8, the buffer that the step reads, laid out by `stage`.
        loss: the loss of the last replay.
    """

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    loss: Tensor


class StepGraphs:
    """The recorded steps of one model on one GPU.

    Attributes:
        refusal: why steps cannot be recorded; None if they can.
    """

    def __init__(self, device: torch.device) -> None:
        self.refusal: str | None = None
        self._device = device
        self._steps: dict[Hashable, _RecordedStep | None] = {}  # None: run once, not recorded yet

    def __len__(self) -> int:
        return sum(step is not None for step in self._steps.values())

    def records_next(self, key: Hashable) -> bool:
        """Return whether the next `run` with this key records, and so takes longer."""
        return self.refusal is None and key in self._steps and self._steps[key] is None

    def run(self, key: Hashable, arrays: Arrays, step: Step) -> Tensor:
        """Do `step` on the arrays, and return its loss.

        The first step with a key is launched kernel by kernel, the second one is recorded, all others are replayed.

        Args:
            key: all that the kernels of the step depend on beside the contents of the arrays.
        """
        recorded = self._steps.get(key)
        batch = stage(arrays, self._device)
        if self.records_next(key):
            recorded = self._steps[key] = self._record(batch.to(self._device, non_blocking=True), arrays, step)
        if recorded is None:
            self._steps.setdefault(key, None)
            return step(unstage(batch.to(self._device, non_blocking=True), arrays))
        recorded.batch.copy_(batch, non_blocking=True)
        recorded.graph.replay()
        return recorded.loss.clone()

    def _record(self, batch: Tensor, arrays: Arrays, step: Step) -> _RecordedStep | None:
        """Record a step without running it. Return None if it cannot be recorded; then no other step will be."""
        graph = torch.cuda.CUDAGraph()
        pool = next((step.graph.pool() for step in self._steps.values() if step is not None), None)
        try:
            with torch.cuda.graph(graph, pool=pool):
                loss = step(unstage(batch, arrays))
        except RuntimeError as error:
            self.refusal = str(error).splitlines()[0][:200].rstrip(".")
            generator = torch.cuda.default_generators[self._device.index]
            generator.graphsafe_set_state(generator.clone_state())  # its own still waits for the end of the recording
            return None
        return _RecordedStep(graph, batch, loss)


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
    return piece[: array.nbytes].view(dtype).view(array.shape)
