"""Training and prediction on a CPU: two micro-batches in parallel, attention in groups of examples of like length.

One micro-batch on all threads waits at the end of every kernel for the slowest thread, a thousand times a step. Two parallel
micro-batches, each on its share of the threads, wait for each other once (docs/experiments.md).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any, Final

import torch

from isinglass.backends import cpu
from isinglass.backends.protocol import Objective
from isinglass.backends.torch.backend import Item, MicroBatch, Result, TorchBackend
from isinglass.backends.torch.batch import NO_DROPOUT, BatchShape, StagedBatch, plan_rows, rounded_rows, token_arrays
from isinglass.backends.torch.cpu.attention import plan_flat
from isinglass.backends.torch.cpu.dropout import MaskDropout
from isinglass.backends.torch.cpu.linear import WidenedProducts
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.process_group import TorchProcessGroup
from isinglass.config import TrainConfig
from isinglass.packing import PackedBatch

ROW_MULTIPLE: Final = 32  # of a flat batch
PARALLEL_BATCHES: Final = 2  # no more: a sum of two gradients is the same in either order
_POOL: Final = ThreadPoolExecutor(PARALLEL_BATCHES - 1, thread_name_prefix="batch")


class CpuBackend(TorchBackend):
    """See TorchBackend."""

    def __init__(
        self, config: TrainConfig, model: Classifier, objective: Objective, group: TorchProcessGroup | None
    ) -> None:
        """Prepare the CPU.

        Raises:
            ConfigError: the precision is fp16 or tf32.
        """
        threads, precision = torch.get_num_threads(), config.precision_on("cpu")
        super().__init__(config, model, objective, group, torch.device("cpu"), cpu.describe_cpu(threads), precision)
        cpu.keep_freed_memory()
        self._mask_elements: dict[BatchShape, int] = {}  # that a compiled pass draws
        self._widens_products = False
        if precision == "bf16" and not cpu.has_fast_bf16():
            self._widens_products = not config.compile
            self.notes.append(cpu.slow_bf16(self.device, widened=self._widens_products))
        if threads >= PARALLEL_BATCHES and not config.uses_rows and group is None:
            self.parallel_batches = PARALLEL_BATCHES

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        return cpu.peak_resident_bytes()

    def _products(self) -> AbstractContextManager[object]:
        return WidenedProducts() if self._widens_products else super()._products()

    def _each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See TorchBackend. The batches run in parallel if they are few enough, else one after another."""
        if 1 < len(items) <= self.parallel_batches:
            yield from in_parallel(function, items)
        else:
            yield from super()._each(function, items)

    def _stage(self, batch: PackedBatch, part: MicroBatch | None) -> StagedBatch:
        if part is None:
            return self._staged(batch, None)
        drawn_ahead = self._count_mask_elements(batch) if self._compiles else 0
        masks = MaskDropout(self._seed, part.step, part=part.number, rank=self._rank, drawn_ahead=drawn_ahead)
        return self._staged(batch, masks)

    def _staged(self, batch: PackedBatch, masks: MaskDropout | None) -> StagedBatch:
        num_heads, num_tokens, dropout = self._model.blueprint.num_attention_heads, batch.input_ids.size, masks or NO_DROPOUT
        rows = rounded_rows(num_tokens, multiple=ROW_MULTIPLE) if batch.is_flat else num_tokens
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in token_arrays(batch, rows).items()}
        if batch.is_flat:
            return StagedBatch(**tensors, plan=plan_flat(batch, num_heads, dropout))
        plan = plan_rows(torch.from_numpy(batch.sequence_ids), batch.num_examples, num_heads, dropout)
        return StagedBatch(**tensors, plan=plan)

    def _count_mask_elements(self, batch: PackedBatch) -> int:
        """Return the mask elements that a pass draws, counted by a plain forward pass for each new shape."""
        shape = self._shape(batch)
        if shape not in self._mask_elements:
            masks = MaskDropout(0, 0)
            staged = self._staged(batch, masks)
            with torch.no_grad():
                self._logits(self._model, staged, self._model.word[staged.input_ids])
            self._mask_elements[shape] = masks.elements
        return self._mask_elements[shape]


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the results of a function for each of 1 to PARALLEL_BATCHES items, all at the same time.

    Each has its share of PyTorch's threads. The function has to set for itself what PyTorch keeps for each thread, such as
    autocast and inference mode.
    """
    threads = torch.get_num_threads()

    def work(item: Item) -> Result:
        torch.set_num_threads(max(1, threads // len(items)))  # for the calling thread, and for threads that start later
        return function(item)

    first, *rest = items
    others = [_POOL.submit(work, item) for item in rest]
    try:
        result = work(first)
    finally:
        wait(others)
        torch.set_num_threads(threads)
    return [result, *(other.result() for other in others)]
