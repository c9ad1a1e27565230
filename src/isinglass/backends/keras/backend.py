"""The Keras backend, on TensorFlow or JAX: a classifier, its optimizer and its device behind the backends' protocol."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.backends.cpu import has_fast_bf16, peak_resident_bytes, slow_bf16
from isinglass.backends.keras.device import jax_device, tensorflow_device
from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, UpdateRule
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, DeviceMemoryError, UpdateInterruptedError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch

if TYPE_CHECKING:
    from isinglass.backends.keras.programs import Inputs, Learner, Programs

_POLICY: Final = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> "KerasBackend":
    """Return the backend on the first GPU if there is one, else on the CPU.

    Raises:
        ConfigError: Keras runs on another framework already: a process has one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the CPU are not the user's business
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = config.backend
    import keras

    if keras.backend.backend() != config.backend:
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()} in this process: use the backend {config.backend} in another one."
        )
    return KerasBackend(config, checkpoint, objective, group)


class KerasBackend:
    """See `backends.protocol.Backend`."""

    def __init__(self, config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> None:
        device = tensorflow_device() if config.backend == "tensorflow" else jax_device()
        self.device = device.description
        self.precision = config.precision_on("gpu" if device.is_gpu else "cpu")
        self.notes: list[str] = []
        if self.precision == "bf16" and not device.is_gpu and not has_fast_bf16():
            self.notes.append(slow_bf16(self.device))
        self.compile_seconds = 0.0
        self.parallel_batches = 1
        self._seed = config.seed
        self._objective = objective
        self._group = group
        self._num_examples = config.batch_size  # every batch is filled up to it: one shape less to compile for
        self._losses: list[Any] = []
        self._seen: set[tuple[str, tuple[int, ...]]] = set()  # training programs, by the shapes of what they take
        self._updates = 0  # of the weights, by this process
        learner = _create_learner(config, checkpoint, objective, self.precision)
        self._model = learner.model
        self._optimizer = learner.optimizer
        self._programs = _create_programs(learner, config, group)

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        from isinglass.backends.keras.dropout import step_key

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
            loss = self._programs.train_in_parts(parts) if in_parts else self._programs.train(parts[0])
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
                logits = np.asarray(self._programs.predict(self._inputs(batch, self._num_examples, 1.0)))
            outputs.append(logits[: batch.num_examples])
        return outputs

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.named([variable.value for variable in self._model.parameters])

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
        named = [(f"weights.{i}", variable) for i, variable in enumerate(self._model.parameters)]
        return named + [(f"optimizer.{i}", variable) for i, variable in enumerate(self._optimizer.variables)]

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return len(self._seen)

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
        from isinglass.backends.keras.programs import is_out_of_memory

        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self._programs.updates_begun > self._updates:
                raise UpdateInterruptedError(
                    f"The memory of {self.device} ran out while the weights were updated, and some of them have changed: "
                    f"start again with more memory, or continue from the last checkpoint with --resume."
                ) from error
            raise DeviceMemoryError(f"{examples} examples do not fit into the memory of {self.device}.") from error

    def _inputs(self, batch: PackedBatch, room: int, weight: float) -> "Inputs":
        """Return the arrays of a batch, filled up with examples whose losses weigh nothing.

        Args:
            room: number of examples to fill up to.
            weight: of the loss of each example of the batch.
        """
        missing = room - batch.num_examples
        assert missing >= 0 and not batch.is_flat

        def filled(values: NDArray[Any], dtype: type) -> NDArray[Any]:
            return np.pad(values.astype(dtype), ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        inputs: Inputs = {
            "input_ids": batch.input_ids,
            "token_type_ids": batch.token_type_ids,
            "position_ids": batch.position_ids,
            "sequence_ids": batch.sequence_ids,
            "first_token": filled(batch.first_token, np.int32),
            "weights": filled(np.full(batch.num_examples, weight), np.float32),
        }
        if batch.labels is not None:
            inputs["labels"] = filled(batch.labels, np.int32 if self._objective.kind == "classification" else np.float32)
        return inputs

    def _is_new(self, parts: "Sequence[Inputs]", *, in_parts: bool) -> bool:
        """Return whether a step on these parts is the first to need one of its programs, which will be traced for it."""
        program = "part" if in_parts else "train"
        needed = {(program, (*part["input_ids"].shape, len(part["weights"]))) for part in parts}
        if in_parts:
            needed.add(("update", ()))
        if self._group.size > 1:
            needed |= {("join", ()), ("take", ())}
        is_new = not needed <= self._seen
        self._seen |= needed
        return is_new


def _create_learner(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, precision: str) -> "Learner":
    from isinglass.backends.keras.model import Classifier
    from isinglass.backends.keras.optimizer import create_optimizer
    from isinglass.backends.keras.programs import Learner

    blueprint = checkpoint.blueprint.with_dropout(config.dropout)
    model = Classifier(blueprint, objective.num_outputs, _POLICY[precision])
    model.load(checkpoint.weights, config.seed)
    rules = [UpdateRule.of(group[0], blueprint.num_hidden_layers, config) for group in model.specification]
    trained = [i for i, rule in enumerate(rules) if rule.rate_factor > 0]
    parameters = [(model.parameters[i], rules[i]) for i in trained]
    optimizer = create_optimizer(parameters, config, scales_loss=precision == "fp16")
    return Learner(model, optimizer, trained, objective)


def _create_programs(learner: "Learner", config: TrainConfig, group: ProcessGroup) -> "Programs":
    if config.backend == "tensorflow":
        from isinglass.backends.keras.tensorflow_programs import TensorFlowPrograms

        return TensorFlowPrograms(learner, group, xla=config.xla)
    from isinglass.backends.keras.jax_programs import JaxPrograms

    return JaxPrograms(learner)
