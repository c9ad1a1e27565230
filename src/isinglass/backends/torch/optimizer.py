"""AdamW as BERT's fine-tuning uses it: bias correction on, no decay of biases and LayerNorms, gradients clipped."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from isinglass.config import TrainConfig


class Optimizer:
    """AdamW over a model's parameters, and the fp16 loss scale that belongs to it."""

    def __init__(self, parameters: Iterable[tuple[nn.Parameter, float]], config: TrainConfig, *, scales_loss: bool) -> None:
        """Take each parameter with the factor of its learning rate; those of factor 0 are frozen."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for parameter, factor in parameters:
            parameter.requires_grad_(factor > 0)
            if factor > 0:
                groups.setdefault((parameter.ndim < 2, -factor), []).append(parameter)  # biases and LayerNorms are vectors
        ordered = sorted(groups)
        self._max_grad_norm = config.max_grad_norm
        self._parameters = [parameter for group in ordered for parameter in groups[group]]
        self._adamw = torch.optim.AdamW(
            [
                {
                    "params": groups[is_vector, factor],
                    "weight_decay": 0.0 if is_vector else config.weight_decay,
                    "factor": -factor,
                }
                for is_vector, factor in ordered
            ],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler("cuda", enabled=scales_loss)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to differentiate: times the fp16 loss scale, else itself."""
        return self._scaler.scale(loss)

    def step(self, learning_rate: float) -> None:
        """Clip, and step at `learning_rate`; a step whose fp16 gradient overflowed is skipped and the scale lowered."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._scaler.unscale_(self._adamw)
        nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._scaler.step(self._adamw)
        self._scaler.update()

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Moments and step of each parameter that has taken a step, and the fp16 loss scale."""
        found = {
            f"adamw.{i}.{name}": value.cpu().numpy()
            for i, parameter in enumerate(self._parameters)
            for name, value in self._adamw.state.get(parameter, {}).items()
        }
        return found | {f"scaler.{name}": np.array(value) for name, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take what `state` returned."""
        for i, parameter in enumerate(self._parameters):
            prefix = f"adamw.{i}."
            moments = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if moments:
                self._adamw.state[parameter] = {
                    name: torch.from_numpy(value)
                    .reshape(() if name == "step" else parameter.shape)
                    .to(parameter.device)
                    .clone()
                    for name, value in moments.items()
                }
        if self._scaler.is_enabled():
            names = self._scaler.state_dict()
            self._scaler.load_state_dict({name: state[f"scaler.{name}"].item() for name in names})
