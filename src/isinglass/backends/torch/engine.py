"""What the devices have in common: how a batch goes through the model, and what an engine has to offer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from isinglass.backends.protocol import UpdateRule
from isinglass.backends.torch.batch import BatchShape, MicroBatch, MicroBatchGradient, StagedBatch
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.optimizer import Optimizer
from isinglass.backends.torch.process_group import TorchProcessGroup, averaging
from isinglass.config import Precision, TrainConfig
from isinglass.errors import DeviceMemoryError
from isinglass.packing import PackedBatch

AUTOCAST: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MEMORY_MESSAGES: Final = (  # of PyTorch's allocator for a CPU, and of oneDNN
    "can't allocate memory",
    "could not create a primitive",
    "could not create a memory object",
)


@runtime_checkable
class StepPasses(Protocol):
    """What an engine calls to do a training step."""

    def differentiate(self, batch: StagedBatch, part: MicroBatch) -> MicroBatchGradient:
        """Run forward and backward pass of one micro-batch. May run in several threads at the same time."""

    def update(self, gradients: Iterable[MicroBatchGradient]) -> Tensor:
        """Do the optimizer step on the sum of the gradients, clear them, and return the loss of the step.

        Args:
            gradients: the passes may run while this is iterated; if one fails, the gradients are cleared as well.
        """


class Engine(ABC):
    """One kind of device, on which a model trains and predicts.

    Attributes:
        device_name: description of the device, for the result.
        precision: the precision that runs.
        notes: slower paths that are taken, each with its reason.
        parallel_batches: batches that it works on at the same time.
    """

    def __init__(
        self, model: Classifier, config: TrainConfig, precision: Precision, device: torch.device, device_name: str
    ) -> None:
        self.device = device
        self.device_name = device_name
        self.precision = precision
        self.notes: list[str] = []
        self.parallel_batches = 1
        self._model = model.to(device)
        self._seed = config.seed
        self._rank = 0
        self._autocast = AUTOCAST.get(precision)
        self._compiles = config.compile
        self._compiled_shapes: set[BatchShape] = set()
        self._forward = self._compiled(model)
        self._training_forward = self._forward
        self._replica: DistributedDataParallel | None = None

    def join(self, group: TorchProcessGroup) -> None:
        """Share each training step with the other processes of the group."""
        self._rank = group.rank
        self.parallel_batches = 1
        self._replica = group.replicate(self._model)
        self._training_forward = self._compiled(self._replica)

    @abstractmethod
    def stage(self, batch: PackedBatch, part: MicroBatch | None = None) -> StagedBatch:
        """Return a batch on the device: with the dropout of a micro-batch in training, else without dropout."""

    def train(self, parts: Sequence[MicroBatch], passes: StepPasses) -> Tensor:
        """Do a training step on its micro-batches, and return its loss. Does not wait for the device."""
        return passes.update(passes.differentiate(self.stage(part.batch, part), part) for part in parts)

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """Return the logits of each batch."""
        return [self._predict(batch) for batch in batches]

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for the device."""

    @abstractmethod
    def peak_memory_bytes(self) -> int:
        """Return the peak memory: of the process on a CPU, of the device's tensors on a GPU."""

    @abstractmethod
    def release_memory(self) -> None:
        """Free what the next step does not need, after memory ran out."""

    def create_optimizer(self, parameters: Iterable[tuple[nn.Parameter, UpdateRule]], config: TrainConfig) -> Optimizer:
        """Return the optimizer of the parameters, each with the rule for its updates."""
        return Optimizer(parameters, config, scales_loss=self.precision == "fp16")

    def reset(self) -> None:
        """Adapt to weights and moments of the optimizer that have been replaced by others."""
        if self._model.fused is not None:
            self._model.fused.refresh()

    def products(self) -> AbstractContextManager[object]:
        """Return the context in which matrices are multiplied, forward and backward."""
        return nullcontext()

    def averaging(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return the context for the passes of a micro-batch: in the last one the processes average their gradients."""
        return nullcontext() if self._replica is None else averaging(self._replica, is_last=is_last)

    def training_logits(self, batch: StagedBatch, embeddings: Tensor) -> Tensor:
        """Return the logits, (S, num_outputs), of word embeddings (rows, E)."""
        return self._logits(self._training_forward, batch, embeddings)

    def starts_program(self, batches: Sequence[PackedBatch]) -> bool:
        """Return whether a step on these batches needs a program that does not exist yet: it will take longer."""
        return self._compiles and not self._compiled_shapes.issuperset(map(self._shape, batches))

    @property
    def compilations(self) -> int:
        """Number of training programs that were compiled or recorded."""
        return len(self._compiled_shapes)

    @contextmanager
    def memory_for(self, examples: int) -> Iterator[None]:
        """Turn PyTorch's errors about missing memory into a DeviceMemoryError about `examples` examples."""
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self.release_memory()
            reason = str(error).split("\n")[0].rpartition("] ")[2][:200].rstrip(".")
            message = f"{examples} examples do not fit into the memory of {self.device_name} ({reason})."
            raise DeviceMemoryError(message) from error

    @abstractmethod
    def _shape(self, batch: PackedBatch) -> BatchShape:
        """Return all that a step's kernels depend on, beside the contents of the arrays."""

    def _compiled(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(forward, dynamic=False) if self._compiles else forward

    def _logits(self, forward: Callable[..., Tensor], batch: StagedBatch, embeddings: Tensor) -> Tensor:
        context: AbstractContextManager[object] = nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self.device.type, self._autocast)
        embedded = self._model.embed(embeddings, batch.token_type_ids, batch.position_ids)
        with context:
            return forward(embedded, batch.first_token, batch.attention, batch.dropout)

    def _predict(self, batch: PackedBatch) -> Float32[np.ndarray, "S outputs"]:
        with torch.inference_mode(), self.products():
            staged = self.stage(batch)
            logits = self._logits(self._forward, staged, self._model.word[staged.input_ids])
            return logits.float().cpu().numpy()


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory ran out. PyTorch has a class for GPUs; on a CPU the message tells."""
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in _MEMORY_MESSAGES)
