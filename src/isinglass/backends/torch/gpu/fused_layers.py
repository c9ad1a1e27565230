"""All layers but the last of a step in fp16 or bf16 on a GPU, with the gradient written out.

The same arithmetic as `model.Layer` under autocast, in fewer kernels and with less traffic: the weights are cast once for
all layers, large ones by the optimizer in passing; the gradients of weights come out of the products in fp32; and what lies
between the products runs in `triton.kernels` and `triton.attention`. What a layer hands to the next it hands over twice, in
fp32 for the residual and in half for the product.

Shapes: R rows, H hidden size, F intermediate size, N heads of D. "half" stands for fp16 or bf16.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isinglass.backends.torch.cpu.dropout import KernelDropout
from isinglass.backends.torch.gpu.attention import PaddedPlan, TritonPlan, rows_for, three, weight_dropout

_WRITES_FP32: Final = hasattr(torch.ops.aten.mm, "dtype")  # a product of halves, in fp32
TOLERANCE: Final = 0.05  # of the norm of what is off: one layer in bf16 is off by about 0.01
_HALVES: Final = 8  # weights and biases of a layer's four products


class FusableLayer(Protocol):
    """What `model.Layer` has."""

    qkv: nn.Linear
    attention_output: nn.Linear
    attention_norm: nn.LayerNorm
    intermediate: nn.Linear
    output: nn.Linear
    output_norm: nn.LayerNorm
    activation: Any
    attention_rate: float
    attention_output_rate: float
    rate: float

    def __call__(self, x: Tensor, plan: PaddedPlan, masks: None, first_token: None) -> Tensor:
        """(R, H) to (R, H), by PyTorch's kernels."""


class FusedLayers:
    """Runs some layers of a model in training."""

    def __init__(self, layers: Sequence[FusableLayer], half: torch.dtype) -> None:
        self._layers = layers
        self._half = half
        weights = [weight for layer in layers for weight in _parameters(layer)[:_HALVES]]
        self.halves = {weight: weight.detach().to(half) for weight in weights}
        self._cast = weights  # before each step

    def leave_to_optimizer(self, weights: Collection[Tensor]) -> None:
        """It keeps their halves up to date, from here on."""
        self._cast = [weight for weight in self.halves if all(weight is not other for other in weights)]

    def refresh(self) -> None:
        """Weights have changed otherwise than by a step."""
        _cast(self.halves, self.halves)

    def __call__(self, x: Tensor, plan: TritonPlan, dropout: KernelDropout) -> Tensor:
        """fp32 (R, H) to fp32 (R, H)."""
        x = x.float()
        _cast(self.halves, self._cast)
        x_half = x.to(self._half)
        for layer in self._layers:
            parameters = _parameters(layer)
            halves = [self.halves[weight] for weight in parameters[:_HALVES]]
            x, x_half = _Layer.apply(x, x_half, plan, dropout, layer, halves, *parameters)
        return x


def _cast(halves: Mapping[Tensor, Tensor], weights: Iterable[Tensor]) -> None:
    weights = list(weights)
    if weights:
        torch._foreach_copy_([halves[weight] for weight in weights], [weight.detach() for weight in weights])


def why_not_fused(layers: Sequence[FusableLayer], num_heads: int, half: torch.dtype) -> str | None:
    """Why these layers cannot train that way on their device, found by trying too; None if they can."""
    from isinglass.backends.torch.gpu.triton.kernels import MAX_COLUMNS

    if any(layer.activation is not F.gelu for layer in layers):
        return "their activation is not GELU"
    if (H := layers[0].output.out_features) > MAX_COLUMNS:
        return f"the hidden size {H} is above {MAX_COLUMNS}"
    return _failure(layers[0], num_heads, half)


def _failure(layer: FusableLayer, num_heads: int, half: torch.dtype) -> str | None:
    """What is wrong with one layer fused: without dropout it has to do what it does in fp32."""
    device, H, lengths = layer.qkv.weight.device, layer.output.out_features, np.array([3, 17, 40])
    rows = rows_for(int(lengths.sum()))
    still: Any = SimpleNamespace(**{name: getattr(layer, name) for name in FusableLayer.__annotations__})
    still.attention_rate = still.attention_output_rate = still.rate = 0.0
    generator = torch.Generator(device).manual_seed(0)
    x, grad = torch.randn(2, rows, H, generator=generator, device=device).unbind(0)
    x.requires_grad_()
    parameters = [one for one in _parameters(layer) if one.requires_grad]

    def tried(kind: type[TritonPlan] | type[PaddedPlan], run: Callable[[Any], Tensor]) -> list[Tensor]:
        arrays = (torch.from_numpy(array).to(device) for array in kind.arrays(lengths, rows))
        out = run(kind.of(lengths, rows, num_heads, tuple(arrays)))
        return [out.detach(), *torch.autograd.grad(out, (x, *parameters), grad)]

    dropout = KernelDropout(0, 0, device)
    dropout.arrive([torch.from_numpy(array).to(device) for array in dropout.arrays])
    try:
        expected = tried(PaddedPlan, lambda plan: layer(x, plan, None, None))
        found = tried(TritonPlan, lambda plan: FusedLayers([still], half)(x, plan, dropout))
        dropped = tried(TritonPlan, lambda plan: FusedLayers([layer], half)(x, plan, dropout))
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"they fail on this GPU ({str(error).splitlines()[0][:200]})"
    off = [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
    off += [0.0 if bool(each.isfinite().all()) else math.inf for each in dropped]
    return None if max(off) <= TOLERANCE else f"their results on this GPU are {max(off):.2g} off"


def _parameters(layer: FusableLayer) -> list[Tensor]:
    """Weight and bias of the four products, then of the two norms."""
    products = layer.qkv, layer.attention_output, layer.intermediate, layer.output
    modules = (*products, layer.attention_norm, layer.output_norm)
    return [parameter for module in modules for parameter in (module.weight, module.bias)]


class _Layer(torch.autograd.Function):
    """x in fp32 and in half, to the same after one layer."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, x_half: Tensor, plan: TritonPlan, dropout: KernelDropout, layer: FusableLayer,
        halves: list[Tensor], *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        from isinglass.backends.torch.gpu.triton.attention import attend
        from isinglass.backends.torch.gpu.triton.kernels import add_norm

        qkv_weight, qkv_bias, out_weight, out_bias, in_weight, in_bias, fed_weight, fed_bias = halves
        attention_gain, attention_bias, output_gain, output_bias = parameters[_HALVES:]
        of_weights, places = weight_dropout(layer.attention_rate, dropout), dropout.places(2)
        qkv = torch.addmm(qkv_bias, x_half, qkv_weight.t())
        context, log_sums = attend(*three(qkv), plan.num_heads, plan.ends(), of_weights)
        attended = torch.addmm(out_bias, context, out_weight.t())
        eps = layer.attention_norm.eps
        y, y_half, *of_first = add_norm(
            attended, x, attention_gain, attention_bias, eps, layer.attention_output_rate, dropout.key, places[0]
        )
        inner = torch.addmm(in_bias, y_half, in_weight.t())
        active = F.gelu(inner)
        fed = torch.addmm(fed_bias, active, fed_weight.t())
        eps = layer.output_norm.eps
        z, z_half, *of_second = add_norm(fed, y, output_gain, output_bias, eps, layer.rate, dropout.key, places[1])
        ctx.plan, ctx.layer, ctx.halves, ctx.places, ctx.key = plan, layer, halves, places, dropout.key
        ctx.of_weights = of_weights
        ctx.save_for_backward(
            x_half, qkv, context, log_sums, y_half, inner, active, attention_gain, output_gain, *of_first, *of_second
        )
        ctx.set_materialize_grads(False)
        return z, z_half

    @staticmethod
    def backward(ctx: Any, of_z: Tensor | None, of_z_half: Tensor | None) -> tuple[Tensor | None, ...]:
        from isinglass.backends.torch.gpu.triton import kernels
        from isinglass.backends.torch.gpu.triton.attention import attend_backward

        layer, plan, key = ctx.layer, ctx.plan, ctx.key
        of_z, of_z_half = (None if each is None else each.contiguous() for each in (of_z, of_z_half))
        qkv_weight, _, out_weight, _, in_weight, _, fed_weight, _ = ctx.halves
        x_half, qkv, context, log_sums, y_half, inner, active, attention_gain, output_gain, *sums = ctx.saved_tensors
        summed_1, mean_1, rstd_1, summed_2, mean_2, rstd_2 = sums
        H, half = x_half.shape[1], x_half.dtype
        widths = [3 * H, inner.shape[1], 3 * H]  # of the sums over rows
        partial = torch.empty(kernels.PROGRAMS, sum(widths), device=qkv.device)
        of_first, of_in_bias, of_second = partial.split(widths, 1)

        of_y, of_fed = kernels.add_norm_backward(
            of_z, of_z_half, summed_2, mean_2, rstd_2, output_gain, layer.rate, key, ctx.places[1], of_second, half
        )
        of_inner = kernels.gelu_backward(of_fed @ fed_weight, inner, of_in_bias)
        of_x, of_attended = kernels.add_norm_backward(
            of_y, of_inner @ in_weight, summed_1, mean_1, rstd_1, attention_gain, layer.attention_output_rate, key,
            ctx.places[0], of_first, half,
        )  # fmt: skip
        of_context, of_qkv = of_attended @ out_weight, torch.empty_like(qkv)
        of_qkv_sums = attend_backward(of_context, *three(qkv), context, log_sums, plan.ends(), ctx.of_weights, three(of_qkv))
        first, in_bias, second = kernels.column_sums(partial).split(widths)
        return (
            of_x, of_qkv @ qkv_weight, None, None, None, None,
            _fp32_product(of_qkv, x_half), kernels.column_sums(of_qkv_sums),
            _fp32_product(of_attended, context), first[2 * H :],
            _fp32_product(of_inner, y_half), in_bias,
            _fp32_product(of_fed, active), second[2 * H :],
            first[:H], first[H : 2 * H], second[:H], second[H : 2 * H],
        )  # fmt: skip


def _fp32_product(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (out, in) of a weight, fp32: of half (R, out) and (R, in)."""
    if _WRITES_FP32:
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    return (grad.t() @ x).float()
