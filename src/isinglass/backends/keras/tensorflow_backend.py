"""The backend on TensorFlow: its programs are functions that are traced once for each shape of inputs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from isinglass.backends.cpu import available_cores, describe_cpu
from isinglass.backends.keras.backend import Inputs, KerasBackend
from isinglass.backends.keras.process_group import TensorFlowProcessGroup


class FrameworkBackend(KerasBackend):
    """See KerasBackend. The variables of model and optimizer are updated in place."""

    def _compile(self) -> None:
        tf.get_logger().setLevel("ERROR")  # it warns of tracing more than once: the result counts the few shapes there are
        self._trained_variables = [self._parameters[i] for i in self._trained]
        self._begun = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._sums: list[Any] = []  # of the parts' gradients; allocated by the first step in parts
        compiled = partial(tf.function, jit_compile=self._xla, autograph=False)
        self._train = compiled(self._trace_train)
        self._part_program = compiled(self._trace_part)
        self._update_program = compiled(lambda: self._update([total.value() for total in self._sums]))
        self._flatten_program = compiled(self._trace_flatten)
        self._unflatten_program = compiled(self._trace_unflatten)
        # called as a layer: `call` by itself gives other sums on TensorFlow without XLA
        self._predict = compiled(lambda inputs: self._model(inputs, masks=None))

    def _find_device(self) -> tuple[str, bool]:
        """Return the device; fp32 products on a GPU are set to be fp32, not TF32."""
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            tf.config.experimental.enable_tensor_float_32_execution(False)
            details = tf.config.experimental.get_device_details(gpus[0])
            return str(details.get("device_name", gpus[0].name)), True
        return describe_cpu(tf.config.threading.get_intra_op_parallelism_threads() or available_cores()), False

    def _updates_begun(self) -> int:
        return int(self._begun)

    def _train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros_like(v.value), trainable=False) for v in self._trained_variables]
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        loss = sum(self._part_program(inputs) for inputs in parts)
        if isinstance(self._group, TensorFlowProcessGroup):
            loss = self._unflatten_program(self._group.total(self._flatten_program(loss)))
        self._update_program()
        return loss

    def _trace_train(self, inputs: Inputs) -> Any:
        loss, gradients = self._training_gradients(inputs)
        self._update(gradients)
        return loss

    def _trace_part(self, inputs: Inputs) -> Any:
        loss, gradients = self._training_gradients(inputs)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _training_gradients(self, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Return a loss with dropout, and its gradients with respect to what is trained, times the loss scale."""
        with tf.GradientTape() as tape:
            loss = self._loss(inputs)
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in self._trained_variables])
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]  # dense: clipping and Adam need all rows

    def _update(self, gradients: list[Any]) -> None:
        with tf.control_dependencies(gradients):  # else weights would decay while the memory may still not suffice
            beginning = self._begun.assign_add(1, read_value=False)
        with tf.control_dependencies([beginning]):
            self._optimizer.apply(gradients, self._trained_variables)

    def _trace_flatten(self, loss: Any) -> Any:
        """Return all sums and the loss as one vector, to be added up over the processes."""
        return tf.concat([*(tf.reshape(total, [-1]) for total in self._sums), [loss]], 0)

    def _trace_unflatten(self, vector: Any) -> Any:
        """Take the sums out of a vector, and return the loss in it."""
        sizes = [int(np.prod(total.shape)) for total in self._sums]
        *parts, loss = tf.split(vector, [*sizes, 1])
        for total, part in zip(self._sums, parts, strict=True):
            total.assign(tf.reshape(part, total.shape))
        return loss[0]
