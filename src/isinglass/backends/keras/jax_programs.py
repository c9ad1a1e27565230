"""The programs as functions of the state, which JAX compiles once for each shape of inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import keras

from isinglass.backends.keras.dropout import DropoutMasks
from isinglass.backends.keras.programs import Inputs, Learner


class State(NamedTuple):
    """The values of the model's parameters and of the optimizer's variables."""

    parameters: list[Any]
    optimizer: list[Any]


class JaxPrograms:
    """See `Programs`. New values replace those of the variables only when all have been computed."""

    updates_begun = 0

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._variables = learner.model.parameters
        self._step = jax.jit(self._trace_step)
        self._add_part = jax.jit(self._trace_add_part, donate_argnums=0)
        self._update = jax.jit(self._trace_update)
        self._predict = jax.jit(self._trace_predict)

    def train(self, inputs: Inputs) -> Any:
        """See Programs."""
        loss, state = self._step(self._state(), inputs)
        self._take(state)
        return loss

    def train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        """See Programs."""
        state = self._state()
        losses, sums = [], [jax.numpy.zeros_like(state.parameters[i]) for i in self._learner.trained]
        for inputs in parts:
            loss, sums = jax.block_until_ready(self._add_part(sums, state, inputs))
            losses.append(loss)
        self._take(self._update(state, sums))
        return sum(losses)

    def predict(self, inputs: Inputs) -> Any:
        """See Programs."""
        return self._predict(self._state().parameters, inputs)

    def _state(self) -> State:
        return State([v.value for v in self._variables], [v.value for v in self._learner.optimizer.variables])

    def _take(self, state: State) -> None:
        jax.block_until_ready(state)  # a lack of memory is reported late: what failed must not become the weights
        variables = [*self._variables, *self._learner.optimizer.variables]
        for variable, value in zip(variables, [*state.parameters, *state.optimizer], strict=True):
            variable.assign(value)

    def _trace_step(self, state: State, inputs: Inputs) -> tuple[Any, State]:
        loss, gradients = self._training_gradients(state, inputs)
        return loss, self._trace_update(state, gradients)

    def _trace_add_part(self, sums: list[Any], state: State, inputs: Inputs) -> tuple[Any, list[Any]]:
        loss, gradients = self._training_gradients(state, inputs)
        return loss, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    def _trace_update(self, state: State, gradients: list[Any]) -> State:
        trained = self._learner.trained
        old = [state.parameters[i] for i in trained]
        new, optimizer = self._learner.optimizer.stateless_apply(state.optimizer, gradients, old)
        parameters = [*state.parameters]
        for i, value in zip(trained, new, strict=True):
            parameters[i] = value
        return State(parameters, optimizer)

    def _training_gradients(self, state: State, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Return a loss with dropout, and its gradients with respect to what is trained, times the loss scale."""
        optimizer = self._learner.optimizer

        def scaled_loss(parameters: list[Any]) -> tuple[Any, Any]:
            with self._with_parameters(parameters):
                loss = self._learner.loss(inputs, DropoutMasks(inputs["key"]))
                return optimizer.scale_loss(loss), loss

        with keras.StatelessScope(state_mapping=zip(optimizer.variables, state.optimizer, strict=True)):
            gradients, loss = jax.grad(scaled_loss, has_aux=True)(state.parameters)
        return loss, [gradients[i] for i in self._learner.trained]

    def _trace_predict(self, parameters: list[Any], inputs: Inputs) -> Any:
        with self._with_parameters(parameters):
            return self._learner.logits(inputs, None)

    def _with_parameters(self, parameters: list[Any]) -> Any:
        """Return a context in which the model's variables have these values."""
        return keras.StatelessScope(state_mapping=zip(self._variables, parameters, strict=True))
