"""All layers but the last in fp16 or bf16 on a GPU, with the gradient written out.

This is the arithmetic of `model.Layer` under autocast, in fewer kernels and with less memory traffic. The weights are cast
once for all layers, large ones by the optimizer as it writes them. The gradients of weights leave the products in fp32. What
lies between the products runs in `triton.kernels` and `triton.attention`. A layer hands its result on twice: in fp32 for the
residual, and in half precision for the product.

Shapes: R rows, H hidden size, F intermediate size, N heads of D. "half" stands for fp16 or bf16.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isinglass.backends.torch.attention import AttentionPlan
from isinglass.backends.torch.dropout import NO_DROPOUT, Dropout
from isinglass.backends.torch.gpu.attention import ROWS, GpuPlan, PaddedPlan, TritonPlan
from isinglass.backends.torch.gpu.dropout import KernelDropout, PlacedDropout, begin_dropout
from isinglass.backends.torch.gpu.sequences import Projections

if TYPE_CHECKING:
    from isinglass.backends.torch.model import Layer

_WRITES_FP32: Final = hasattr(torch.ops.aten.mm, "dtype")  # whether a product of halves can be written in fp32
TOLERANCE: Final = 0.05  # relative norm of the error; one layer in bf16 has about 0.01
_PROBE_LENGTHS: Final = np.array([3, 17, 40])


class LayerParameters(NamedTuple):
    """The parameters of a layer, or their gradients: of its four products, and of its two norms, (H,) each."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    attention_output_weight: Tensor
    attention_output_bias: Tensor
    intermediate_weight: Tensor
    intermediate_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor
    attention_norm_gain: Tensor
    attention_norm_bias: Tensor
    output_norm_gain: Tensor
    output_norm_bias: Tensor

    @staticmethod
    def of(layer: "Layer") -> "LayerParameters":
        """Return the parameters of a layer."""
        products = layer.qkv, layer.attention_output, layer.intermediate, layer.output
        modules = *products, layer.attention_norm, layer.output_norm
        return LayerParameters(*(parameter for module in modules for parameter in (module.weight, module.bias)))

    @property
    def of_products(self) -> tuple[Tensor, ...]:
        """Those of the products."""
        return self[:8]


class FusedLayers:
    """Some layers of a model, which train in few kernels.

    Attributes:
        halves: each weight and bias of the products -> its copy in half precision.
    """

    def __init__(self, layers: Sequence["Layer"], half: torch.dtype) -> None:
        self._layers = layers
        self._half = half
        weights = [weight for layer in layers for weight in LayerParameters.of(layer).of_products]
        self.halves = {weight: weight.detach().to(half) for weight in weights}
        self._cast_each_step = weights

    def leave_to_optimizer(self, weights: Collection[Tensor]) -> None:
        """Leave it to the optimizer, from here on, to keep the halves of these weights up to date."""
        self._cast_each_step = [weight for weight in self.halves if all(weight is not other for other in weights)]

    def refresh(self) -> None:
        """Cast all weights, which have changed otherwise than by a step."""
        _cast(self.halves, self.halves)

    def __call__(self, x: Tensor, plan: AttentionPlan, dropout: Dropout) -> Tensor:
        """Return fp32 (R, H) for (R, H). Outside of training the layers run by PyTorch's kernels.

        Args:
            plan: a TritonPlan, because models have fused layers only beside these.
        """
        triton_plan = cast("TritonPlan", plan)
        if triton_plan.dropout is None:
            for layer in self._layers:
                x = layer(x, plan, dropout, None)
            return x
        x = x.float()
        _cast(self.halves, self._cast_each_step)
        x_half = x.to(self._half)
        for layer in self._layers:
            parameters = LayerParameters.of(layer)
            operands = LayerParameters(*(self.halves.get(parameter, parameter) for parameter in parameters))
            x, x_half = _FusedLayer.apply(x, x_half, _Pass.begin(layer, triton_plan, operands), *parameters)
        return x


def _cast(halves: Mapping[Tensor, Tensor], weights: Iterable[Tensor]) -> None:
    weights = list(weights)
    if weights:
        torch._foreach_copy_([halves[weight] for weight in weights], [weight.detach() for weight in weights])


class _Pass(NamedTuple):
    """What a pass through a fused layer has, beside the tensors that it differentiates by.

    Attributes:
        operands: the layer's parameters, those of the products in half precision.
        weight_dropout: of the attention weights; None if nothing is dropped.
        attention_dropout: of the attention sublayer's result.
        output_dropout: of the feed-forward sublayer's result.
    """

    layer: "Layer"
    plan: TritonPlan
    operands: LayerParameters
    weight_dropout: PlacedDropout | None
    attention_dropout: PlacedDropout
    output_dropout: PlacedDropout

    @staticmethod
    def begin(layer: "Layer", plan: TritonPlan, operands: LayerParameters) -> "_Pass":
        """Take the places of the layer's dropouts, in their order."""
        assert plan.dropout is not None
        weight_dropout = plan.weight_dropout(layer.attention_rate)
        attention_dropout = plan.dropout.at_next_place(layer.attention_output_rate)
        output_dropout = plan.dropout.at_next_place(layer.rate)
        return _Pass(layer, plan, operands, weight_dropout, attention_dropout, output_dropout)


class _SavedTensors(NamedTuple):
    """What the backward pass of a fused layer needs.

    Attributes:
        x_half: half (R, H), the input. qkv: half (R, 3 * H). context: half (R, H). log_sums: fp32 (R, N).
        y_half: half (R, H), the attention sublayer's result. inner, active: half (R, F), before and after the activation.
        attention_sum, output_sum: fp32 (R, H), the input of each norm. *_mean, *_rstd: fp32 (R,), its statistics.
    """

    x_half: Tensor
    qkv: Tensor
    context: Tensor
    log_sums: Tensor
    y_half: Tensor
    inner: Tensor
    active: Tensor
    attention_sum: Tensor
    attention_mean: Tensor
    attention_rstd: Tensor
    output_sum: Tensor
    output_mean: Tensor
    output_rstd: Tensor


class _FusedLayer(torch.autograd.Function):
    """x in fp32 and in half, (R, H), to the same after one layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x_half: Tensor, call: _Pass, *_: Tensor) -> tuple[Tensor, Tensor]:
        from isinglass.backends.torch.gpu.triton.attention import attend
        from isinglass.backends.torch.gpu.triton.kernels import add_norm

        plan, p = call.plan, call.operands
        qkv = torch.addmm(p.qkv_bias, x_half, p.qkv_weight.t())
        context, log_sums = attend(Projections.split(qkv), plan.num_heads, plan.bounds(), call.weight_dropout)
        attended = torch.addmm(p.attention_output_bias, context, p.attention_output_weight.t())
        y, y_half, attention_norm = add_norm(
            attended, x, p.attention_norm_gain, p.attention_norm_bias, call.layer.attention_norm.eps, call.attention_dropout
        )
        inner = torch.addmm(p.intermediate_bias, y_half, p.intermediate_weight.t())
        active = F.gelu(inner)
        fed = torch.addmm(p.output_bias, active, p.output_weight.t())
        z, z_half, output_norm = add_norm(
            fed, y, p.output_norm_gain, p.output_norm_bias, call.layer.output_norm.eps, call.output_dropout
        )
        ctx.call = call
        saved = _SavedTensors(x_half, qkv, context, log_sums, y_half, inner, active, *attention_norm, *output_norm)
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return z, z_half

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_z_half: Tensor | None) -> tuple[Tensor | None, ...]:
        from isinglass.backends.torch.gpu.triton import kernels
        from isinglass.backends.torch.gpu.triton.attention import AttentionResult, attend_backward

        call, p, s = ctx.call, ctx.call.operands, _SavedTensors(*ctx.saved_tensors)
        grad_z, grad_z_half = (None if grad is None else grad.contiguous() for grad in (grad_z, grad_z_half))
        H, half = s.x_half.shape[1], s.x_half.dtype
        widths = [3 * H, s.inner.shape[1], 3 * H]  # of the sums over rows
        partial = torch.empty(kernels.PROGRAMS, sum(widths), device=s.qkv.device)
        partial_attention, partial_inner, partial_output = partial.split(widths, 1)

        norm = kernels.NormStatistics(s.output_sum, s.output_mean, s.output_rstd)
        grad_y, grad_fed = kernels.add_norm_backward(
            grad_z, grad_z_half, norm, p.output_norm_gain, call.output_dropout, partial_output, half
        )
        grad_inner = kernels.gelu_backward(grad_fed @ p.output_weight, s.inner, partial_inner)
        grad_y_half = grad_inner @ p.intermediate_weight
        norm = kernels.NormStatistics(s.attention_sum, s.attention_mean, s.attention_rstd)
        grad_x, grad_attended = kernels.add_norm_backward(
            grad_y, grad_y_half, norm, p.attention_norm_gain, call.attention_dropout, partial_attention, half
        )
        grad_context, grad_qkv = grad_attended @ p.attention_output_weight, torch.empty_like(s.qkv)
        qkv_sums = attend_backward(
            grad_context, Projections.split(s.qkv), AttentionResult(s.context, s.log_sums), call.plan.bounds(),
            call.weight_dropout, Projections.split(grad_qkv),
        )  # fmt: skip

        attention_sums, inner_sums, output_sums = kernels.column_sums(partial).split(widths)
        attention_gain, attention_bias, attended_sums = attention_sums.split(H)
        output_gain, output_bias, fed_sums = output_sums.split(H)
        grads = LayerParameters(
            qkv_weight=_fp32_product(grad_qkv, s.x_half),
            qkv_bias=kernels.column_sums(qkv_sums),
            attention_output_weight=_fp32_product(grad_attended, s.context),
            attention_output_bias=attended_sums,
            intermediate_weight=_fp32_product(grad_inner, s.y_half),
            intermediate_bias=inner_sums,
            output_weight=_fp32_product(grad_fed, s.active),
            output_bias=fed_sums,
            attention_norm_gain=attention_gain,
            attention_norm_bias=attention_bias,
            output_norm_gain=output_gain,
            output_norm_bias=output_bias,
        )
        return grad_x, grad_qkv @ p.qkv_weight, None, *grads


def _fp32_product(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a weight, fp32 (out, in), of half (R, out) and (R, in)."""
    if _WRITES_FP32:
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    return (grad.t() @ x).float()


def why_not_fused(layers: Sequence["Layer"], num_heads: int, half: torch.dtype) -> str | None:
    """Try the layers on their device. Return why they cannot train fused; None if they can."""
    from isinglass.backends.torch.gpu.triton.kernels import MAX_COLUMNS

    if any(layer.activation is not F.gelu for layer in layers):
        return "their activation is not GELU"
    hidden_size = layers[0].output.out_features
    if hidden_size > MAX_COLUMNS:
        return f"the hidden size {hidden_size} is above {MAX_COLUMNS}"
    return _find_failure(layers[0], num_heads, half)


def _find_failure(layer: "Layer", num_heads: int, half: torch.dtype) -> str | None:
    """Return what is wrong if one layer, fused and without dropout, does not compute what it computes in fp32."""
    device, rows = layer.qkv.weight.device, ROWS.rows_for(int(_PROBE_LENGTHS.sum()))
    without_dropout = copy.copy(layer)
    without_dropout.attention_rate = without_dropout.attention_output_rate = without_dropout.rate = 0.0
    generator = torch.Generator(device).manual_seed(0)
    x, grad = torch.randn(2, rows, layer.output.out_features, generator=generator, device=device).unbind(0)
    inputs = x.requires_grad_(), *(parameter for parameter in LayerParameters.of(layer) if parameter.requires_grad)
    dropout = KernelDropout(torch.from_numpy(begin_dropout(0, 0, device)).to(device))

    def differentiate(plan: GpuPlan, run: Callable[[Tensor, Any, Dropout], Tensor]) -> list[Tensor]:
        """Return the result and the gradients of the inputs."""
        out = run(x, plan, plan.dropout or NO_DROPOUT)
        return [out.detach(), *torch.autograd.grad(out, inputs, grad)]

    try:
        padded = PaddedPlan.prepare(_PROBE_LENGTHS, rows, num_heads, device)
        expected = differentiate(padded, lambda x, plan, dropout: layer(x, plan, dropout, None))
        plan = TritonPlan.prepare(_PROBE_LENGTHS, rows, num_heads, device, dropout)
        actual = differentiate(plan, FusedLayers([without_dropout], half))
        dropped = differentiate(plan, FusedLayers([layer], half))
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"they fail on this GPU ({str(error).splitlines()[0][:200]})"
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(actual, expected, strict=True)]
    errors += [0.0 if bool(tensor.isfinite().all()) else math.inf for tensor in dropped]
    return None if max(errors) <= TOLERANCE else f"their results on this GPU are {max(errors):.2g} off"
