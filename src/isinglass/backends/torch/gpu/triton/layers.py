"""All layers but the last in fp16 or bf16 on a GPU, with the gradient written out.

This is the arithmetic of `model.Layer` under autocast, in fewer kernels and with less memory traffic. The weights are cast
once for all layers, large ones by the optimizer as it writes them. The gradients of weights leave the products in fp32. What
lies between the products runs in `kernels` and `attention`. A layer hands its result on twice: in fp32 for the residual, and
in half precision for the product.

Shapes: R rows, H hidden size, F intermediate size, N heads of D. "half" stands for fp16 or bf16.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isinglass.backends.torch.attention import AttentionPlan
from isinglass.backends.torch.gpu.attention import GpuPlan, PaddedPlan
from isinglass.backends.torch.gpu.dropout import KernelDropout, PlacedDropout, begin_dropout
from isinglass.backends.torch.gpu.triton import kernels
from isinglass.backends.torch.gpu.triton.attention import Projections, TritonPlan, attend, attend_backward
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
    def of(layer: Layer) -> "LayerParameters":
        """Return the parameters of a layer."""
        products = layer.qkv, layer.attention_output, layer.intermediate, layer.output
        modules = *products, layer.attention_norm, layer.output_norm
        return LayerParameters(*(parameter for module in modules for parameter in (module.weight, module.bias)))


class FusedLayers:
    """Some layers of a model, which train in few kernels.

    Attributes:
        halves: each weight and bias of the products -> its copy in half precision.
    """

    def __init__(self, layers: Sequence[Layer], half: torch.dtype) -> None:
        self._layers = layers
        self._half = half
        of_products = [weight for layer in layers for weight in LayerParameters.of(layer)[:8]]
        self.halves = {weight: weight.detach().to(half) for weight in of_products}
        self._cast_each_step = of_products

    def leave_to_optimizer(self, weights: Collection[Tensor]) -> None:
        """Leave it to the optimizer, from here on, to keep the halves of these weights up to date."""
        self._cast_each_step = [weight for weight in self.halves if all(weight is not other for other in weights)]

    def refresh(self) -> None:
        """Cast all weights, which have changed otherwise than by a step."""
        self._cast([*self.halves])

    def _cast(self, weights: Sequence[Tensor]) -> None:
        if weights:
            torch._foreach_copy_([self.halves[weight] for weight in weights], [weight.detach() for weight in weights])

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
        self._cast(self._cast_each_step)
        x_half = x.to(self._half)
        for layer in self._layers:
            parameters = LayerParameters.of(layer)
            call = _Pass(
                layer,
                plan,
                LayerParameters(*(self.halves.get(parameter, parameter) for parameter in parameters)),
                plan.weight_dropout(layer.attention_rate),
                dropout.at_next_place(layer.attention_output_rate),
                dropout.at_next_place(layer.rate),
            )
            x, x_half = _FusedLayer.apply(x, x_half, call, *parameters)
        return x


class _Pass(NamedTuple):
    """What a pass through a fused layer has, beside the tensors that it differentiates by.

    Attributes:
        operands: the layer's parameters, those of the products in half precision.
        weight_dropout: of the attention weights.
        attention_dropout: of the attention sublayer's result.
        output_dropout: of the feed-forward sublayer's result.
    """

    layer: Layer
    plan: TritonPlan
    operands: LayerParameters
    weight_dropout: PlacedDropout
    attention_dropout: PlacedDropout
    output_dropout: PlacedDropout


class _FusedLayer(torch.autograd.Function):
    """x in fp32 and in half, (R, H), to the same after one layer.

    Saved for the backward pass are, all in half but for the norms and log_sums, which is (R, N): x, (R, H); qkv, (R, 3 * H);
    context and y, the attention sublayer's result, (R, H); inner and active, before and after the activation, (R, F).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, x_half: Tensor, call: _Pass, *_: Tensor) -> tuple[Tensor, Tensor]:
        plan, p = call.plan, call.operands
        qkv = torch.addmm(p.qkv_bias, x_half, p.qkv_weight.t())
        context, log_sums = attend(Projections.split(qkv), plan.num_heads, plan.bounds(), call.weight_dropout)
        attended = torch.addmm(p.attention_output_bias, context, p.attention_output_weight.t())
        y, y_half, attention_norm = kernels.add_norm(
            attended, x, p.attention_norm_gain, p.attention_norm_bias, call.layer.attention_norm.eps, call.attention_dropout
        )
        inner = torch.addmm(p.intermediate_bias, y_half, p.intermediate_weight.t())
        active = F.gelu(inner)
        fed = torch.addmm(p.output_bias, active, p.output_weight.t())
        z, z_half, output_norm = kernels.add_norm(
            fed, y, p.output_norm_gain, p.output_norm_bias, call.layer.output_norm.eps, call.output_dropout
        )
        ctx.call = call
        ctx.save_for_backward(x_half, qkv, context, log_sums, y_half, inner, active, *attention_norm, *output_norm)
        ctx.set_materialize_grads(False)
        return z, z_half

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_z_half: Tensor | None) -> tuple[Tensor | None, ...]:
        call, p = ctx.call, ctx.call.operands
        x_half, qkv, context, log_sums, y_half, inner, active, *norms = ctx.saved_tensors
        attention_norm, output_norm = kernels.NormStatistics(*norms[:3]), kernels.NormStatistics(*norms[3:])
        grad_z, grad_z_half = (None if grad is None else grad.contiguous() for grad in (grad_z, grad_z_half))
        H, half = x_half.shape[1], x_half.dtype
        widths = [3 * H, inner.shape[1], 3 * H]  # of the sums over rows
        partial = torch.empty(kernels.PROGRAMS, sum(widths), device=qkv.device)
        partial_attention, partial_inner, partial_output = partial.split(widths, 1)

        grad_y, grad_fed = kernels.add_norm_backward(
            grad_z, grad_z_half, output_norm, p.output_norm_gain, call.output_dropout, partial_output, half
        )
        grad_inner = kernels.gelu_backward(grad_fed @ p.output_weight, inner, partial_inner)
        grad_y_half = grad_inner @ p.intermediate_weight
        grad_x, grad_attended = kernels.add_norm_backward(
            grad_y, grad_y_half, attention_norm, p.attention_norm_gain, call.attention_dropout, partial_attention, half
        )
        grad_context, grad_qkv = grad_attended @ p.attention_output_weight, torch.empty_like(qkv)
        qkv_sums = attend_backward(
            grad_context, Projections.split(qkv), context, log_sums, call.plan.bounds(), call.weight_dropout,
            Projections.split(grad_qkv),
        )  # fmt: skip

        attention_sums, inner_sums, output_sums = kernels.column_sums(partial).split(widths)
        attention_gain, attention_bias, attended_sums = attention_sums.split(H)
        output_gain, output_bias, fed_sums = output_sums.split(H)
        return (
            grad_x, grad_qkv @ p.qkv_weight, None,
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
    without_dropout.attention_rate = without_dropout.attention_output_rate = without_dropout.rate = 0.0
    padded = PaddedPlan.prepare(_PROBE_LENGTHS, num_heads, device)
    generator = torch.Generator(device).manual_seed(0)
    x, grad = torch.randn(2, len(padded.position), H, generator=generator, device=device).unbind(0)
    inputs = x.requires_grad_(), *(parameter for parameter in LayerParameters.of(layer) if parameter.requires_grad)
    dropout = KernelDropout(torch.from_numpy(begin_dropout(0, 0, device)).to(device))

    def differentiate(run: Callable[[Tensor, Any], Tensor], plan: GpuPlan) -> Iterable[Tensor]:
        """Return the result and the gradients of the inputs."""
        out = run(x, plan)
        return [out.detach(), *torch.autograd.grad(out, inputs, grad)]

    try:
        expected = differentiate(lambda x, plan: layer(x, plan, None), padded)
        plan = TritonPlan.prepare(_PROBE_LENGTHS, num_heads, device, dropout)
        actual = differentiate(FusedLayers([without_dropout], half), plan)
        dropped = differentiate(FusedLayers([layer], half), plan)
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"they fail on this GPU ({str(error).splitlines()[0][:200]})"
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(actual, expected, strict=True)]
    errors += [0.0 if bool(tensor.isfinite().all()) else math.inf for tensor in dropped]
    return None if max(errors) <= TOLERANCE else f"their results on this GPU are {max(errors):.2g} off"
