"""Training and prediction on an NVIDIA GPU: one copy a batch, recorded steps, attention without padding, fused layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.cpu import slow_bf16
from isinglass.backends.protocol import Objective
from isinglass.backends.torch.backend import HALVES, MicroBatch, TorchBackend
from isinglass.backends.torch.batch import NO_DROPOUT, BatchShape, StagedBatch, WordRows, plan_rows, token_arrays
from isinglass.backends.torch.gpu import attention
from isinglass.backends.torch.gpu.graphs import Arrays, StepGraphs, Tensors, to_device
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.process_group import TorchProcessGroup
from isinglass.config import TrainConfig
from isinglass.packing import PackedBatch


class GpuBackend(TorchBackend):
    """See TorchBackend."""

    def __init__(
        self, config: TrainConfig, model: Classifier, objective: Objective, group: TorchProcessGroup | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        """Move the model to the GPU, and try the kernels that it is to run with."""
        name, precision = str(torch.cuda.get_device_name(device)), config.precision_on("gpu")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        notes = []
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            notes.append(slow_bf16(name))
        self._flat_plan: type[attention.GpuPlan] | None = None  # None: batches have the rows layout
        if not config.uses_rows:
            self._flat_plan, reasons = _choose_kernels(model.to(device), device, HALVES.get(precision))
            notes += reasons
        # steps that wait for other processes are not recorded
        self._graphs = StepGraphs(device) if group is None else None
        super().__init__(config, model, objective, group, device, name, precision)
        self.notes += notes

    def synchronize(self) -> None:
        """See the protocol."""
        torch.cuda.synchronize(self._torch_device)

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        return torch.cuda.max_memory_allocated(self._torch_device)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See the protocol."""
        super().restore(state)
        self._forget_graphs()  # they were recorded with the former moments

    def _release_memory(self) -> None:
        self._forget_graphs()  # nothing else may use their memory
        torch.cuda.empty_cache()

    def _forget_graphs(self) -> None:
        if self._graphs is not None:
            self._graphs = StepGraphs(self._torch_device)

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return super().compilations if self._compiles or self._graphs is None else len(self._graphs)

    def _starts_program(self, batches: Sequence[PackedBatch]) -> bool:
        if super()._starts_program(batches):
            return True
        return len(batches) == 1 and self._graphs is not None and self._graphs.records_next(self._shape(batches[0]))

    def _train(self, parts: Sequence[MicroBatch]) -> Tensor:
        """See TorchBackend. A step of a single micro-batch is recorded."""
        if len(parts) > 1 or self._graphs is None:
            return super()._train(parts)
        (part,) = parts
        shape = self._shape(part.batch)

        def step(tensors: Tensors) -> Tensor:
            return self._update(map(self._differentiate, [self._staged(tensors, shape)], [part]))

        loss = self._graphs.run(shape, self._arrays(part.batch, shape, part), step)
        if self._graphs.refusal is not None:
            self.notes.append(f"Steps are not recorded as CUDA graphs ({self._graphs.refusal}): launching takes longer.")
            self._graphs = None
        return loss

    def _stage(self, batch: PackedBatch, part: MicroBatch | None) -> StagedBatch:
        shape = self._shape(batch)
        return self._staged(to_device(self._arrays(batch, shape, part), self._torch_device), shape)

    def _shape(self, batch: PackedBatch) -> BatchShape:
        if not batch.is_flat:
            return super()._shape(batch)
        sequences = attention.sequence_lengths(batch.lengths)
        return BatchShape(int(sequences.sum()), attention.padded_length(sequences), batch.num_examples)

    def _arrays(self, batch: PackedBatch, shape: BatchShape, part: MicroBatch | None) -> Arrays:
        """Return all arrays that a pass reads, in the groups that `_staged` makes records of.

        In training this seeds the generator for the dropout of the micro-batch.
        """
        arrays = {"tokens": token_arrays(batch, shape.rows)}
        if batch.labels is not None:
            arrays["word_rows"] = word_row_arrays(
                arrays["tokens"]["input_ids"], self._model.blueprint.embeddings.pad_token_id
            )
        if self._flat_plan is None:
            arrays["attention"] = {"sequence_ids": batch.sequence_ids}
        else:
            arrays["attention"] = self._flat_plan.arrays(attention.sequence_lengths(batch.lengths))
        if part is not None:
            key = attention.begin_dropout(self._seed, part.step, self._torch_device, part=part.number, rank=self._rank)
            arrays["dropout"] = {"key": key}
        return arrays

    def _staged(self, tensors: Tensors, shape: BatchShape) -> StagedBatch:
        """Return a batch whose arrays are on the device. Waits for nothing."""
        dropout = attention.KernelDropout(tensors["dropout"]["key"]) if "dropout" in tensors else NO_DROPOUT
        word_rows = WordRows(**tensors["word_rows"]) if "word_rows" in tensors else None
        own, N = tensors["attention"], self._model.blueprint.num_attention_heads
        if self._flat_plan is None:
            plan_of_rows = plan_rows(own["sequence_ids"], shape.num_examples, N, dropout)
            return StagedBatch(**tensors["tokens"], plan=plan_of_rows, word_rows=word_rows)
        plan = self._flat_plan(num_heads=N, max_length=shape.max_length, dropout=dropout, **own)
        return StagedBatch(**tensors["tokens"], plan=plan, word_rows=word_rows)


def _choose_kernels(
    model: Classifier, device: torch.device, half: torch.dtype | None
) -> tuple[type[attention.GpuPlan], list[str]]:
    """Fuse the model's layers if they can be. Return the kind of attention for flat batches, and notes on slower paths."""
    num_heads = model.blueprint.num_attention_heads
    lower_layers: Any = model.layers[:-1]
    kind, note = attention.choose_plan(device, half or torch.float32, num_heads, model.blueprint.head_size)
    notes = [] if note is None else [note]
    if half is None or kind is attention.PaddedPlan or len(lower_layers) == 0:
        return kind, notes
    from isinglass.backends.torch.gpu.triton.layers import FusedLayers, why_not_fused

    reason = why_not_fused(lower_layers, num_heads, half)
    if reason is None:
        model.fused = FusedLayers(lower_layers, half)
    else:
        notes.append(f"Layers train by PyTorch's kernels, because {reason}.")
    return kind, notes


def word_row_arrays(token_ids: Int64[np.ndarray, " rows"], pad_token_id: int) -> dict[str, Int64[np.ndarray, " n"]]:
    """Sort the rows by token id: return the fields of `WordRows`.

    The segment arrays are padded to `rows` entries; the extra segments are empty and point at the pad id.
    """
    rows = len(token_ids)
    order = np.argsort(token_ids, kind="stable")
    first = np.flatnonzero(np.diff(token_ids[order], prepend=-1))  # of each segment
    bounds, segment_ids = np.full(rows + 1, rows), np.full(rows, pad_token_id)
    bounds[: len(first)], segment_ids[: len(first)] = first, token_ids[order[first]]
    return {"order": order, "bounds": bounds, "token_ids": segment_ids}
