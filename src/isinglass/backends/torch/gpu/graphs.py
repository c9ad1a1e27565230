"""Training steps recorded as CUDA graphs: one for each shape of batch, then replayed with new contents.

A step at a batch of 32 is about a thousand kernels of a few microseconds each. The host takes longer to launch them one by
one than the GPU takes to run them; a recorded step is launched as a whole.

All that changes from step to step lies where the recorded kernels read it: the batch in one buffer of each graph, the
learning rates in the optimizer's tensor, seed and offset of the random numbers where PyTorch puts them before a replay.
The graphs share one pool of memory: they run one after another, and nothing in the pool outlives its step but the loss,
which is copied out.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from isinglass.backends.torch.gpu.staging import Arrays, stage, unstage

Step = Callable[[list[Tensor]], Tensor]
"""Does a whole step on a batch's tensors, optimizer included, and returns its loss. Waits for nothing."""


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: Tensor  # uint8, as `stage` lays it
    loss: Tensor


class StepGraphs:
    """The recorded steps of one model on one GPU."""

    def __init__(self, device: torch.device) -> None:
        self.refused: str | None = None  # why steps could not be recorded
        self._device = device
        self._recorded: dict[Hashable, _Recorded | None] = {}  # None: run once, not recorded yet

    def __len__(self) -> int:
        return sum(recorded is not None for recorded in self._recorded.values())

    def is_new(self, key: Hashable) -> bool:
        """Whether the next `run` records, and so takes longer."""
        return key in self._recorded and self._recorded[key] is None and self.refused is None

    def run(self, key: Hashable, arrays: Arrays, step: Step) -> Tensor:
        """Do `step` on the arrays, and return its loss: launched kernel by kernel the first time that there is `key`,
        recorded the second time, replayed from then on.

        Args:
            key: all that the step's kernels depend on beside contents of arrays: their shapes, and numbers on the host.
        """
        recorded = self._recorded.get(key)
        batch = stage(arrays, self._device)
        if recorded is None and self.is_new(key):
            recorded = self._recorded[key] = self._record(batch.to(self._device, non_blocking=True), arrays, step)
        if recorded is None:
            self._recorded.setdefault(key, None)
            return step(unstage(batch.to(self._device, non_blocking=True), arrays))
        recorded.batch.copy_(batch, non_blocking=True)
        recorded.graph.replay()
        return recorded.loss.clone()

    def _record(self, batch: Tensor, arrays: Arrays, step: Step) -> _Recorded | None:
        """Nothing of the step happens yet. None: it cannot be recorded, and no step will be from here on."""
        graph = torch.cuda.CUDAGraph()
        others = [recorded for recorded in self._recorded.values() if recorded is not None]
        pool = others[0].graph.pool() if others else None
        try:
            with torch.cuda.graph(graph, pool=pool):
                loss = step(unstage(batch, arrays))
        except RuntimeError as error:
            self.refused = str(error).splitlines()[0][:200].rstrip(".")
            generator = torch.cuda.default_generators[self._device.index]
            generator.graphsafe_set_state(generator.clone_state())  # its own still waits for the end of the recording
            return None
        return _Recorded(graph, batch, loss)
