"""Training steps recorded as CUDA graphs: one for each shape of batch, replayed with new contents.

A step on a batch of 32 is about a thousand kernels of a few microseconds each. The host takes longer to launch them one by
one than the GPU takes to run them; a recorded step is launched at once.

All that changes from step to step lies where the recorded kernels read it: the batch in one buffer of each graph, the
learning rates in the optimizer's tensor, seed and offset of the random numbers where PyTorch puts them before a replay.
The graphs share one pool of memory: they run one after another, and nothing in the pool outlives its step but the loss,
which is copied out.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from isinglass.backends.torch.gpu.staging import Arrays, Tensors, stage, unstage

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
