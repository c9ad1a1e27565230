"""The PyTorch backend: a classifier, its optimizer and its device behind the protocol of all backends."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from isinglass.backends.cpu import describe_cpu, has_fast_bf16, keep_freed_memory, peak_resident_bytes
from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, rate_factor, slow_bf16, widened_bf16
from isinglass.backends.torch.attention import Plan, filled_rows, plan_attention
from isinglass.backends.torch.bf16 import WidenedProducts
from isinglass.backends.torch.cuda import to_device
from isinglass.backends.torch.dropout import DropoutMasks
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.optimizer import Optimizer
from isinglass.backends.torch.process_group import TorchProcessGroup, others_present
from isinglass.backends.torch.varlen import FlashPlan, PaddedPlan, choose_plan, seed_kernels
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
    """A batch's arrays there, int64 and flat; those of a flat batch have `filled_rows`, zero after its tokens."""

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    first_token: Tensor
    labels: Tensor | None
    plan: Plan


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
        self._products: AbstractContextManager[object] = nullcontext()
        if self.precision == "bf16" and not fast_bf16:
            widened = on_cpu and not config.compile
            self._products = WidenedProducts() if widened else nullcontext()
            self.notes.append(widened_bf16(self.device) if widened else slow_bf16(self.device))
        self.compile_seconds = 0.0
        self._device = device
        self._seed = config.seed
        self._objective = objective
        weights = objective.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
        self._autocast = _AUTOCAST.get(self.precision)
        self._fused: type[FlashPlan] | type[PaddedPlan] | None = None  # how a GPU attends flat batches
        if not on_cpu:
            torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
            if not config.uses_rows:
                shape = checkpoint.config.num_attention_heads, checkpoint.config.head_size
                self._fused, slower = choose_plan(device, self._autocast or torch.float32, *shape)
                self.notes += [] if slower is None else [slower]
        self._losses: list[Tensor] = []
        self._ids: list[Tensor] = []  # of each batch since the gradients were cleared
        self._mask_elements: dict[tuple[int, ...], int] = {}  # by shape of the batch, when compiling
        self._compiles = config.compile
        self._num_heads = checkpoint.config.num_attention_heads
        self._model = Classifier(checkpoint.config.with_dropout(config.dropout), objective.num_outputs)
        self._model.load(checkpoint.weights, config.seed)
        self._model.to(device)
        self._forward = torch.compile(self._model, dynamic=False) if config.compile else self._model
        layers = checkpoint.config.num_hidden_layers
        rates = ((parameter, rate_factor(depth, layers, config)) for parameter, depth in self._model.depths())
        self._optimizer = Optimizer(rates, config, scales_loss=self.precision == "fp16")
        self._group = group if isinstance(group, TorchProcessGroup) else None
        self._replica = None if self._group is None else self._group.replicate(self._model)
        self._train_forward: Callable[..., Tensor] = self._forward
        if self._replica is not None:
            self._train_forward = torch.compile(self._replica, dynamic=False) if config.compile else self._replica

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        examples = sum(batch.num_examples for batch in batches)
        group = self._group
        rank, share = (0, share) if group is None else (group.rank, share * group.size)  # the group takes the mean
        loss = torch.zeros((), device=self._device)
        try:
            with self._memory_for(examples):
                for part, batch in enumerate(batches):
                    started = self._start_of_new_shape(batch)
                    ahead = self._elements_ahead(batch)
                    masks = DropoutMasks(self._seed, step, self._device, part=part, rank=rank, drawn_ahead=ahead)
                    if self._fused is not None:
                        seed_kernels(self._seed, step, self._device, part=part, rank=rank)
                    with self._averaging(last=part == len(batches) - 1):
                        loss += self.backward(batch, masks, share=share * batch.num_examples / examples)
                    if started is not None:
                        self.synchronize()
                        self.compile_seconds += time.perf_counter() - started
                if group is not None:
                    self._average_word_gradients(group, batches)
                    group.average(loss)
                self._optimizer.step(learning_rate)
        finally:
            self.clear_gradients()
        self._losses.append(loss)

    def backward(self, batch: PackedBatch, masks: DropoutMasks | None, share: float = 1.0) -> Tensor:
        """Add the gradient of `share` times the batch's mean loss to the parameters', and return that loss.

        The word embedding's gradient is kept in one buffer from step to step: only the rows of this step's tokens are
        added to, and later cleared, not all of the vocabulary's.
        """
        there = self._on_device(batch)
        assert there.labels is not None
        word, ids = self._model.word, there.input_ids
        words = word.detach()[ids].requires_grad_(word.requires_grad)
        with self._products:
            logits = self._logits(there, words, masks, self._train_forward)
            loss = self.loss(logits, there.labels) * share
            self._optimizer.scaled(loss).backward()
        if words.grad is not None:  # else it is frozen
            if word.grad is None:
                word.grad = torch.zeros_like(word)
            self._ids.append(ids)
            word.grad.index_add_(0, ids, words.grad)
            word.grad[self._model.config.pad_token_id] = 0  # as nn.Embedding(padding_idx) has it
        return loss.detach()

    @contextmanager
    def _averaging(self, *, last: bool) -> Iterator[None]:
        """In the last micro-batch's passes the processes' gradients are averaged, in those before it only kept."""
        if self._replica is None:
            yield
            return
        with others_present(), nullcontext() if last else self._replica.no_sync():
            yield

    def _average_word_gradients(self, group: TorchProcessGroup, batches: Sequence[PackedBatch]) -> None:
        """What the replica leaves out."""
        word = self._model.word
        if word.grad is not None:
            ids = np.unique(np.concatenate([batch.input_ids.ravel() for batch in batches])).astype(np.int64)
            self._ids = group.average_rows(word.grad, ids)

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

    @torch.inference_mode()
    def predict(self, batch: PackedBatch) -> Float32[np.ndarray, "S outputs"]:
        """See the protocol."""
        with self._memory_for(batch.num_examples), self._products:
            there = self._on_device(batch)
            logits = self._logits(there, self._model.word[there.input_ids], None, self._forward)
        found: Float32[np.ndarray, "S outputs"] = logits.float().cpu().numpy()
        return found

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
        self._optimizer.restore(state)

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return len(self._mask_elements)

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
                torch.cuda.empty_cache()
            reason = str(error).split("\n")[0].rpartition("] ")[2][:200].rstrip(".")
            said = f"{examples} examples do not fit into the memory of {self.device} ({reason})."
            raise DeviceMemoryError(said) from error

    def _on_device(self, batch: PackedBatch) -> _OnDevice:
        size = batch.input_ids.size
        rows = filled_rows(size) if batch.is_flat else size
        tokens = [
            np.pad(array.reshape(-1), (0, rows - size)).astype(np.int64)
            for array in (batch.input_ids, batch.token_type_ids, batch.position_ids)
        ]
        fused = self._fused if batch.is_flat else None
        of_plan = () if fused is None else fused.arrays(batch.lengths, rows)
        of_labels = () if batch.labels is None else (batch.labels,)
        ids, types, positions, first, *rest = to_device([*tokens, batch.first_token, *of_plan, *of_labels], self._device)
        labels = rest.pop() if of_labels else None
        if fused is None:
            plan: Plan = plan_attention(batch, self._num_heads, self._device)
        else:
            plan = fused.of(batch.lengths, rows, self._num_heads, tuple(rest))
        return _OnDevice(ids, types, positions, first, labels, plan)

    def _logits(self, there: _OnDevice, words: Tensor, masks: DropoutMasks | None, forward: Callable[..., Tensor]) -> Tensor:
        context: AbstractContextManager[object] = nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self._device.type, self._autocast)
        embedded = self._model.embed(words, there.token_type_ids, there.position_ids)
        with context:
            logits: Tensor = forward(embedded, there.first_token, there.plan, masks)
        return logits

    def _elements_ahead(self, batch: PackedBatch) -> int:
        """How many mask elements a compiled step needs: counted once for each shape by a plain forward pass."""
        if not self._compiles:
            return 0
        shape = _shape(batch)
        if shape not in self._mask_elements:
            masks = DropoutMasks(0, 0, self._device)
            with torch.no_grad():
                there = self._on_device(batch)
                self._logits(there, self._model.word[there.input_ids], masks, self._model)
            self._mask_elements[shape] = masks.elements
        return self._mask_elements[shape]

    def _start_of_new_shape(self, batch: PackedBatch) -> float | None:
        """The time, if this batch is the first of its shape and so will be compiled for."""
        if not self._compiles or _shape(batch) in self._mask_elements:
            return None
        return time.perf_counter()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch has a class of its own for a GPU; on a CPU the allocator's message, or oneDNN's, is all there is."""
    said = ("can't allocate memory", "could not create a primitive", "could not create a memory object")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def _shape(batch: PackedBatch) -> tuple[int, ...]:
    return (*batch.input_ids.shape, batch.num_examples)
