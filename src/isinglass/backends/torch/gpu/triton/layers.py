"""All layers but the last in fp16 or bf16 on a GPU, with the gradient written out.

This is the arithmetic of `model.Layer` under autocast, in fewer kernels and with less memory traffic. The weights are cast
by the optimizer after it has changed them. The gradients of weights leave the products in fp32. What lies between the
products runs in `kernels` and `attention`. A layer hands its result on twice: in fp32 for the residual, and in half
precision for the product.

Shapes: R rows, H hidden size, F intermediate size, N heads of D. "half" stands for fp16 or bf16.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isinglass.backends.torch.batch import AttentionPlan
from isinglass.backends.torch.gpu.attention import KernelDropout, PaddedPlan, PlacedDropout, begin_dropout, find_difference
from isinglass.backends.torch.gpu.triton import kernels
from isinglass.backends.torch.gpu.triton.attention import Projections, TritonPlan, attend, attend_backward
from isinglass.backends.torch.model import Layer
from isinglass.backends.torch.optimizer import copy_weights

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
    def of(layer: Layer) -> "LayerParameters":
        """Return the parameters of a layer."""
        products = layer.qkv, layer.attention_output, layer.intermediate, layer.output
        modules = *products, layer.attention_norm, layer.output_norm
        return LayerParameters(*(parameter for module in modules for parameter in (module.weight, module.bias)))


class FusedLayers:
    """Some layers of a model, which train in few kernels.

    Attributes:
        halves: each weight and bias of the products -> its copy in half precision, which the optimizer keeps up to date.
    """

    def __init__(self, layers: Sequence[Layer], half: torch.dtype) -> None:
        self._layers = layers
        self._half = half
        of_products = [weight for layer in layers for weight in LayerParameters.of(layer)[:8]]
        self.halves = {weight: weight.detach().to(half) for weight in of_products}

    def refresh(self) -> None:
        """Cast all weights, which have changed otherwise than by a step."""
        copy_weights([*self.halves], self.halves)

    def __call__(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """Return fp32 (R, H) for (R, H). Outside of training the layers run by PyTorch's kernels.

        Args:
            plan: a TritonPlan, because models have fused layers only beside these.
        """
        assert isinstance(plan, TritonPlan)
        dropout = plan.dropout
        if not isinstance(dropout, KernelDropout):
            for layer in self._layers:
                x = layer(x, plan, None)
            return x
        x = x.float()
        x_half = x.to(self._half)
        for layer in self._layers:
            parameters = LayerParameters.of(layer)
            operands = LayerParameters(*(self.halves.get(parameter, parameter) for parameter in parameters))
            rates = layer.attention_output_rate, layer.feed_forward_rate
            dropouts = plan.weight_dropout(layer.attention_rate), *map(dropout.at_next_place, rates)
            x, x_half = _FusedLayer.apply(x, x_half, layer, plan, operands, dropouts, *parameters)
        return x


class _FusedLayer(torch.autograd.Function):
    """x in fp32 and in half, (R, H), to the same after one layer.

    `operands` are the layer's parameters, those of the products in half precision. `dropouts` are of the attention weights,
    of the attention sublayer's result, and of the feed-forward sublayer's.

    Saved for the backward pass are, all in half but for the norms and log_sums, which is (R, N): x, (R, H); qkv, (R, 3 * H);
    context and y, the attention sublayer's result, (R, H); inner and active, before and after the activation, (R, F).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, x_half: Tensor, layer: Layer, plan: TritonPlan, operands: LayerParameters,
        dropouts: tuple[PlacedDropout, PlacedDropout, PlacedDropout], *_: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        p, (weight_dropout, attention_dropout, output_dropout) = operands, dropouts
        qkv = torch.addmm(p.qkv_bias, x_half, p.qkv_weight.t())
        context, log_sums = attend(Projections.split(qkv), plan.num_heads, plan.bounds(), weight_dropout)
        attended = torch.addmm(p.attention_output_bias, context, p.attention_output_weight.t())
        y, y_half, attention_norm = kernels.add_norm(
            attended, x, p.attention_norm_gain, p.attention_norm_bias, layer.attention_norm.eps, attention_dropout
        )
        inner = torch.addmm(p.intermediate_bias, y_half, p.intermediate_weight.t())
        active = F.gelu(inner)
        fed = torch.addmm(p.output_bias, active, p.output_weight.t())
        z, z_half, output_norm = kernels.add_norm(
            fed, y, p.output_norm_gain, p.output_norm_bias, layer.output_norm.eps, output_dropout
        )
        ctx.plan, ctx.operands, ctx.dropouts = plan, operands, dropouts
        ctx.save_for_backward(x_half, qkv, context, log_sums, y_half, inner, active, *attention_norm, *output_norm)
        ctx.set_materialize_grads(False)
        return z, z_half

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_z_half: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, p, (weight_dropout, attention_dropout, output_dropout) = ctx.plan, ctx.operands, ctx.dropouts
        x_half, qkv, context, log_sums, y_half, inner, active, *norms = ctx.saved_tensors
        attention_norm, output_norm = kernels.NormStatistics(*norms[:3]), kernels.NormStatistics(*norms[3:])
        grad_z, grad_z_half = (None if grad is None else grad.contiguous() for grad in (grad_z, grad_z_half))
        H, half = x_half.shape[1], x_half.dtype
        widths = [3 * H, inner.shape[1], 3 * H]  # of the sums over rows
        partial = torch.empty(kernels.PROGRAMS, sum(widths), device=qkv.device)
        partial_attention, partial_inner, partial_output = partial.split(widths, 1)

        grad_y, grad_fed = kernels.add_norm_backward(
            grad_z, grad_z_half, output_norm, p.output_norm_gain, output_dropout, partial_output, half
        )
        grad_inner = kernels.gelu_backward(grad_fed @ p.output_weight, inner, partial_inner)
        grad_y_half = grad_inner @ p.intermediate_weight
        grad_x, grad_attended = kernels.add_norm_backward(
            grad_y, grad_y_half, attention_norm, p.attention_norm_gain, attention_dropout, partial_attention, half
        )
        grad_context, grad_qkv = grad_attended @ p.attention_output_weight, torch.empty_like(qkv)
        qkv_sums = attend_backward(
            grad_context, Projections.split(qkv), context, log_sums, plan.bounds(), weight_dropout,
            Projections.split(grad_qkv),
        )  # fmt: skip

        attention_sums, inner_sums, output_sums = kernels.column_sums(partial).split(widths)
        attention_gain, attention_bias, attended_sums = attention_sums.split(H)
        output_gain, output_bias, fed_sums = output_sums.split(H)
        return (
            grad_x, grad_qkv @ p.qkv_weight, None, None, None, None,
            _fp32_product(grad_qkv, x_half), kernels.column_sums(qkv_sums),
            _fp32_product(grad_attended, context), attended_sums,
            _fp32_product(grad_inner, y_half), inner_sums,
            _fp32_product(grad_fed, active), fed_sums,
            attention_gain, attention_bias, output_gain, output_bias,
        )  # fmt: skip


def _fp32_product(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a weight, fp32 (out, in), of half (R, out) and (R, in)."""
    if _WRITES_FP32:
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    return (grad.t() @ x).float()


def why_not_fused(layers: Sequence[Layer], num_heads: int, half: torch.dtype) -> str | None:
    """Try the layers on their device. Return why they cannot train fused; None if they can."""
    if any(layer.activation is not F.gelu for layer in layers):
        return "their activation is not GELU"
    hidden_size = layers[0].output.out_features
    if hidden_size > kernels.MAX_COLUMNS:
        return f"the hidden size {hidden_size} is above {kernels.MAX_COLUMNS}"
    return _find_failure(layers[0], num_heads, half)


def _find_failure(layer: Layer, num_heads: int, half: torch.dtype) -> str | None:
    """Return what is wrong if one layer, fused and without dropout, does not compute what it computes in fp32."""
    device, H = layer.qkv.weight.device, layer.output.out_features
    without_dropout = copy.copy(layer)
    without_dropout.attention_rate = without_dropout.attention_output_rate = without_dropout.feed_forward_rate = 0.0
    padded = PaddedPlan.prepare(_PROBE_LENGTHS, num_heads, device)
    generator = torch.Generator(device).manual_seed(0)
    x, grad = torch.randn(2, len(padded.position), H, generator=generator, device=device).unbind(0)
    inputs = x.requires_grad_(), *(parameter for parameter in LayerParameters.of(layer) if parameter.requires_grad)

    def differentiate(out: Tensor) -> list[Tensor]:
        """Return the result and the gradients of the inputs."""
        return [out.detach(), *torch.autograd.grad(out, inputs, grad)]

    def run_fused() -> list[Tensor]:
        dropout = KernelDropout(torch.from_numpy(begin_dropout(0, 0, device)).to(device))
        plan = TritonPlan.prepare(_PROBE_LENGTHS, num_heads, device, dropout)
        results = differentiate(FusedLayers([without_dropout], half)(x, plan))
        with_dropout = differentiate(FusedLayers([layer], half)(x, plan))
        if not all(bool(tensor.isfinite().all()) for tensor in with_dropout):
            raise ArithmeticError("with dropout their results are not finite")
        return results

    return find_difference(lambda: differentiate(layer(x, padded, None)), run_fused, TOLERANCE)
