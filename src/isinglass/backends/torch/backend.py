"""The PyTorch backend: a model with its optimizer, and its loss; what CPUs and GPUs have in common."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, UpdateRule
from isinglass.backends.torch.batch import BatchShape, StagedBatch
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.optimizer import Optimizer
from isinglass.backends.torch.process_group import TorchProcessGroup, averaging
from isinglass.config import Precision, TrainConfig
from isinglass.errors import DeviceMemoryError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch
from isinglass.tasks import KindName

HALVES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
Item = TypeVar("Item")
Result = TypeVar("Result")
# of PyTorch's allocator for a CPU, and of oneDNN
_MEMORY_MESSAGES: Final = ("can't allocate memory", "could not create a primitive", "could not create a memory object")


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> "TorchBackend":
    """Return the backend on this process's GPU if there is one, else on the CPU."""
    model = Classifier(checkpoint.blueprint.with_dropout(config.dropout), objective.num_outputs)
    model.load(checkpoint.weights, config.seed)
    torch_group = group if isinstance(group, TorchProcessGroup) else None
    if torch.cuda.is_available():
        from isinglass.backends.torch.gpu.backend import GpuBackend

        return GpuBackend(config, model, objective, torch_group, torch.device("cuda", torch.cuda.current_device()))
    from isinglass.backends.torch.cpu.backend import CpuBackend

    return CpuBackend(config, model, objective, torch_group)


@dataclass(frozen=True)
class MicroBatch:
    """A part of a training step.

    Attributes:
        step: number of the step in the run.
        number: of the micro-batch in the step.
        weight: factor of its mean loss in the loss of the step.
        is_last: whether it is the last one of the step.
    """

    batch: PackedBatch
    step: int
    number: int
    weight: float
    is_last: bool


@dataclass(frozen=True)
class MicroBatchGradient:
    """What forward and backward pass of a micro-batch leave beside the gradients of the parameters.

    Attributes:
        batch: the micro-batch on the device.
        loss: the mean loss times the micro-batch's weight.
        embeddings: (rows, E), the gradient of each token's word embedding; None if these are frozen.
    """

    batch: StagedBatch
    loss: Tensor
    embeddings: Tensor | None


class TorchBackend(ABC):
    """See `backends.protocol.Backend`. The devices differ in how a batch is staged, and in how its passes run."""

    def __init__(
        self, config: TrainConfig, model: Classifier, objective: Objective, group: TorchProcessGroup | None,
        device: torch.device, device_name: str, precision: Precision,
    ) -> None:  # fmt: skip
        """Move the model to the device, and share each training step with the other processes of `group`."""
        self.device, self.precision = device_name, precision
        self.notes: list[str] = []
        self.compile_seconds = 0.0
        self.parallel_batches = 1
        self._torch_device = device
        self._model = model.to(device)
        self._seed = config.seed
        self._half = HALVES.get(precision)
        self._loss = loss_function(objective, device)
        self._losses: list[Tensor] = []  # of the steps since `take_losses`
        self._word_gradient = _WordGradient(model.word, model.blueprint.embeddings.pad_token_id)
        rules = ((variable, UpdateRule.of(held[0], len(model.layers), config)) for variable, held in model.variables())
        halves = {} if model.fused is None else model.fused.halves
        self._optimizer = Optimizer(rules, config, halves, scales_loss=precision == "fp16")
        self._compiles = config.compile
        self._compiled_shapes: set[BatchShape] = set()
        self._forward = self._compiled(model)
        self._training_forward = self._forward
        self._group = group
        self._rank = 0 if group is None else group.rank
        self._replica: DistributedDataParallel | None = None
        if group is not None:  # after the optimizer, which freezes parameters
            self._replica = group.replicate(model)
            self._training_forward = self._compiled(self._replica)

    def _compiled(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(forward, dynamic=False) if self._compiles else forward

    @abstractmethod
    def _stage(self, batch: PackedBatch, part: MicroBatch | None) -> StagedBatch:
        """Return a batch on the device: with the dropout of a micro-batch in training, else without dropout."""

    def _shape(self, batch: PackedBatch) -> BatchShape:
        """Return all that a step's kernels depend on, beside the contents of the arrays."""
        assert not batch.is_flat, "compiled models have the rows layout"
        return BatchShape(batch.input_ids.size, batch.input_ids.shape[1], batch.num_examples)

    def _release_memory(self) -> None:  # noqa: B027 - a CPU's allocator has no memory of its own
        """Free what the next step does not need, after memory ran out."""

    def synchronize(self) -> None:  # noqa: B027 - a CPU has finished when a call returns
        """See the protocol."""

    @abstractmethod
    def peak_memory_bytes(self) -> int:
        """See the protocol."""

    def _products(self) -> AbstractContextManager[object]:
        """Return the context in which matrices are multiplied, forward and backward."""
        return nullcontext()

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return len(self._compiled_shapes)

    def _starts_program(self, batches: Sequence[PackedBatch]) -> bool:
        """Return whether a step on these batches needs a program that does not exist yet: it will take longer."""
        return self._compiles and not self._compiled_shapes.issuperset(map(self._shape, batches))

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        examples = sum(batch.num_examples for batch in batches)
        if self._group is not None:
            share *= self._group.size  # the group takes the mean of the gradients
        parts = [
            MicroBatch(batch, step, number, share * batch.num_examples / examples, number == len(batches) - 1)
            for number, batch in enumerate(batches)
        ]
        self._optimizer.set_learning_rate(learning_rate)
        with self._memory_for(examples):
            starts_program, started = self._starts_program(batches), time.perf_counter()
            if self._compiles:
                self._compiled_shapes.update(map(self._shape, batches))
            loss = self._train(parts)
            if starts_program:
                self.synchronize()
                self.compile_seconds += time.perf_counter() - started
        self._losses.append(loss)

    def _train(self, parts: Sequence[MicroBatch]) -> Tensor:
        """Do a training step on its micro-batches, and return its loss. Does not wait for the device."""
        return self._update(self._each(self._run_part, parts))

    def _each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Call a function for each batch or micro-batch, as the results are iterated."""
        return map(function, items)

    def _run_part(self, part: MicroBatch) -> MicroBatchGradient:
        return self._differentiate(self._stage(part.batch, part), part)

    def _differentiate(self, batch: StagedBatch, part: MicroBatch) -> MicroBatchGradient:
        """Run forward and backward pass of one micro-batch. May run in several threads at the same time."""
        assert batch.labels is not None
        word = self._model.word
        embeddings = word.detach()[batch.input_ids].requires_grad_(word.requires_grad)
        with averaging(self._replica, is_last=part.is_last), self._products():
            logits = self._logits(self._training_forward, batch, embeddings)
            loss = self._loss(logits.float(), batch.labels) * part.weight
            self._optimizer.scaled(loss).backward()
        return MicroBatchGradient(batch, loss.detach(), embeddings.grad)

    def _update(self, gradients: Iterable[MicroBatchGradient]) -> Tensor:
        """Do the optimizer step on the sum of the gradients, clear them, and return the loss of the step.

        Args:
            gradients: the passes may run while this is iterated; if one fails, the gradients are cleared as well.
        """
        step_loss = torch.zeros((), device=self._torch_device)
        try:
            for gradient in gradients:
                self._word_gradient.add(gradient)
                step_loss += gradient.loss
            if self._group is not None:
                self._word_gradient.average(self._group)
                self._group.average(step_loss)
            self._optimizer.step()
        finally:
            self._clear_gradients()
        return step_loss

    def _clear_gradients(self) -> None:
        for parameter in self._model.parameters():
            if parameter is not self._model.word:
                parameter.grad = None
        self._word_gradient.clear()

    def _logits(self, forward: Callable[..., Tensor], batch: StagedBatch, embeddings: Tensor) -> Tensor:
        """Return the logits, (S, num_outputs), of word embeddings (rows, E)."""
        embedded = self._model.embed(embeddings, batch.token_type_ids, batch.position_ids)
        with torch.autocast(self._torch_device.type, self._half, enabled=self._half is not None):
            return forward(embedded, batch.first_token, batch.plan)

    def take_losses(self) -> list[float]:
        """See the protocol."""
        losses, self._losses = self._losses, []
        return torch.stack(losses).tolist() if losses else []

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """See the protocol."""
        with self._memory_for(sum(batch.num_examples for batch in batches)):
            return [*self._each(self._predict_batch, batches)]

    def _predict_batch(self, batch: PackedBatch) -> Float32[np.ndarray, "S outputs"]:
        with torch.inference_mode(), self._products():
            staged = self._stage(batch, None)
            logits = self._logits(self._forward, staged, self._model.word[staged.input_ids])
            return logits.float().cpu().numpy()

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.weights()

    def load(self, weights: Weights) -> None:
        """See the protocol."""
        self._model.load(weights, self._seed)

    def state(self) -> dict[str, NDArray[Any]]:
        """See the protocol."""
        weights = {f"weights.{name}": p.detach().cpu().numpy() for name, p in self._model.named_parameters()}
        return weights | self._optimizer.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See the protocol."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(torch.from_numpy(state[f"weights.{name}"]))
        self._optimizer.restore(state)
        if self._model.fused is not None:
            self._model.fused.refresh()

    @contextmanager
    def _memory_for(self, examples: int) -> Iterator[None]:
        """Turn PyTorch's errors about missing memory into a DeviceMemoryError about `examples` examples."""
        try:
            yield
        except RuntimeError as error:
            on_cpu = any(message in str(error) for message in _MEMORY_MESSAGES)  # for GPUs PyTorch has a class
            if not on_cpu and not isinstance(error, torch.OutOfMemoryError):
                raise
            self._release_memory()
            reason = str(error).split("\n")[0].rpartition("] ")[2][:200].rstrip(".")
            message = f"{examples} examples do not fit into the memory of {self.device} ({reason})."
            raise DeviceMemoryError(message) from error


class _WordGradient:
    """The gradient of the word embedding, in one buffer that is kept from step to step.

    Only the rows of a step's tokens are added to and cleared again, not those of the whole vocabulary.
    """

    def __init__(self, word: nn.Parameter, pad_token_id: int) -> None:
        self._word = word
        self._pad_token_id = pad_token_id
        self._touched: list[Tensor] = []  # token ids whose rows may not be zero

    def add(self, gradient: MicroBatchGradient) -> None:
        """Add what a micro-batch contributes."""
        of_rows, batch = gradient.embeddings, gradient.batch
        if of_rows is None:
            return
        if self._word.grad is None:
            self._word.grad = torch.zeros_like(self._word)
        self._touched.append(batch.input_ids)
        token_ids = batch.input_ids
        if batch.word_rows is not None:  # a GPU would add up in any order: first add up each word's rows by themselves
            sorted_rows = of_rows[batch.word_rows.order]
            of_rows = torch.segment_reduce(sorted_rows, "sum", offsets=batch.word_rows.bounds, unsafe=True)
            token_ids = batch.word_rows.token_ids
        self._word.grad.index_add_(0, token_ids, of_rows)
        self._word.grad[self._pad_token_id] = 0  # as nn.Embedding(padding_idx) has it

    def average(self, group: TorchProcessGroup) -> None:
        """Replace the gradient by its mean over all processes."""
        if self._word.grad is not None:
            self._touched = group.average_rows(self._word.grad, torch.cat(self._touched).unique())

    def clear(self) -> None:
        """Set the gradient to zero."""
        for token_ids in self._touched:
            assert self._word.grad is not None
            self._word.grad.index_fill_(0, token_ids, 0)
        self._touched = []


def loss_function(objective: Objective, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from fp32 logits (S, num_outputs) and labels to the loss (), the mean over the examples."""
    weights, smoothing = None, objective.label_smoothing
    if objective.class_weights is not None:
        weights = torch.tensor(objective.class_weights, dtype=torch.float32, device=device)
    return partial(_LOSSES[objective.kind], weights=weights, smoothing=smoothing)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (losses * weights[labels]).mean()


def _squared_error(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:  # noqa: ARG001
    return F.mse_loss(logits[:, 0], labels)


def _binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    targets = labels * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


_LOSSES: Final[Mapping[KindName, Callable[..., Tensor]]] = {
    "classification": _cross_entropy,
    "regression": _squared_error,
    "multilabel": _binary_cross_entropy,
}
