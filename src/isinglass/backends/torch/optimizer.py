"""AdamW as BERT's fine-tuning uses it: bias correction, no decay of biases and LayerNorms, gradients clipped."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isinglass.backends.protocol import UpdateRule
from isinglass.config import TrainConfig

LARGE: Final = 1 << 18  # elements of a parameter that is worth a kernel of its own


class Optimizer:
    """AdamW over a model's parameters, and the loss scale of fp16."""

    def __init__(
        self, parameters: Iterable[tuple[nn.Parameter, UpdateRule]], config: TrainConfig, halves: Mapping[Tensor, Tensor],
        *, scales_loss: bool,
    ) -> None:  # fmt: skip
        """Take each parameter with the rule for its updates. Those with a rate factor of 0 are frozen.

        Args:
            halves: parameter -> its copy in half precision, which each step updates. Where there are any, large parameters
                step by `triton.kernels`, but not in fp16, where a step may be skipped.
            scales_loss: whether the precision is fp16.
        """
        self._max_grad_norm = config.max_grad_norm
        groups = _group(parameters, config.weight_decay)
        self._parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self._large = _take_large(groups) if halves and not scales_loss else []  # PyTorch steps the others
        self._halves = halves
        self._cast_after_step = [small for group in groups for small in group["params"] if small in halves]
        device = self._parameters[0].device
        on_gpu = device.type == "cuda"
        self._betas, self._epsilon = (config.adam_beta1, config.adam_beta2), config.adam_epsilon
        self._adamw = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=self._betas, eps=self._epsilon, fused=True, capturable=on_gpu
        )
        self._factors = torch.tensor([group["factor"] for group in groups], device=device)
        self._rates: Tensor | None = None  # (groups,): on a GPU a recorded step reads the learning rates there
        if on_gpu:
            self._rates = torch.zeros_like(self._factors)
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
        self._groups = groups
        self._scaler = torch.amp.GradScaler("cuda", enabled=scales_loss)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate: times the loss scale in fp16."""
        return self._scaler.scale(loss)

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the following steps. This is not part of a recorded step."""
        if self._rates is not None:
            torch.mul(self._factors, rate, out=self._rates)
            return
        for group in self._groups:
            group["lr"] = rate * group["factor"]

    def step(self) -> None:
        """Clip the gradients, and step. In fp16 a step whose gradient overflowed is skipped, and the loss scale lowered."""
        self._scaler.unscale_(self._adamw)
        if self._scaler.is_enabled():
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
            scale = ((norm + 1e-6) / self._max_grad_norm).clamp(min=1)
            self._adamw.grad_scale = scale  # type: ignore[attr-defined]  # the fused step divides by it
            self._step_large(scale)
        self._scaler.step(self._adamw)
        self._scaler.update()
        copy_weights(self._cast_after_step, self._halves)

    def _step_large(self, scale: Tensor) -> None:
        """Step the large parameters by `triton.kernels`, with their gradients divided by `scale`."""
        large = [(parameter, group, parameter.grad) for parameter, group in self._large if parameter.grad is not None]
        if not large:
            return
        from isinglass.backends.torch.gpu.triton.kernels import adamw

        states = [self._moments(parameter) for parameter, _, _ in large]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        (beta1, beta2), t = self._betas, steps[0].double()  # all have taken the same number of steps
        corrections = torch.stack([1 - beta1**t, (1 - beta2**t).sqrt()]).float()
        for (parameter, group, grad), state in zip(large, states, strict=True):
            adamw(
                parameter.detach(), state["exp_avg"], state["exp_avg_sq"], grad, scale, group["lr"], corrections,
                betas=self._betas, eps=self._epsilon, decay=group["weight_decay"], half=self._halves.get(parameter),
            )  # fmt: skip

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Return step and moments of a parameter, zero at first, where PyTorch's AdamW has its own."""
        state: dict[str, Tensor] = self._adamw.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

    def state(self) -> dict[str, NDArray[Any]]:
        """Return moments and step of each parameter that has taken a step, and the loss scale of fp16."""
        arrays = {
            f"adamw.{i}.{name}": value.cpu().numpy()
            for i, parameter in enumerate(self._parameters)
            for name, value in self._adamw.state.get(parameter, {}).items()
        }
        return arrays | {f"scaler.{name}": np.array(value) for name, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned."""
        for key, array in state.items():
            if key.startswith("adamw."):
                _, index, name = key.split(".")
                parameter = self._parameters[int(index)]
                moment = torch.from_numpy(array).reshape(() if name == "step" else parameter.shape)
                self._adamw.state[parameter][name] = moment.to(parameter.device).clone()
        if self._scaler.is_enabled():
            self._scaler.load_state_dict({name: state[f"scaler.{name}"].item() for name in self._scaler.state_dict()})


def _group(parameters: Iterable[tuple[nn.Parameter, UpdateRule]], weight_decay: float) -> list[dict[str, Any]]:
    """Freeze parameters of factor 0, and group the others by their rules, as PyTorch's optimizers take them.

    Checkpoints rely on the order of the groups: those with weight decay first, larger factors first.
    """
    by_rule: dict[UpdateRule, list[nn.Parameter]] = {}
    for parameter, rule in parameters:
        parameter.requires_grad_(rule.rate_factor > 0)
        if rule.rate_factor > 0:
            by_rule.setdefault(rule, []).append(parameter)
    return [
        {"params": by_rule[rule], "factor": rule.rate_factor, "weight_decay": weight_decay if rule.decays else 0.0}
        for rule in sorted(by_rule, key=lambda rule: (not rule.decays, -rule.rate_factor))
    ]


def _take_large(groups: Iterable[dict[str, Any]]) -> list[tuple[nn.Parameter, dict[str, Any]]]:
    """Remove the large parameters from the groups, and return each with its group."""
    large = []
    for group in groups:
        large += [(parameter, group) for parameter in group["params"] if parameter.numel() >= LARGE]
        group["params"] = [parameter for parameter in group["params"] if parameter.numel() < LARGE]
    return large


def copy_weights(weights: Sequence[Tensor], copies: Mapping[Tensor, Tensor]) -> None:
    """Write weights into their copies, cast, all at once."""
    if weights:
        torch._foreach_copy_([copies[weight] for weight in weights], [weight.detach() for weight in weights])
