"""Training and prediction on a CPU: two micro-batches in parallel, attention in groups of examples of like length."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from isinglass.backends.cpu import (
    describe_cpu,
    has_fast_bf16,
    keep_freed_memory,
    peak_resident_bytes,
    slow_bf16,
    widened_bf16,
)
from isinglass.backends.torch.attention import plan_rows
from isinglass.backends.torch.batch import BatchShape, MicroBatch, MicroBatchGradient, RowRounding, StagedBatch, token_arrays
from isinglass.backends.torch.cpu.attention import plan_flat
from isinglass.backends.torch.cpu.bf16 import WidenedProducts
from isinglass.backends.torch.cpu.dropout import MaskDropout
from isinglass.backends.torch.cpu.parallel import PARALLEL_BATCHES, in_parallel
from isinglass.backends.torch.dropout import NO_DROPOUT
from isinglass.backends.torch.engine import Engine, StepPasses
from isinglass.backends.torch.model import Classifier
from isinglass.config import TrainConfig
from isinglass.packing import PackedBatch

ROWS = RowRounding(multiple=32, spare=0)


class CpuEngine(Engine):
    """See `torch.engine.Engine`."""

    def __init__(self, model: Classifier, config: TrainConfig) -> None:
        """Prepare the CPU.

        Raises:
            ConfigError: the precision is fp16 or tf32.
        """
        threads = torch.get_num_threads()
        super().__init__(model, config, config.precision_on("cpu"), torch.device("cpu"), describe_cpu(threads))
        keep_freed_memory()
        self._mask_elements: dict[BatchShape, int] = {}  # that a compiled pass draws
        self._widens_products = False
        if self.precision == "bf16" and not has_fast_bf16():
            self._widens_products = not config.compile
            note = widened_bf16 if self._widens_products else slow_bf16
            self.notes.append(note(self.device_name))
        if threads >= PARALLEL_BATCHES and not config.uses_rows:
            self.parallel_batches = PARALLEL_BATCHES

    def products(self) -> AbstractContextManager[object]:
        """See Engine."""
        return WidenedProducts() if self._widens_products else super().products()

    def stage(self, batch: PackedBatch, part: MicroBatch | None = None) -> StagedBatch:
        """See Engine."""
        if part is None:
            return self._stage(batch, None)
        drawn_ahead = self._count_mask_elements(batch) if self._compiles else 0
        masks = MaskDropout(self._seed, part.step, part=part.part, rank=self._rank, drawn_ahead=drawn_ahead)
        return self._stage(batch, masks)

    def train(self, parts: Sequence[MicroBatch], passes: StepPasses) -> Tensor:
        """See Engine."""
        return passes.update(self._gradients(parts, passes))

    def _gradients(self, parts: Sequence[MicroBatch], passes: StepPasses) -> Iterator[MicroBatchGradient]:
        """Run the passes of all micro-batches: in parallel if they are few enough, else one after another."""

        def differentiate(part: MicroBatch) -> MicroBatchGradient:
            return passes.differentiate(self.stage(part.batch, part), part)

        if len(parts) <= self.parallel_batches:
            yield from in_parallel([partial(differentiate, part) for part in parts])
        else:
            yield from map(differentiate, parts)

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """See Engine."""
        logits: dict[int, Float32[np.ndarray, "S outputs"]] = {}
        pending = iter(range(len(batches)))  # shared by all threads: each takes the next batch

        def predict_pending() -> None:
            for number in pending:
                logits[number] = self._predict(batches[number])

        in_parallel([predict_pending] * min(self.parallel_batches, len(batches)))
        return [logits[number] for number in range(len(batches))]

    def synchronize(self) -> None:
        """Return at once: a CPU has finished when a call returns."""

    def peak_memory_bytes(self) -> int:
        """See Engine."""
        return peak_resident_bytes()

    def release_memory(self) -> None:
        """Do nothing: the allocator has no memory of its own."""

    def _stage(self, batch: PackedBatch, masks: MaskDropout | None) -> StagedBatch:
        num_heads, num_tokens, dropout = self._model.blueprint.num_attention_heads, batch.input_ids.size, masks or NO_DROPOUT
        arrays = token_arrays(batch, ROWS.rows_for(num_tokens) if batch.is_flat else num_tokens)
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if batch.is_flat:
            return StagedBatch(**tensors, attention=plan_flat(batch, num_heads, masks), dropout=dropout)
        attention = plan_rows(torch.from_numpy(batch.sequence_ids), batch.num_examples, num_heads, dropout)
        return StagedBatch(**tensors, attention=attention, dropout=dropout)

    def _shape(self, batch: PackedBatch) -> BatchShape:
        assert not batch.is_flat, "compiled models have the rows layout"
        return BatchShape(batch.input_ids.size, batch.input_ids.shape[1], batch.num_examples)

    def _count_mask_elements(self, batch: PackedBatch) -> int:
        """Return the mask elements that a pass draws, counted by a plain forward pass for each new shape."""
        shape = self._shape(batch)
        if shape not in self._mask_elements:
            self._compiled_shapes.add(shape)
            masks = MaskDropout(0, 0)
            staged = self._stage(batch, masks)
            with torch.no_grad():
                self._logits(self._model, staged, self._model.word[staged.input_ids])
            self._mask_elements[shape] = masks.elements
        return self._mask_elements[shape]
