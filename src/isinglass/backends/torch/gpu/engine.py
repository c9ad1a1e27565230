"""Training and prediction on an NVIDIA GPU: one copy a batch, recorded steps, attention without padding, fused layers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from isinglass.backends.cpu import slow_bf16
from isinglass.backends.protocol import UpdateRule
from isinglass.backends.torch.attention import AttentionPlan, plan_rows
from isinglass.backends.torch.batch import BatchShape, MicroBatch, StagedBatch, WordRows, token_arrays
from isinglass.backends.torch.dropout import NO_DROPOUT
from isinglass.backends.torch.engine import Engine, StepPasses
from isinglass.backends.torch.gpu.attention import ROWS, GpuPlan, TritonPlan, choose_plan, padded_length
from isinglass.backends.torch.gpu.dropout import KernelDropout, begin_dropout
from isinglass.backends.torch.gpu.fused_layers import FusedLayers, why_not_fused
from isinglass.backends.torch.gpu.graphs import StepGraphs
from isinglass.backends.torch.gpu.staging import Arrays, Tensors, to_device
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.optimizer import Optimizer
from isinglass.backends.torch.process_group import TorchProcessGroup
from isinglass.config import TrainConfig
from isinglass.packing import PackedBatch


class GpuEngine(Engine):
    """See `torch.engine.Engine`."""

    def __init__(self, model: Classifier, config: TrainConfig, device: torch.device) -> None:
        """Move the model to the GPU, and try the kernels that it is to run with."""
        name = str(torch.cuda.get_device_name(device))
        super().__init__(model, config, config.precision_on("gpu"), device, name)
        self._graphs: StepGraphs | None = StepGraphs(device)
        self._flat_plan: type[GpuPlan] | None = None  # None: batches have the rows layout
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        if self.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            self.notes.append(slow_bf16(name))
        if not config.uses_rows:
            self._choose_kernels()

    def _choose_kernels(self) -> None:
        num_heads, head_size = self._model.blueprint.num_attention_heads, self._model.blueprint.head_size
        self._flat_plan, note = choose_plan(self.device, self._autocast or torch.float32, num_heads, head_size)
        if note is not None:
            self.notes.append(note)
        lower_layers: Any = self._model.layers[:-1]
        if self._flat_plan is not TritonPlan or self._autocast is None or len(lower_layers) == 0:
            return
        reason = why_not_fused(lower_layers, num_heads, self._autocast)
        if reason is None:
            self._model.fused = FusedLayers(lower_layers, self._autocast)
        else:
            self.notes.append(f"Layers train by PyTorch's kernels, because {reason}.")

    def create_optimizer(self, parameters: Iterable[tuple[nn.Parameter, UpdateRule]], config: TrainConfig) -> Optimizer:
        """See Engine. The optimizer casts large weights of fused layers, but not in fp16, where it may skip a step."""
        fused = self._model.fused
        if fused is None or self.precision == "fp16":
            return super().create_optimizer(parameters, config)
        optimizer = Optimizer(parameters, config, scales_loss=False, half_weights=fused.halves)
        fused.leave_to_optimizer(optimizer.cast_weights)
        return optimizer

    def join(self, group: TorchProcessGroup) -> None:
        """See Engine. Steps that wait for other processes are not recorded."""
        super().join(group)
        self._graphs = None

    def stage(self, batch: PackedBatch, part: MicroBatch | None = None) -> StagedBatch:
        """See Engine."""
        shape = self._shape(batch)
        return self._staged(to_device(self._arrays(batch, shape, part), self.device), shape)

    def train(self, parts: Sequence[MicroBatch], passes: StepPasses) -> Tensor:
        """See Engine. A step without micro-batches is recorded."""
        if self._compiles:
            self._compiled_shapes.update(self._shape(part.batch) for part in parts)
        if len(parts) == 1 and self._graphs is not None:
            return self._train_recorded(self._graphs, parts[0], passes)
        return super().train(parts, passes)

    def _train_recorded(self, graphs: StepGraphs, part: MicroBatch, passes: StepPasses) -> Tensor:
        shape = self._shape(part.batch)

        def step(tensors: Tensors) -> Tensor:
            staged = [self._staged(tensors, shape)]
            return passes.update(passes.differentiate(batch, part) for batch in staged)

        loss = graphs.run(shape, self._arrays(part.batch, shape, part), step)
        if graphs.refusal is not None:
            self._graphs = None
            self.notes.append(f"Steps are not recorded as CUDA graphs ({graphs.refusal}): launching takes longer.")
        return loss

    def starts_program(self, batches: Sequence[PackedBatch]) -> bool:
        """See Engine."""
        if super().starts_program(batches):
            return True
        return len(batches) == 1 and self._graphs is not None and self._graphs.records_next(self._shape(batches[0]))

    @property
    def compilations(self) -> int:
        """See Engine."""
        return super().compilations if self._compiles or self._graphs is None else len(self._graphs)

    def reset(self) -> None:
        """See Engine."""
        super().reset()
        self._forget_graphs()  # they were recorded with the former moments

    def release_memory(self) -> None:
        """See Engine."""
        self._forget_graphs()  # nothing else may use their memory
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """See Engine."""
        torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """See Engine."""
        return torch.cuda.max_memory_allocated(self.device)

    def _forget_graphs(self) -> None:
        if self._graphs is not None:
            self._graphs = StepGraphs(self.device)

    def _shape(self, batch: PackedBatch) -> BatchShape:
        if not batch.is_flat:
            return BatchShape(batch.input_ids.size, batch.input_ids.shape[1], batch.num_examples)
        rows = ROWS.rows_for(batch.num_tokens)
        return BatchShape(rows, padded_length(batch.lengths, rows), batch.num_examples)

    def _arrays(self, batch: PackedBatch, shape: BatchShape, part: MicroBatch | None) -> Arrays:
        """Return all arrays that a pass reads, in the groups that `_staged` makes records of.

        In training this seeds the generator for the dropout of the micro-batch.
        """
        arrays = {"tokens": token_arrays(batch, shape.rows)}
        if batch.labels is not None:
            arrays["word_rows"] = word_row_arrays(arrays["tokens"]["input_ids"], self._model.blueprint.pad_token_id)
        if self._flat_plan is None:
            arrays["attention"] = {"sequence_ids": batch.sequence_ids}
        else:
            arrays["attention"] = self._flat_plan.arrays(batch.lengths, shape.rows)
        if part is not None:
            key = begin_dropout(self._seed, part.step, self.device, part=part.part, rank=self._rank)
            arrays["dropout"] = {"key": key}
        return arrays

    def _staged(self, tensors: Tensors, shape: BatchShape) -> StagedBatch:
        """Return a batch whose arrays are on the device. Waits for nothing."""
        masks = KernelDropout(tensors["dropout"]["key"]) if "dropout" in tensors else None
        word_rows = WordRows(**tensors["word_rows"]) if "word_rows" in tensors else None
        tokens: dict[str, Any] = {**tensors["tokens"], "word_rows": word_rows, "dropout": masks or NO_DROPOUT}
        return StagedBatch(**tokens, attention=self._attention(tensors["attention"], shape, masks))

    def _attention(self, tensors: dict[str, Tensor], shape: BatchShape, masks: KernelDropout | None) -> AttentionPlan:
        N = self._model.blueprint.num_attention_heads
        if self._flat_plan is None:
            return plan_rows(tensors["sequence_ids"], shape.num_examples, N, masks or NO_DROPOUT)
        own: dict[str, Any] = {**tensors}
        return self._flat_plan(num_heads=N, max_length=shape.max_length, dropout=masks, **own)


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
