"""The PyTorch backend: a classifier, its optimizer and its device behind the protocol of all backends."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from isinglass.backends.cpu import describe_cpu, has_fast_bf16, keep_freed_memory, peak_resident_bytes
from isinglass.backends.notes import slow_bf16, widened_bf16
from isinglass.backends.objective import Objective
from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.torch.cpu.attention import Plan, filled_rows, plan_flat, plan_rows
from isinglass.backends.torch.cpu.bf16 import WidenedProducts
from isinglass.backends.torch.cpu.dropout import Dropout, DropoutMasks, KernelDropout
from isinglass.backends.torch.cpu.parallel import STREAMS, side_by_side
from isinglass.backends.torch.gpu.attention import PaddedPlan, TritonPlan, VarlenPlan, choose_plan, padded_length, rows_for
from isinglass.backends.torch.gpu.fused_layers import FusedLayers, why_not_fused
from isinglass.backends.torch.gpu.graphs import Step, StepGraphs
from isinglass.backends.torch.gpu.staging import to_device
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.optimizer import Optimizer
from isinglass.backends.torch.process_group import TorchProcessGroup, others_present
from isinglass.backends.update_rule import UpdateRule
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch

_AUTOCAST: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> "TorchBackend":
    """The backend on this process's GPU if there is one, else on the CPU."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return TorchBackend(config, checkpoint, objective, device, group)


@dataclass(frozen=True)
class _OnDevice:
    """A batch's arrays there, int64 and flat; those of a flat batch have more rows than tokens, zero after these."""

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    first_token: Tensor
    labels: Tensor | None
    by_word: tuple[Tensor, ...]  # `_by_word`, in training on a GPU
    plan: Plan


@dataclass(frozen=True)
class _Prepared:
    """A batch on the host.

    Attributes:
        arrays: what of it is to come to the device.
        there: makes of them, when they lie there, the batch. It waits for nothing.
        key: all that the kernels of a step depend on beside the contents of the arrays.
    """

    arrays: list[np.ndarray[Any, Any]]
    there: Callable[[list[Tensor]], _OnDevice]
    key: Hashable


class TorchBackend:
    """See `backends.protocol.Backend`."""

    def __init__(
        self,
        config: TrainConfig,
        checkpoint: Checkpoint,
        objective: Objective,
        device: torch.device,
        group: ProcessGroup,
    ) -> None:
        on_cpu = device.type == "cpu"
        self.precision = config.precision_on("cpu" if on_cpu else "gpu")
        self.device = describe_cpu(torch.get_num_threads()) if on_cpu else str(torch.cuda.get_device_name(device))
        self.notes: list[str] = []
        if on_cpu:
            keep_freed_memory()
        fast_bf16 = has_fast_bf16() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)
        self._products: Callable[[], AbstractContextManager[object]] = nullcontext
        if self.precision == "bf16" and not fast_bf16:
            widened = on_cpu and not config.compile
            self._products = WidenedProducts if widened else nullcontext
            self.notes.append(widened_bf16(self.device) if widened else slow_bf16(self.device))
        self.compile_seconds = 0.0
        self._device = device
        self._seed = config.seed
        self._objective = objective
        weights = objective.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
        self._autocast = _AUTOCAST.get(self.precision)
        self._varlen: type[VarlenPlan] | None = None  # how a GPU attends flat batches
        if not on_cpu:
            torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
            if not config.uses_rows:
                shape = checkpoint.blueprint.num_attention_heads, checkpoint.blueprint.head_size
                dtype = self._autocast or torch.float32
                self._varlen, slower = choose_plan(device, dtype, *shape, compiled=config.compile)
                self.notes += [] if slower is None else [slower]
        self._losses: list[Tensor] = []
        self._ids: list[Tensor] = []  # of each batch since the gradients were cleared
        self._mask_elements: dict[Hashable, int] = {}  # by the key of the batch, when compiling; of a step on a CPU
        self._compiles = config.compile
        self._num_heads = checkpoint.blueprint.num_attention_heads
        self._model = Classifier(checkpoint.blueprint.with_dropout(config.dropout), objective.num_outputs)
        self._model.load(checkpoint.weights, config.seed)
        self._model.to(device)
        self._forward = torch.compile(self._model, dynamic=False) if config.compile else self._model
        layers = checkpoint.blueprint.num_hidden_layers
        if self._varlen is TritonPlan and self._autocast is not None and layers > 1 and not config.compile:
            but_last: Any = self._model.layers[:-1]
            why = why_not_fused(but_last, self._num_heads, self._autocast)
            if why is None:
                self._model.fused = FusedLayers(but_last, self._autocast)
            else:
                self.notes.append(f"Layers train by PyTorch's kernels, because {why}.")
        rules = ((variable, UpdateRule.of(spec[0], layers, config)) for variable, spec in self._model.variables())
        fp16, fused = self.precision == "fp16", self._model.fused
        self._optimizer = Optimizer(rules, config, scales_loss=fp16, halves=None if fused is None or fp16 else fused.halves)
        if fused is not None:
            fused.leave_to_optimizer(self._optimizer.halves)
        self._group = group if isinstance(group, TorchProcessGroup) else None
        self._replica = None if self._group is None else self._group.replicate(self._model)
        self._train_forward: Callable[..., Tensor] = self._forward
        self._graphs = None if on_cpu or self._group is not None else StepGraphs(device)
        whole = config.compile or config.uses_rows or self._group is not None
        self.parallel_batches = STREAMS if on_cpu and not whole and torch.get_num_threads() >= STREAMS else 1
        if self._replica is not None:
            self._train_forward = torch.compile(self._replica, dynamic=False) if config.compile else self._replica

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        prepared = [self._prepared(batch) for batch in batches]
        self._optimizer.set_learning_rate(learning_rate)
        examples = sum(batch.num_examples for batch in batches)
        with self._memory_for(examples):
            recorded = self._graphs if len(batches) == 1 else None
            is_new = self._compiles and any(one.key not in self._mask_elements for one in prepared)
            is_new |= recorded is not None and recorded.is_new(prepared[0].key)
            started = time.perf_counter()
            if recorded is None:
                ids = np.concatenate([batch.input_ids.ravel() for batch in batches])
                loss = self._step(self._arriving(prepared, step), examples, share, ids)
            else:
                (one,) = prepared
                dropout = self._dropout(one, step, 0)
                whole: Step = lambda tensors: self._step([lambda: _there(tensors, one, dropout)], examples, share)  # noqa: E731
                loss = recorded.run(one.key, [*one.arrays, *dropout.arrays], whole)
                if recorded.refused is not None:
                    self._graphs = None
                    self.notes.append(f"Steps are not recorded as CUDA graphs ({recorded.refused}): launching takes longer.")
            if is_new:
                self.synchronize()
                self.compile_seconds += time.perf_counter() - started
        self._losses.append(loss)

    def _arriving(self, batches: Sequence[_Prepared], step: int) -> list[Callable[[], tuple[_OnDevice, Dropout]]]:
        """Each micro-batch, to come to the device when its turn has come, and its dropout, which keys the generator."""

        def arrive(part: int) -> tuple[_OnDevice, Dropout]:
            one = batches[part]
            dropout = self._dropout(one, step, part)
            return _there(to_device([*one.arrays, *dropout.arrays], self._device), one, dropout)

        return [partial(arrive, part) for part in range(len(batches))]

    def _dropout(self, batch: _Prepared, step: int, part: int) -> Dropout:
        rank = 0 if self._group is None else self._group.rank
        if self._device.type == "cuda":
            if self._compiles:
                self._mask_elements.setdefault(batch.key, 0)
            return KernelDropout(self._seed, step, self._device, part=part, rank=rank)
        return DropoutMasks(self._seed, step, part=part, rank=rank, drawn_ahead=self._elements_ahead(batch))

    def _step(
        self,
        batches: Sequence[Callable[[], tuple[_OnDevice, Dropout]]],
        examples: int,
        share: float,
        ids: np.ndarray[Any, Any] | None = None,
    ) -> Tensor:
        """The whole step on the device, and its loss; `ids` are the batches' tokens, for processes that share it."""
        group = self._group
        share = share if group is None else share * group.size  # the group takes the mean
        loss = torch.zeros((), device=self._device)

        def passes(arriving: Callable[[], tuple[_OnDevice, Dropout]], last: bool) -> tuple[Tensor, _OnDevice, Tensor | None]:
            batch, dropout = arriving()
            with self._averaging(last=last):
                return self._passes(batch, dropout, share * len(batch.first_token) / examples)

        try:
            turns = [partial(passes, batch, i == len(batches) - 1) for i, batch in enumerate(batches)]
            for turn in [turns] if len(turns) <= self.parallel_batches else [[one] for one in turns]:
                for part, there, of_words in side_by_side(turn):
                    self._add_word_gradient(there, of_words)
                    loss += part
            if group is not None:
                assert ids is not None
                self._average_word_gradients(group, np.unique(ids))
                group.average(loss)
            self._optimizer.step()
        finally:
            self.clear_gradients()
        return loss

    def backward(self, batch: PackedBatch, masks: None, share: float = 1.0) -> Tensor:
        """Add the gradient of `share` times the batch's mean loss to the parameters', and return that loss."""
        loss, there, of_words = self._passes(self._on_device(batch), masks, share)
        self._add_word_gradient(there, of_words)
        return loss

    def _passes(self, there: _OnDevice, masks: Dropout | None, share: float) -> tuple[Tensor, _OnDevice, Tensor | None]:
        """Forward and backward: `share` times the loss, the batch and, unless frozen, the gradient of each token's word."""
        assert there.labels is not None
        word = self._model.word
        words = word.detach()[there.input_ids].requires_grad_(word.requires_grad)
        with self._products():
            logits = self._logits(there, words, masks, self._train_forward)
            loss = self.loss(logits, there.labels) * share
            self._optimizer.scaled(loss).backward()
        return loss.detach(), there, words.grad

    def _add_word_gradient(self, there: _OnDevice, gradient: Tensor | None) -> None:
        """The word embedding's gradient is kept in one buffer from step to step: only the rows of this step's tokens are
        added to, and later cleared, not all of the vocabulary's. A GPU, which would add in whatever order its threads
        arrive, adds up each word's own first.
        """
        word = self._model.word
        if gradient is None:
            return
        if word.grad is None:
            word.grad = torch.zeros_like(word)
        self._ids.append(there.input_ids)
        ids = there.input_ids
        if there.by_word:
            order, bounds, ids = there.by_word
            gradient = torch.segment_reduce(gradient[order], "sum", offsets=bounds, unsafe=True)
        word.grad.index_add_(0, ids, gradient)
        word.grad[self._model.blueprint.pad_token_id] = 0  # as nn.Embedding(padding_idx) has it

    @contextmanager
    def _averaging(self, *, last: bool) -> Iterator[None]:
        """In the last micro-batch's passes the processes' gradients are averaged, in those before it only kept."""
        if self._replica is None:
            yield
            return
        with others_present(), nullcontext() if last else self._replica.no_sync():
            yield

    def _average_word_gradients(self, group: TorchProcessGroup, ids: np.ndarray[Any, Any]) -> None:
        """What the replica leaves out."""
        word = self._model.word
        if word.grad is not None:
            self._ids = group.average_rows(word.grad, ids.astype(np.int64))

    def clear_gradients(self) -> None:
        """Forget what `backward` left."""
        word = self._model.word
        for parameter in self._model.parameters():
            if parameter is not word:
                parameter.grad = None
        for ids in self._ids:
            assert word.grad is not None
            word.grad.index_fill_(0, ids, 0)
        self._ids = []

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the examples of what the objective says, in fp32."""
        logits, weights, smoothing = logits.float(), self._class_weights, self._objective.label_smoothing
        if self._objective.kind == "regression":
            return F.mse_loss(logits[:, 0], labels)
        if self._objective.kind == "multilabel":
            targets = labels * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels]).mean()

    def take_losses(self) -> list[float]:
        """See the protocol."""
        losses, self._losses = self._losses, []
        return torch.stack(losses).tolist() if losses else []

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """See the protocol."""
        turns = iter(range(len(batches)))
        found: dict[int, Float32[np.ndarray, "S outputs"]] = {}

        @torch.inference_mode()
        def answer() -> None:
            with self._products():
                for turn in turns:  # the next one that no stream has taken
                    there = self._on_device(batches[turn])
                    logits = self._logits(there, self._model.word[there.input_ids], None, self._forward)
                    found[turn] = logits.float().cpu().numpy()

        with self._memory_for(sum(batch.num_examples for batch in batches)):
            side_by_side([answer] * min(self.parallel_batches, len(batches)))
        return [found[turn] for turn in range(len(batches))]

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.weights()

    def load(self, weights: Weights) -> None:
        """See the protocol."""
        self._model.load(weights, self._seed)

    def gradients(self) -> Weights:
        """See the protocol."""
        return self._model.gradients()

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """See the protocol."""
        weights = {f"weights.{name}": p.detach().cpu().numpy() for name, p in self._model.named_parameters()}
        return weights | self._optimizer.state()

    def restore(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """See the protocol."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(torch.from_numpy(state[f"weights.{name}"]))
        if self._model.fused is not None:
            self._model.fused.refresh()
        self._optimizer.restore(state)
        if self._graphs is not None:
            self._graphs = StepGraphs(self._device)  # what was recorded works on the moments that were

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return len(self._mask_elements) if self._compiles or self._graphs is None else len(self._graphs)

    def synchronize(self) -> None:
        """See the protocol."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident_bytes()

    @contextmanager
    def _memory_for(self, examples: int) -> Iterator[None]:
        """Turn PyTorch's ways to say that memory is short into a DeviceMemoryError."""
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if self._device.type == "cuda":
                if self._graphs is not None:
                    self._graphs = StepGraphs(self._device)  # theirs is memory that nothing else may use
                torch.cuda.empty_cache()
            reason = str(error).split("\n")[0].rpartition("] ")[2][:200].rstrip(".")
            said = f"{examples} examples do not fit into the memory of {self.device} ({reason})."
            raise DeviceMemoryError(said) from error

    def _prepared(self, batch: PackedBatch) -> _Prepared:
        size, varlen, S, N = batch.input_ids.size, self._varlen, batch.num_examples, self._num_heads
        rows = size if not batch.is_flat else filled_rows(size) if varlen is None else rows_for(size)
        arrays: list[np.ndarray[Any, Any]] = [
            np.pad(array.reshape(-1), (0, rows - size)).astype(np.int64)
            for array in (batch.input_ids, batch.token_type_ids, batch.position_ids)
        ]
        by_word = (
            []
            if batch.labels is None or self._device.type == "cpu"
            else _by_word(arrays[0], self._model.blueprint.pad_token_id)
        )
        arrays = [*arrays, *by_word, batch.first_token, *([] if batch.labels is None else [batch.labels])]
        common = len(arrays)
        if not batch.is_flat:
            arrays.append(batch.sequence_ids)
        elif varlen is not None:
            arrays += varlen.arrays(batch.lengths, rows)

        def plan(tensors: list[Tensor]) -> Plan:
            if not batch.is_flat:
                return plan_rows(tensors[0], S, N)
            return plan_flat(batch, N) if varlen is None else varlen.of(batch.lengths, rows, N, tuple(tensors))

        def there(tensors: list[Tensor]) -> _OnDevice:
            ids, types, positions, *words, first = tensors[: common if batch.labels is None else common - 1]
            labels = None if batch.labels is None else tensors[common - 1]
            return _OnDevice(ids, types, positions, first, labels, tuple(words), plan(tensors[common:]))

        key: Hashable = tuple(array.shape for array in arrays)
        if batch.is_flat and varlen is not None and varlen is not PaddedPlan:
            key = key, padded_length(batch.lengths, rows)
        return _Prepared(arrays, there, key)

    def _on_device(self, batch: PackedBatch) -> _OnDevice:
        prepared = self._prepared(batch)
        return prepared.there(to_device(prepared.arrays, self._device))

    def _logits(self, there: _OnDevice, words: Tensor, masks: Dropout | None, forward: Callable[..., Tensor]) -> Tensor:
        context: AbstractContextManager[object] = nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self._device.type, self._autocast)
        embedded = self._model.embed(words, there.token_type_ids, there.position_ids)
        with context:
            logits: Tensor = forward(embedded, there.first_token, there.plan, masks)
        return logits

    def _elements_ahead(self, batch: _Prepared) -> int:
        """How many mask elements a compiled step needs: counted once for each shape by a plain forward pass."""
        if not self._compiles:
            return 0
        if batch.key not in self._mask_elements:
            masks = DropoutMasks(0, 0)
            with torch.no_grad():
                there = batch.there(to_device(batch.arrays, self._device))
                self._logits(there, self._model.word[there.input_ids], masks, self._model)
            self._mask_elements[batch.key] = masks.elements
        return self._mask_elements[batch.key]


def _by_word(ids: Int64[np.ndarray, " rows"], pad: int) -> tuple[Int64[np.ndarray, " n"], ...]:
    """The rows in order of their words (rows,), where each word's begin and those of the last end (rows + 1,), and the
    words (rows,): as if there were as many words as rows, those that are too many being the padding word without rows.
    """
    rows = len(ids)
    order = np.argsort(ids, kind="stable")
    first = np.flatnonzero(np.diff(ids[order], prepend=-1))
    bounds, words = np.full(rows + 1, rows), np.full(rows, pad)
    bounds[: len(first)], words[: len(first)] = first, ids[order[first]]
    return order, bounds, words


def _there(tensors: list[Tensor], batch: _Prepared, dropout: Dropout) -> tuple[_OnDevice, Dropout]:
    """The batch and its dropout, of the tensors of their arrays."""
    count = len(batch.arrays)
    dropout.arrive(tensors[count:])
    return batch.there(tensors[:count]), dropout


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch has a class of its own for a GPU; on a CPU the allocator's message, or oneDNN's, is all there is."""
    said = ("can't allocate memory", "could not create a primitive", "could not create a memory object")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)
