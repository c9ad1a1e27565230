"""The Keras backend, on TensorFlow or JAX: a classifier, its optimizer and its device behind the backends' protocol."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32

from isinglass.backends.cpu import available_cores, describe_cpu, has_fast_bf16, peak_resident_bytes
from isinglass.backends.protocol import Objective, rate_factor, slow_bf16
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, DeviceMemoryError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch

if TYPE_CHECKING:
    from isinglass.backends.keras.dropout import DropoutMasks

Inputs = dict[str, Any]  # name -> tensor: what a compiled program takes
_POLICY: Final = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective) -> "KerasBackend":
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
    return KerasBackend(config, checkpoint, objective)


class KerasBackend:
    """See `backends.protocol.Backend`."""

    def __init__(self, config: TrainConfig, checkpoint: Checkpoint, objective: Objective) -> None:
        from isinglass.backends.keras.model import Classifier
        from isinglass.backends.keras.optimizer import create_optimizer

        on_gpu, self.device = _device(config.backend)
        self.precision = config.precision_on("gpu" if on_gpu else "cpu")
        self.notes: list[str] = []
        if self.precision == "bf16" and not on_gpu and not has_fast_bf16():
            self.notes.append(slow_bf16(self.device))
        self.compile_seconds = 0.0
        self._seed = config.seed
        self._objective = objective
        self._num_examples = config.batch_size  # every batch is filled up to it: one shape less to compile for
        self._losses: list[Any] = []
        self._seen: set[tuple[str, tuple[int, ...]]] = set()
        self._gradients: list[Any] = []
        shape = checkpoint.config.with_dropout(config.dropout)
        self._model = Classifier(shape, objective.num_outputs, _POLICY[self.precision])
        self._model.load(checkpoint.weights, config.seed)
        factors = [rate_factor(depth, shape.num_hidden_layers, config) for depth in self._model.depths]
        self._trained = [i for i, factor in enumerate(factors) if factor > 0]  # positions in the model's parameters
        self._optimizer = create_optimizer(
            [self._model.parameters[i] for i in self._trained],
            [factors[i] for i in self._trained],
            config,
            scales_loss=self.precision == "fp16",
        )
        programs = _tensorflow_programs if config.backend == "tensorflow" else _jax_programs
        self._train, self._differentiate, self._predict = programs(self, xla=config.xla)

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float) -> None:
        """See the protocol."""
        from isinglass.backends.keras.dropout import step_key

        if len(batches) > 1:
            raise DeviceMemoryError(
                f"A step of {self._num_examples} examples does not fit into the memory of {self.device}, and this backend "
                f"does not cut steps into parts: lower --batch-size, or use --backend torch."
            )
        (batch,) = batches
        started = self._start_of_new_shape("train", batch)
        self._optimizer.learning_rate = learning_rate
        inputs = self._inputs(batch) | {"key": step_key(self._seed, step)}
        try:
            self._losses.append(self._train(inputs))
        except Exception as error:
            if type(error).__name__ != "ResourceExhaustedError" and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise DeviceMemoryError(f"{batch.num_examples} examples do not fit into the memory of {self.device}.") from error
        if started is not None:
            self.synchronize()
            self.compile_seconds += time.perf_counter() - started

    def take_losses(self) -> list[float]:
        """See the protocol."""
        losses, self._losses = self._losses, []
        return [float(loss) for loss in losses]

    def predict(self, batch: PackedBatch) -> Float32[np.ndarray, "S outputs"]:
        """See the protocol."""
        logits = np.asarray(self._predict(self._inputs(batch)))[: batch.num_examples]
        found: Float32[np.ndarray, "S outputs"] = logits
        return found

    def backward(self, batch: PackedBatch, masks: None) -> float:
        """See the protocol."""
        assert masks is None
        loss, self._gradients = self._differentiate(self._inputs(batch))
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
        return sum(program == "train" for program, _ in self._seen)

    def synchronize(self) -> None:
        """See the protocol."""
        if self._losses:
            float(self._losses[-1])

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        return peak_resident_bytes()

    def loss(self, inputs: Inputs, masks: "DropoutMasks | None") -> Any:
        """Mean over the examples of what the objective says, in fp32."""
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

    def _inputs(self, batch: PackedBatch) -> Inputs:
        """The batch's arrays, filled up to the batch size with examples that weigh nothing."""
        missing = self._num_examples - batch.num_examples
        assert missing >= 0 and not batch.is_flat

        def filled(values: np.ndarray[Any, Any], dtype: type) -> np.ndarray[Any, Any]:
            return np.pad(values.astype(dtype), ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        inputs: Inputs = {
            "input_ids": batch.input_ids,
            "token_type_ids": batch.token_type_ids,
            "position_ids": batch.position_ids,
            "sequence_ids": batch.sequence_ids,
            "first_token": filled(batch.first_token, np.int32),
            "weights": filled(np.full(batch.num_examples, 1 / batch.num_examples), np.float32),
        }
        if batch.labels is not None:
            inputs["labels"] = filled(batch.labels, np.int32 if self._objective.kind == "classification" else np.float32)
        return inputs

    def _start_of_new_shape(self, program: str, batch: PackedBatch) -> float | None:
        """The time, if this batch is the first of its shape and so will be traced for."""
        if (program, batch.input_ids.shape) in self._seen:
            return None
        self._seen.add((program, batch.input_ids.shape))
        return time.perf_counter()


Programs = tuple[Callable[[Inputs], Any], Callable[[Inputs], tuple[Any, list[Any]]], Callable[[Inputs], Any]]


def _tensorflow_programs(backend: KerasBackend, *, xla: bool) -> Programs:
    """A training step, loss with gradients, and prediction, as functions that TensorFlow traces once for each shape."""
    import tensorflow as tf

    from isinglass.backends.keras.dropout import DropoutMasks

    tf.get_logger().setLevel("ERROR")  # it warns of tracing more than once: the result counts the few shapes there are
    variables, optimizer = backend._model.parameters, backend._optimizer
    trained = [variables[i] for i in backend._trained]

    def differentiate(
        inputs: Inputs, masks: DropoutMasks | None, scale: Callable[[Any], Any], by: list[Any]
    ) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            loss = backend.loss(inputs, masks)
            scaled = scale(loss)
        # a gradient by rows is summed up into a dense one: the clipping needs its norm, Adam all of it
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(scaled, [v.value for v in by])]

    def train(inputs: Inputs) -> Any:
        loss, gradients = differentiate(inputs, DropoutMasks(inputs["key"]), optimizer.scale_loss, trained)
        optimizer.apply(gradients, trained)
        return loss

    compiled = [
        tf.function(program, jit_compile=xla, autograph=False)
        for program in (
            train,
            lambda inputs: differentiate(inputs, None, lambda loss: loss, variables),
            lambda inputs: backend.logits(inputs, None),
        )
    ]

    def on(program: Any) -> Callable[[Inputs], Any]:
        return lambda inputs: program({name: tf.convert_to_tensor(array) for name, array in inputs.items()})

    first, second, third = (on(program) for program in compiled)
    return first, second, third


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

    @jax.jit
    def step(values: list[Any], state: list[Any], inputs: Inputs) -> tuple[Any, list[Any], list[Any]]:
        with keras.StatelessScope(state_mapping=zip(optimizer.variables, state, strict=True)):
            loss, gradients = differentiate(values, inputs, DropoutMasks(inputs["key"]), optimizer.scale_loss)
        trained = backend._trained
        moved, state = optimizer.stateless_apply(state, [gradients[i] for i in trained], [values[i] for i in trained])
        values = [*values]
        for i, value in zip(trained, moved, strict=True):
            values[i] = value
        return loss, values, state

    def train(inputs: Inputs) -> Any:
        loss, values, state = step([v.value for v in variables], [v.value for v in optimizer.variables], inputs)
        for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
            variable.assign(value)
        return loss

    def now() -> list[Any]:
        return [v.value for v in variables]

    gradient = jax.jit(lambda values, inputs: differentiate(values, inputs, None, lambda loss: loss))

    @jax.jit
    def logits(values: list[Any], inputs: Inputs) -> Any:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return backend.logits(inputs, None)

    return train, lambda inputs: gradient(now(), inputs), lambda inputs: logits(now(), inputs)


def _device(backend: str) -> tuple[bool, str]:
    """Whether there is a GPU, and the device in words."""
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return True, str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name))
        threads = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
        return False, describe_cpu(threads)
    import jax

    device = jax.devices()[0]
    return (True, str(device.device_kind)) if device.platform == "gpu" else (False, describe_cpu(available_cores()))
