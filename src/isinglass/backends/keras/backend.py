"""The Keras backend, on TensorFlow or JAX: a classifier, its optimizer and its device behind the backends' protocol."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32

from isinglass.backends.cpu import available_cores, describe_cpu, has_fast_bf16, peak_resident_bytes
from isinglass.backends.notes import slow_bf16
from isinglass.backends.objective import Objective
from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.update_rule import UpdateRule
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, DeviceMemoryError, UpdateInterruptedError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch

if TYPE_CHECKING:
    from isinglass.backends.keras.dropout import DropoutMasks

Inputs = dict[str, Any]  # name -> tensor: what a compiled program takes
_POLICY: Final = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> "KerasBackend":
    """The backend on the first GPU if there is one, else on the CPU.

    Raises:
        ConfigError: Keras runs on another framework already: one process has one.
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
        from isinglass.backends.keras.model import Classifier
        from isinglass.backends.keras.optimizer import create_optimizer

        on_gpu, self.device = _device(config.backend)
        self.precision = config.precision_on("gpu" if on_gpu else "cpu")
        self.notes: list[str] = []
        if self.precision == "bf16" and not on_gpu and not has_fast_bf16():
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
        self._gradients: list[Any] = []
        blueprint = checkpoint.blueprint.with_dropout(config.dropout)
        self._model = Classifier(blueprint, objective.num_outputs, _POLICY[self.precision])
        self._model.load(checkpoint.weights, config.seed)
        depth = blueprint.num_hidden_layers
        rules = [UpdateRule.of(parameters[0], depth, config) for parameters in self._model.specification]
        self._trained = [i for i, rule in enumerate(rules) if rule.rate_factor > 0]  # positions in the model's parameters
        self._optimizer = create_optimizer(
            [(self._model.parameters[i], rules[i]) for i in self._trained], config, scales_loss=self.precision == "fp16"
        )
        programs = _tensorflow_programs if config.backend == "tensorflow" else _jax_programs
        self._programs = programs(self, xla=config.xla)

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
        found = []
        for batch in batches:
            with self._memory_for(batch.num_examples):
                logits = np.asarray(self._programs.predict(self._inputs(batch, self._num_examples, 1.0)))
            found.append(logits[: batch.num_examples])
        return found

    def backward(self, batch: PackedBatch, masks: None) -> float:
        """See the protocol."""
        assert masks is None
        inputs = self._inputs(batch, self._num_examples, 1 / batch.num_examples)
        loss, self._gradients = self._programs.differentiate(inputs)
        return float(loss)

    def clear_gradients(self) -> None:
        """Forget what `backward` left."""
        self._gradients = []

    def gradients(self) -> Weights:
        """See the protocol."""
        return self._model.named(self._gradients)

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.named([variable.value for variable in self._model.parameters])

    def load(self, weights: Weights) -> None:
        """See the protocol."""
        self._model.load(weights, self._seed)

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """See the protocol."""
        return {name: np.asarray(variable.value) for name, variable in self._variables()}

    def restore(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """See the protocol."""
        for name, variable in self._variables():
            variable.assign(state[name].reshape(variable.shape))

    def _variables(self) -> list[tuple[str, Any]]:
        groups = {"weights": self._model.parameters, "optimizer": self._optimizer.variables}
        return [(f"{group}.{i}", variable) for group, found in groups.items() for i, variable in enumerate(found)]

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
        try:
            yield
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            if self._programs.updates_begun() > self._updates:
                raise UpdateInterruptedError(
                    f"The memory of {self.device} ran out while the weights were updated, and some of them have changed: "
                    f"start again with more memory, or go on from the last checkpoint with --resume."
                ) from error
            raise DeviceMemoryError(f"{examples} examples do not fit into the memory of {self.device}.") from error

    def loss(self, inputs: Inputs, masks: "DropoutMasks | None") -> Any:
        """What the objective says of each example, in fp32, summed up with the weights in `inputs`."""
        from keras import ops

        logits, labels = self.logits(inputs, masks), inputs["labels"]
        weights, smoothing = self._objective.class_weights, self._objective.label_smoothing
        if self._objective.kind == "regression":
            losses = ops.square(logits[:, 0] - labels)
        elif self._objective.kind == "multilabel":
            targets = labels * (1 - smoothing) + smoothing / 2
            positive = np.asarray(weights or [1.0] * self._objective.num_outputs, np.float32)
            losses = ops.mean(
                -(positive * targets * ops.log_sigmoid(logits) + (1 - targets) * ops.log_sigmoid(-logits)), axis=1
            )
        else:
            chances = ops.log_softmax(logits)
            losses = -ops.take_along_axis(chances, ops.expand_dims(labels, 1), axis=1)[:, 0]
            if smoothing:
                losses = (1 - smoothing) * losses - smoothing * ops.mean(chances, axis=1)
            if weights:
                losses *= ops.take(np.asarray(weights, np.float32), labels)
        return ops.sum(losses * inputs["weights"])

    def logits(self, inputs: Inputs, masks: "DropoutMasks | None") -> Any:
        """Float32 (S, num_outputs)."""
        names = ("input_ids", "token_type_ids", "position_ids", "sequence_ids", "first_token")
        return self._model(*(inputs[name] for name in names), masks=masks)

    def _inputs(self, batch: PackedBatch, room: int, weight: float) -> Inputs:
        """The batch's arrays, the loss of each example times `weight`, filled up to `room` with some that weigh nothing."""
        missing = room - batch.num_examples
        assert missing >= 0 and not batch.is_flat

        def filled(values: np.ndarray[Any, Any], dtype: type) -> np.ndarray[Any, Any]:
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

    def _is_new(self, parts: Sequence[Inputs], *, in_parts: bool) -> bool:
        """Whether a step on these parts is the first to need one of its programs, which will be traced for it."""
        program = "part" if in_parts else "train"
        needed = {(program, (*part["input_ids"].shape, len(part["weights"]))) for part in parts}
        if in_parts:
            needed.add(("update", ()))
        if self._group.size > 1:
            needed |= {("join", ()), ("take", ())}
        is_new = not needed <= self._seen
        self._seen |= needed
        return is_new


@dataclass(frozen=True)
class Programs:
    """What is compiled, each at its first call with a new shape: of a step in parts nothing before there is one.

    Attributes:
        train: one step on a batch; returns its loss. If it raises, nothing has changed, but for what `updates_begun` says.
        train_in_parts: one step on the sum of the parts' losses, and of those of all processes, likewise.
        differentiate: a loss without dropout, and its gradients by all parameters.
        predict: logits.
        updates_begun: how many updates of the weights have begun, if one that fails may have changed some of them.
    """

    train: Callable[[Inputs], Any]
    train_in_parts: Callable[[Sequence[Inputs]], Any]
    differentiate: Callable[[Inputs], tuple[Any, list[Any]]]
    predict: Callable[[Inputs], Any]
    updates_begun: Callable[[], int]


def _is_out_of_memory(error: Exception) -> bool:
    """TensorFlow has a class of its own, JAX a status in its message; inputs that find no room on a GPU are TensorFlow's.

    A MemoryError comes from tracing, where not the device's allocator but C++ asks for memory.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Dst tensor is not initialized"))


def _tensorflow_programs(backend: KerasBackend, *, xla: bool) -> Programs:
    """The programs as functions that TensorFlow traces once for each shape."""
    import tensorflow as tf

    from isinglass.backends.keras.dropout import DropoutMasks
    from isinglass.backends.keras.process_group import TensorFlowProcessGroup

    tf.get_logger().setLevel("ERROR")  # it warns of tracing more than once: the result counts the few shapes there are
    variables, optimizer = backend._model.parameters, backend._optimizer
    trained = [variables[i] for i in backend._trained]
    begun = tf.Variable(0, dtype=tf.int64, trainable=False)  # updates
    sums: list[Any] = []  # of the parts' gradients, from the first step in parts on

    def differentiate(
        inputs: Inputs, masks: DropoutMasks | None, scale: Callable[[Any], Any], by: list[Any]
    ) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = backend.loss(inputs, masks)
            scaled = scale(loss)
        # a gradient by rows is summed up into a dense one: the clipping needs its norm, Adam all of it
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(scaled, [v.value for v in by])]

    def update(gradients: list[Any]) -> None:
        with tf.control_dependencies(gradients):  # else weights would decay while the memory may still not suffice
            beginning = begun.assign_add(1, read_value=False)
        with tf.control_dependencies([beginning]):
            optimizer.apply(gradients, trained)

    def train(inputs: Inputs) -> Any:
        loss, gradients = differentiate(inputs, DropoutMasks(inputs["key"]), optimizer.scale_loss, trained)
        update(gradients)
        return loss

    def add(inputs: Inputs) -> Any:
        loss, gradients = differentiate(inputs, DropoutMasks(inputs["key"]), optimizer.scale_loss, trained)
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def compiled(program: Callable[..., Any]) -> Any:
        return tf.function(program, jit_compile=xla, autograph=False)

    def on(program: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
        traced = compiled(program)
        return lambda inputs: traced({name: tf.convert_to_tensor(array) for name, array in inputs.items()})

    add_part, update_by_sums = on(add), compiled(lambda: update([total.value() for total in sums]))
    joined = compiled(lambda loss: tf.concat([*(tf.reshape(total, [-1]) for total in sums), [loss]], 0))

    @compiled
    def take(vector: Any) -> Any:
        sizes = [int(np.prod(total.shape)) for total in sums]
        *parts, loss = tf.split(vector, [*sizes, 1])
        for total, part in zip(sums, parts, strict=True):
            total.assign(tf.reshape(part, total.shape))
        return loss[0]

    def train_in_parts(parts: Sequence[Inputs]) -> Any:
        if not sums:
            sums.extend(tf.Variable(tf.zeros_like(variable.value), trainable=False) for variable in trained)
        for total in sums:
            total.assign(tf.zeros_like(total))
        loss = sum(add_part(inputs) for inputs in parts)
        if isinstance(backend._group, TensorFlowProcessGroup):
            loss = take(backend._group.total(joined(loss)))
        update_by_sums()
        return loss

    return Programs(
        train=on(train),
        train_in_parts=train_in_parts,
        differentiate=on(lambda inputs: differentiate(inputs, None, lambda loss: loss, variables)),
        predict=on(lambda inputs: backend.logits(inputs, None)),
        updates_begun=lambda: int(begun),
    )


def _jax_programs(backend: KerasBackend, *, xla: bool) -> Programs:  # noqa: ARG001  # JAX always compiles by XLA
    """The same as functions of the state, which JAX compiles once for each shape."""
    import jax
    import keras

    from isinglass.backends.keras.dropout import DropoutMasks

    variables, optimizer = backend._model.parameters, backend._optimizer

    def differentiate(
        values: list[Any], inputs: Inputs, masks: DropoutMasks | None, scale: Callable[[Any], Any]
    ) -> tuple[Any, list[Any]]:
        def scaled(values: list[Any]) -> tuple[Any, Any]:
            with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                loss = backend.loss(inputs, masks)
                return scale(loss), loss

        gradients, loss = jax.grad(scaled, has_aux=True)(values)
        return loss, gradients

    def differentiate_step(values: list[Any], state: list[Any], inputs: Inputs) -> tuple[Any, list[Any]]:
        with keras.StatelessScope(state_mapping=zip(optimizer.variables, state, strict=True)):
            loss, gradients = differentiate(values, inputs, DropoutMasks(inputs["key"]), optimizer.scale_loss)
        return loss, [gradients[i] for i in backend._trained]

    def update(values: list[Any], state: list[Any], gradients: list[Any]) -> tuple[list[Any], list[Any]]:
        trained = backend._trained
        moved, state = optimizer.stateless_apply(state, gradients, [values[i] for i in trained])
        values = [*values]
        for i, value in zip(trained, moved, strict=True):
            values[i] = value
        return values, state

    @jax.jit
    def step(values: list[Any], state: list[Any], inputs: Inputs) -> tuple[Any, list[Any], list[Any]]:
        loss, gradients = differentiate_step(values, state, inputs)
        return loss, *update(values, state, gradients)

    @partial(jax.jit, donate_argnums=0)
    def add(sums: list[Any], values: list[Any], state: list[Any], inputs: Inputs) -> tuple[Any, list[Any]]:
        loss, gradients = differentiate_step(values, state, inputs)
        return loss, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    update_by_sums = jax.jit(update)

    def now() -> tuple[list[Any], list[Any]]:
        return [v.value for v in variables], [v.value for v in optimizer.variables]

    def take(values: list[Any], state: list[Any]) -> None:
        jax.block_until_ready((values, state))  # that memory is short is told late: what failed must not become the weights
        for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
            variable.assign(value)

    def train(inputs: Inputs) -> Any:
        loss, values, state = step(*now(), inputs)
        take(values, state)
        return loss

    def train_in_parts(parts: Sequence[Inputs]) -> Any:
        values, state = now()
        losses, sums = [], [jax.numpy.zeros_like(values[i]) for i in backend._trained]
        for inputs in parts:
            loss, sums = jax.block_until_ready(add(sums, values, state, inputs))
            losses.append(loss)
        take(*update_by_sums(values, state, sums))
        return sum(losses)

    gradient = jax.jit(lambda values, inputs: differentiate(values, inputs, None, lambda loss: loss))

    @jax.jit
    def logits(values: list[Any], inputs: Inputs) -> Any:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return backend.logits(inputs, None)

    return Programs(
        train=train,
        train_in_parts=train_in_parts,
        differentiate=lambda inputs: gradient(now()[0], inputs),
        predict=lambda inputs: logits(now()[0], inputs),
        updates_begun=lambda: 0,
    )


def _device(backend: str) -> tuple[bool, str]:
    """Whether there is a GPU, and the device in words; TensorFlow's fp32 products on it are to be that, not TF32."""
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            tf.config.experimental.enable_tensor_float_32_execution(False)
            return True, str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name))
        threads = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
        return False, describe_cpu(threads)
    import jax

    device = jax.devices()[0]
    return (True, str(device.device_kind)) if device.platform == "gpu" else (False, describe_cpu(available_cores()))
