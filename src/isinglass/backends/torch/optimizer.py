"""AdamW as BERT's fine-tuning uses it: bias correction on, no decay of biases and LayerNorms, gradients clipped."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from isinglass.backends.update_rule import UpdateRule
from isinglass.config import TrainConfig

LARGE: Final = 1 << 18  # elements: a parameter worth a kernel of its own


class Optimizer:
    """AdamW over a model's parameters, and the fp16 loss scale that belongs to it."""

    def __init__(
        self,
        parameters: Iterable[tuple[nn.Parameter, UpdateRule]],
        config: TrainConfig,
        *,
        scales_loss: bool,
        halves: Mapping[Tensor, Tensor] | None = None,
    ) -> None:
        """Take each parameter with the rule for its updates; those with a rate factor of 0 are frozen.

        Args:
            scales_loss: in fp16.
            halves: copies of parameters in another precision. Given, large parameters step by `triton.kernels`, which keep
                theirs up to date. Not in fp16.
        """
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for parameter, rule in parameters:
            parameter.requires_grad_(rule.rate_factor > 0)
            if rule.rate_factor > 0:
                groups.setdefault((not rule.decays, -rule.rate_factor), []).append(parameter)
        ordered = sorted(groups)
        self._max_grad_norm = config.max_grad_norm
        self._parameters = [parameter for group in ordered for parameter in groups[group]]
        self._factors = [-factor for _, factor in ordered]
        decays = [0.0 if is_exempt else config.weight_decay for is_exempt, _ in ordered]
        self._large: list[tuple[nn.Parameter, int]] = []  # with the number of its group
        for i, group in enumerate(ordered):
            large = [parameter for parameter in groups[group] if halves is not None and parameter.numel() >= LARGE]
            self._large += [(parameter, i) for parameter in large]
            groups[group] = [parameter for parameter in groups[group] if all(parameter is not other for other in large)]
        self._groups = [i for i, group in enumerate(ordered) if groups[group]]  # those that PyTorch steps
        self.halves = {one: halves[one] for one, _ in self._large if halves and one in halves}  # those kept up to date
        on_gpu = self._parameters[0].is_cuda
        self._adamw = torch.optim.AdamW(
            [{"params": groups[ordered[i]], "weight_decay": decays[i]} for i in self._groups],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
            capturable=on_gpu,
        )
        self._decays = decays
        self._betas, self._epsilon = (config.adam_beta1, config.adam_beta2), config.adam_epsilon
        self._rates: Tensor | None = None  # on a GPU the learning rates lie there, where a recorded step reads them
        if on_gpu:
            device = self._parameters[0].device
            self._rates = torch.zeros(2, len(ordered), device=device)  # the factors, and times the learning rate
            self._rates[0] = torch.tensor(self._factors, device=device)
            for options, i in zip(self._adamw.param_groups, self._groups, strict=True):
                options["lr"] = self._rates[1, i]
        self._scaler = torch.amp.GradScaler("cuda", enabled=scales_loss)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate: times the fp16 loss scale, else itself."""
        return self._scaler.scale(loss)

    def set_learning_rate(self, rate: float) -> None:
        """Of the steps from here on. Not part of a recorded step."""
        if self._rates is not None:
            torch.mul(self._rates[0], rate, out=self._rates[1])
            return
        for options, i in zip(self._adamw.param_groups, self._groups, strict=True):
            options["lr"] = rate * self._factors[i]

    def step(self) -> None:
        """Clip, and step; a step whose fp16 gradient overflowed is skipped and the scale lowered."""
        self._scaler.unscale_(self._adamw)
        if self._scaler.is_enabled():
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        else:  # the fused step divides by it in passing
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
            scale = ((norm + 1e-6) / self._max_grad_norm).clamp(min=1)
            self._adamw.grad_scale = scale  # type: ignore[attr-defined]
            self._step_large(scale)
        self._scaler.step(self._adamw)
        self._scaler.update()

    def _step_large(self, scale: Tensor) -> None:
        large = [(parameter, i) for parameter, i in self._large if parameter.grad is not None]
        if not large:
            return
        from isinglass.backends.torch.gpu.triton.kernels import adamw

        states = [self._adamw.state[parameter] for parameter, _ in large]
        for (parameter, _), state in zip(large, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        beta1, beta2 = self._betas
        t = steps[0].double()  # all have taken the same
        corrections = torch.stack([1 - beta1**t, (1 - beta2**t).sqrt()]).float()
        assert self._rates is not None
        for (parameter, i), state in zip(large, states, strict=True):
            assert parameter.grad is not None
            adamw(
                parameter.detach(), state["exp_avg"], state["exp_avg_sq"], parameter.grad, scale, self._rates[1, i],
                corrections, betas=self._betas, eps=self._epsilon, decay=self._decays[i], half=self.halves.get(parameter),
            )  # fmt: skip

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
