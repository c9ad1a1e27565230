"""A classifier, its optimizer and its device behind the backends' protocol: all that TensorFlow and JAX share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from jaxtyping import Float32
from keras import ops
from numpy.typing import NDArray

from isinglass.backends.cpu import has_fast_bf16, peak_resident_bytes, slow_bf16
from isinglass.backends.keras.dropout import DropoutMasks, step_key
from isinglass.backends.keras.model import Classifier
from isinglass.backends.keras.optimizer import create_optimizer
from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, UpdateRule
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError, UpdateInterruptedError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch

Inputs = dict[str, Any]
"""Name -> array: what a program takes. The arrays of a batch, `labels` but in prediction, `weights` of the examples' losses,
and in training the `key` of the dropout masks."""

_POLICY: Final = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


class KerasBackend(ABC):
    """See `backends.protocol.Backend`. A subclass compiles the programs, each when it is first called with new shapes."""

    parallel_batches = 1
    _train: Callable[[Inputs], Any]
    """Do one step on a batch, and return its loss. If it raises, nothing has changed, but for `_updates_begun`."""
    _predict: Callable[[Inputs], Any]
    """Return logits, float32 (S, K)."""

    def __init__(self, config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> None:
        self.device, is_gpu = self._find_device()
        self.precision = config.precision_on("gpu" if is_gpu else "cpu")
        is_slow = self.precision == "bf16" and not is_gpu and not has_fast_bf16()
        self.notes = [slow_bf16(self.device)] if is_slow else []
        self.compile_seconds = 0.0
        self._seed, self._xla = config.seed, config.xla
        self._objective = objective
        self._group = group
        self._num_examples = config.batch_size  # every batch is filled up to it: one shape less to compile for
        self._losses: list[Any] = []
        self._traced: set[tuple[str, tuple[int, ...]]] = set()  # training programs, by the shapes of what they take
        self._updates = 0  # of the weights, by this process
        blueprint = checkpoint.blueprint.with_dropout(config.dropout)
        self._model = Classifier(blueprint, objective.num_outputs, _POLICY[self.precision])
        self._model.load(checkpoint.weights, config.seed)
        self._parameters = self._model.parameters
        rules = [UpdateRule.of(group[0], blueprint.num_hidden_layers, config) for group in self._model.specification]
        self._trained = [i for i, rule in enumerate(rules) if rule.rate_factor > 0]  # positions in the model's parameters
        trained = [(self._parameters[i], rules[i]) for i in self._trained]
        self._optimizer = create_optimizer(trained, config, scales_loss=self.precision == "fp16")
        self._compile()

    @abstractmethod
    def _find_device(self) -> tuple[str, bool]:
        """Return the first GPU if there is one, else the CPU: a description for the result, and whether it is a GPU."""

    @abstractmethod
    def _compile(self) -> None:
        """Prepare the programs."""

    @abstractmethod
    def _train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        """Do one step on the sum of the losses of these parts, and of all processes; else as `_train`."""

    def _updates_begun(self) -> int:
        """Return the number of updates that have begun, if one that fails may have changed some of the weights; else 0."""
        return 0

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        examples = sum(batch.num_examples for batch in batches)
        room = max(-(-self._num_examples // len(batches)), *(batch.num_examples for batch in batches))
        parts = [
            self._inputs(batch, room, share / examples) | {"key": step_key(self._seed, step, part, self._group.rank)}
            for part, batch in enumerate(batches)
        ]
        in_parts = len(parts) > 1 or self._group.size > 1
        is_new, started = self._is_new(parts, in_parts=in_parts), time.perf_counter()
        self._optimizer.learning_rate = learning_rate
        with self._memory_for(examples):
            loss = self._train_in_parts(parts) if in_parts else self._train(parts[0])
        self._updates += 1
        self._losses.append(loss)
        if is_new:
            self.synchronize()
            self.compile_seconds += time.perf_counter() - started

    def take_losses(self) -> list[float]:
        """See the protocol."""
        losses, self._losses = self._losses, []
        return [float(loss) for loss in losses]

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """See the protocol."""
        outputs = []
        for batch in batches:
            with self._memory_for(batch.num_examples):
                logits = np.asarray(self._predict(self._inputs(batch, self._num_examples, 1.0)))
            outputs.append(logits[: batch.num_examples])
        return outputs

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.named([variable.value for variable in self._parameters])

    def load(self, weights: Weights) -> None:
        """See the protocol."""
        self._model.load(weights, self._seed)

    def state(self) -> dict[str, NDArray[Any]]:
        """See the protocol."""
        return {name: np.asarray(variable.value) for name, variable in self._variables()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See the protocol."""
        for name, variable in self._variables():
            variable.assign(state[name].reshape(variable.shape))

    def _variables(self) -> list[tuple[str, Any]]:
        """Return all that a checkpoint holds, by name."""
        named = [(f"weights.{i}", variable) for i, variable in enumerate(self._parameters)]
        return named + [(f"optimizer.{i}", variable) for i, variable in enumerate(self._optimizer.variables)]

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return len(self._traced)

    def synchronize(self) -> None:
        """See the protocol."""
        if self._losses:
            float(self._losses[-1])

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        return peak_resident_bytes()

    @contextmanager
    def _memory_for(self, examples: int) -> Iterator[None]:
        """Turn the ways to say that memory is short into a DeviceMemoryError."""
        try:
            yield
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            if self._updates_begun() > self._updates:
                raise UpdateInterruptedError(
                    f"The memory of {self.device} ran out while the weights were updated, and some of them have changed: "
                    f"start again with more memory, or continue from the last checkpoint with --resume."
                ) from error
            raise DeviceMemoryError(f"{examples} examples do not fit into the memory of {self.device}.") from error

    def _inputs(self, batch: PackedBatch, room: int, weight: float) -> Inputs:
        """Return the arrays of a batch, filled up with examples whose losses weigh nothing.

        Args:
            room: number of examples to fill up to.
            weight: of the loss of each example of the batch.
        """
        missing = room - batch.num_examples
        assert missing >= 0 and not batch.is_flat

        def filled(values: NDArray[Any], dtype: type) -> NDArray[Any]:
            return np.pad(values.astype(dtype), ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        names = ("input_ids", "token_type_ids", "position_ids", "sequence_ids")
        inputs: Inputs = {name: getattr(batch, name) for name in names}
        inputs["first_token"] = filled(batch.first_token, np.int32)
        inputs["weights"] = filled(np.full(batch.num_examples, weight), np.float32)
        if batch.labels is not None:
            inputs["labels"] = filled(batch.labels, np.int32 if self._objective.kind == "classification" else np.float32)
        return inputs

    def _is_new(self, parts: Sequence[Inputs], *, in_parts: bool) -> bool:
        """Return whether a step on these parts is the first to need one of its programs, which will be traced for it."""
        program = "part" if in_parts else "train"
        needed = {(program, (*part["input_ids"].shape, len(part["weights"]))) for part in parts}
        if in_parts:
            needed.add(("update", ()))
        if self._group.size > 1:
            needed |= {("flatten", ()), ("unflatten", ())}
        is_new = not needed <= self._traced
        self._traced |= needed
        return is_new

    def _loss(self, inputs: Inputs) -> Any:
        """Return the weighted sum of the examples' losses, float32 (); with dropout if there is a `key` for it."""
        logits = self._model(inputs, masks=DropoutMasks(inputs["key"]) if "key" in inputs else None)
        losses = _LOSSES[self._objective.kind](self._objective, logits, inputs["labels"])
        return ops.sum(losses * inputs["weights"])


def _binary_cross_entropy(objective: Objective, logits: Any, labels: Any) -> Any:
    smoothing = objective.label_smoothing
    targets = labels * (1 - smoothing) + smoothing / 2
    positive = np.asarray(objective.class_weights or [1.0] * objective.num_outputs, np.float32)
    losses = -(positive * targets * ops.log_sigmoid(logits) + (1 - targets) * ops.log_sigmoid(-logits))
    return ops.mean(losses, axis=1)


def _cross_entropy(objective: Objective, logits: Any, labels: Any) -> Any:
    log_probabilities = ops.log_softmax(logits)
    losses = -ops.take_along_axis(log_probabilities, ops.expand_dims(labels, 1), axis=1)[:, 0]
    smoothing = objective.label_smoothing
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * ops.mean(log_probabilities, axis=1)
    if objective.class_weights:
        losses *= ops.take(np.asarray(objective.class_weights, np.float32), labels)
    return losses


# The loss of each example, float32 (S,), of float32 logits (S, K) and labels: int32 (S,) classes; float32 (S,) values in
# regression, (S, K) zeros and ones with several labels.
_LOSSES: Final[Mapping[str, Callable[[Objective, Any, Any], Any]]] = {
    "regression": lambda _, logits, labels: ops.square(logits[:, 0] - labels),
    "multilabel": _binary_cross_entropy,
    "classification": _cross_entropy,
}


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory is short.

    TensorFlow has a class of its own for it, and a message where inputs find no room on a GPU. JAX has a status in its
    message. A MemoryError comes from tracing, where C++ allocates, and not the device's allocator.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Dst tensor is not initialized"))
