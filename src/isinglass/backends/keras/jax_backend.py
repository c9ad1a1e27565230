"""The backend on JAX: its programs are functions of the state, which are compiled once for each shape of inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import keras

from isinglass.backends.cpu import available_cores, describe_cpu
from isinglass.backends.keras.backend import Inputs, KerasBackend


class State(NamedTuple):
    """The values of the model's parameters and of the optimizer's variables."""

    parameters: list[Any]
    optimizer: list[Any]


class FrameworkBackend(KerasBackend):
    """See KerasBackend. New values replace those of the variables only when all have been computed."""

    def _compile(self) -> None:
        self._step_program = jax.jit(self._trace_step)
        self._part_program = jax.jit(self._trace_part, donate_argnums=0)
        self._update_program = jax.jit(self._trace_update)
        self._predict_program = jax.jit(self._trace_predict)

    def _find_device(self) -> tuple[str, bool]:
        device = jax.devices()[0]
        is_gpu = device.platform == "gpu"
        return str(device.device_kind) if is_gpu else describe_cpu(available_cores()), is_gpu

    def _train(self, inputs: Inputs) -> Any:
        loss, state = self._step_program(self._state(), inputs)
        self._take(state)
        return loss

    def _train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        state = self._state()
        losses, sums = [], [jax.numpy.zeros_like(state.parameters[i]) for i in self._trained]
        for inputs in parts:
            loss, sums = jax.block_until_ready(self._part_program(sums, state, inputs))
            losses.append(loss)
        self._take(self._update_program(state, sums))
        return sum(losses)

    def _predict(self, inputs: Inputs) -> Any:
        return self._predict_program(self._state().parameters, inputs)

    def _state(self) -> State:
        return State([v.value for v in self._parameters], [v.value for v in self._optimizer.variables])

    def _take(self, state: State) -> None:
        jax.block_until_ready(state)  # a lack of memory is reported late: what failed must not become the weights
        variables = [*self._parameters, *self._optimizer.variables]
        for variable, value in zip(variables, [*state.parameters, *state.optimizer], strict=True):
            variable.assign(value)

    def _trace_step(self, state: State, inputs: Inputs) -> tuple[Any, State]:
        loss, gradients = self._training_gradients(state, inputs)
        return loss, self._trace_update(state, gradients)

    def _trace_part(self, sums: list[Any], state: State, inputs: Inputs) -> tuple[Any, list[Any]]:
        loss, gradients = self._training_gradients(state, inputs)
        return loss, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    def _trace_update(self, state: State, gradients: list[Any]) -> State:
        old = [state.parameters[i] for i in self._trained]
        new, optimizer = self._optimizer.stateless_apply(state.optimizer, gradients, old)
        parameters = [*state.parameters]
        for i, value in zip(self._trained, new, strict=True):
            parameters[i] = value
        return State(parameters, optimizer)

    def _training_gradients(self, state: State, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Return a loss with dropout, and its gradients with respect to what is trained, times the loss scale."""

        def scaled_loss(parameters: list[Any]) -> tuple[Any, Any]:
            with self._with_parameters(parameters):
                loss = self._loss(inputs)
                return self._optimizer.scale_loss(loss), loss

        with keras.StatelessScope(state_mapping=zip(self._optimizer.variables, state.optimizer, strict=True)):
            gradients, loss = jax.grad(scaled_loss, has_aux=True)(state.parameters)
        return loss, [gradients[i] for i in self._trained]

    def _trace_predict(self, parameters: list[Any], inputs: Inputs) -> Any:
        with self._with_parameters(parameters):
            return self._model(inputs, masks=None)

    def _with_parameters(self, parameters: list[Any]) -> Any:
        """Return a context in which the model's variables have these values."""
        return keras.StatelessScope(state_mapping=zip(self._parameters, parameters, strict=True))
