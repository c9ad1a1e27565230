"""The programs as functions that TensorFlow traces once for each shape of inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from isinglass.backends.keras.dropout import DropoutMasks
from isinglass.backends.keras.process_group import TensorFlowProcessGroup
from isinglass.backends.keras.programs import Inputs, Learner
from isinglass.backends.process_group import ProcessGroup


class TensorFlowPrograms:
    """See `Programs`. The variables of model and optimizer are updated in place."""

    def __init__(self, learner: Learner, group: ProcessGroup, *, xla: bool) -> None:
        tf.get_logger().setLevel("ERROR")  # it warns of tracing more than once: the result counts the few shapes there are
        self._learner = learner
        self._group = group if isinstance(group, TensorFlowProcessGroup) else None
        self._trained = [learner.model.parameters[i] for i in learner.trained]
        self._begun = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._sums: list[Any] = []  # of the parts' gradients; allocated by the first step in parts

        def compiled(program: Callable[..., Any]) -> Any:
            return tf.function(program, jit_compile=xla, autograph=False)

        self._train = compiled(self._trace_train)
        self._add_part = compiled(self._trace_add_part)
        self._update_by_sums = compiled(lambda: self._update([total.value() for total in self._sums]))
        self._flatten = compiled(self._trace_flatten)
        self._unflatten = compiled(self._trace_unflatten)
        self._predict = compiled(lambda inputs: learner.logits(inputs, None))

    @property
    def updates_begun(self) -> int:
        """See Programs."""
        return int(self._begun)

    def train(self, inputs: Inputs) -> Any:
        """See Programs."""
        return self._train(_to_tensors(inputs))

    def train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        """See Programs."""
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros_like(variable.value), trainable=False) for variable in self._trained]
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        loss = sum(self._add_part(_to_tensors(inputs)) for inputs in parts)
        if self._group is not None:
            loss = self._unflatten(self._group.total(self._flatten(loss)))
        self._update_by_sums()
        return loss

    def predict(self, inputs: Inputs) -> Any:
        """See Programs."""
        return self._predict(_to_tensors(inputs))

    def _trace_train(self, inputs: Inputs) -> Any:
        loss, gradients = self._training_gradients(inputs)
        self._update(gradients)
        return loss

    def _trace_add_part(self, inputs: Inputs) -> Any:
        loss, gradients = self._training_gradients(inputs)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    def _training_gradients(self, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Return a loss with dropout, and its gradients with respect to what is trained, times the loss scale."""
        with tf.GradientTape() as tape:
            loss = self._learner.loss(inputs, DropoutMasks(inputs["key"]))
            scaled = self._learner.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in self._trained])
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]  # dense: clipping and Adam need all rows

    def _update(self, gradients: list[Any]) -> None:
        with tf.control_dependencies(gradients):  # else weights would decay while the memory may still not suffice
            beginning = self._begun.assign_add(1, read_value=False)
        with tf.control_dependencies([beginning]):
            self._learner.optimizer.apply(gradients, self._trained)

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


def _to_tensors(inputs: Inputs) -> Inputs:
    return {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
