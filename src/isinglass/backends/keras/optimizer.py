"""AdamW as BERT's fine-tuning uses it: bias correction on, no decay of biases and LayerNorms, gradients clipped."""

from typing import Any

import keras
from keras import ops, optimizers

from isinglass.backends.protocol import UpdateRule
from isinglass.config import TrainConfig


class _AdamW(optimizers.AdamW):
    """AdamW with epsilon added after bias correction, as in PyTorch and in the paper; Keras adds it before.

    TensorFlow has one kernel for the whole update of a variable, which adds epsilon before: with epsilon times the root of
    the second correction it does the same.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        step = ops.cast(self.iterations + 1, "float32")
        index = self._get_variable_index(variable)
        learning_rate = learning_rate * self.factors[index]
        m, v = self._momentums[index], self._velocities[index]
        power_1, power_2 = ops.power(self.beta_1, step), ops.power(self.beta_2, step)
        bias_1, bias_2 = 1 - power_1, 1 - power_2
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,  # Keras hands over the variable of TensorFlow that lies in its own
                m=m.value.handle,
                v=v.value.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=learning_rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon * ops.sqrt(bias_2),
                grad=gradient,
            )
            return
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        denominator = ops.sqrt(v) / ops.sqrt(bias_2) + self.epsilon
        self.assign_sub(variable, (learning_rate / bias_1) * m / denominator)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        for variable in variables:
            if self.weight_decay and self._use_weight_decay(variable):
                factor = self.factors[self._get_variable_index(variable)]
                rate = ops.cast(self.learning_rate, variable.dtype) * factor * self.weight_decay
                self.assign_sub(variable, ops.multiply(variable, rate))


def create_optimizer(trained: list[tuple[Any, UpdateRule]], config: TrainConfig, *, scales_loss: bool) -> Any:
    """Return AdamW for some variables of a model; with `scales_loss`, inside Keras' dynamic fp16 loss scale.

    Args:
        trained: each variable with the rule for its updates.
    """
    adamw = _AdamW(
        name="adamw",
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        beta_1=config.adam_beta1,
        beta_2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        global_clipnorm=config.max_grad_norm,
    )
    adamw.factors = tuple(rule.rate_factor for _, rule in trained)
    adamw.exclude_from_weight_decay([variable for variable, rule in trained if not rule.decays])
    optimizer = optimizers.LossScaleOptimizer(adamw) if scales_loss else adamw
    optimizer.build([variable for variable, _ in trained])
    return optimizer
