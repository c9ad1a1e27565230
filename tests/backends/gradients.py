"""The loss and gradients of a batch without dropout, for every backend. A training step does not return its gradients."""

from collections.abc import Callable
from functools import cache

import numpy as np

from isinglass.backends.protocol import Backend
from isinglass.models.checkpoint import Weights
from isinglass.packing import PackedBatch


def loss_and_gradients(backend: Backend, batch: PackedBatch) -> tuple[float, Weights]:
    """Return the mean loss of a batch and its gradients by canonical name. Afterwards the backend holds no gradients."""
    from isinglass.backends.torch.backend import TorchBackend

    return _of_torch(backend, batch) if isinstance(backend, TorchBackend) else _of_keras(backend, batch)


def _of_torch(backend, batch: PackedBatch) -> tuple[float, Weights]:
    import torch

    from isinglass.backends.torch.backend import MicroBatch

    gradient = backend._differentiate(backend._stage(batch, None), MicroBatch(batch, 0, 0, 1.0, is_last=True))
    backend._word_gradient.add(gradient)
    found: Weights = {}
    for variable, parameters in backend._model.variables():
        whole = torch.zeros_like(variable) if variable.grad is None else variable.grad
        pieces = whole.detach().float().cpu().split([parameter.shape[0] for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            found[parameter.name] = piece.numpy().copy()
    backend._clear_gradients()
    return float(gradient.loss), found


def _of_keras(backend, batch: PackedBatch) -> tuple[float, Weights]:
    inputs = backend._inputs(batch, backend._num_examples, 1 / batch.num_examples)
    loss, gradients = _keras_program(backend)(inputs)
    return float(loss), backend._model.named(gradients)


@cache
def _keras_program(backend) -> Callable:
    """Return a function for loss and gradients, compiled once for each backend and batch shape."""
    import keras

    variables, loss_of = backend._model.parameters, backend._loss
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def differentiate(inputs):
            with tf.GradientTape() as tape:
                loss = loss_of(inputs)
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

        return lambda inputs: differentiate({name: tf.convert_to_tensor(array) for name, array in inputs.items()})

    import jax

    def loss(values, inputs):
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return loss_of(inputs)

    differentiate = jax.jit(jax.value_and_grad(loss))
    return lambda inputs: differentiate([np.asarray(variable.value) for variable in variables], inputs)
