"""All layers but the last in fp16 or bf16 on a GPU, with the gradient written out.

This is the arithmetic of `model.Layer` under autocast, in fewer kernels and with less memory traffic. The weights are cast
once for all layers, large ones by the optimizer as it writes them. The gradients of weights leave the products in fp32. What
lies between the products runs in `triton.kernels` and `triton.attention`. A layer hands its result on twice: in fp32 for the
residual, and in half precision for the product.

Shapes: R rows, H hidden size, F intermediate size, N heads of D. "half" stands for fp16 or bf16.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isinglass.backends.torch.attention import AttentionPlan
from isinglass.backends.torch.dropout import NO_DROPOUT, Dropout
from isinglass.backends.torch.gpu.attention import ROWS, GpuPlan, PaddedPlan, TritonPlan, padded_length
from isinglass.backends.torch.gpu.dropout import KernelDropout, begin_dropout
from isinglass.backends.torch.gpu.sequences import Projections, WeightDropout
from isinglass.backends.torch.gpu.staging import to_device

_WRITES_FP32: Final = hasattr(torch.ops.aten.mm, "dtype")  # whether a product of halves can be written in fp32
TOLERANCE: Final = 0.05  # relative norm of the error; one layer in bf16 has about 0.01
_PROBE_LENGTHS: Final = np.array([3, 17, 40])


class FusableLayer(Protocol):
    """The parts of `model.Layer`."""

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

    def __call__(self, x: Tensor, plan: AttentionPlan, dropout: Dropout, first_token: None) -> Tensor:
        """Return (R, H) for (R, H), by PyTorch's kernels."""


class LayerProducts(NamedTuple):
    """Weights and biases of a layer's four products."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    attention_output_weight: Tensor
    attention_output_bias: Tensor
    intermediate_weight: Tensor
    intermediate_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor

    @staticmethod
    def of(layer: FusableLayer) -> "LayerProducts":
        """Return the parameters of a layer."""
        products = layer.qkv, layer.attention_output, layer.intermediate, layer.output
        return LayerProducts(*(parameter for product in products for parameter in (product.weight, product.bias)))


class LayerNorms(NamedTuple):
    """Gains and biases of a layer's two norms, (H,) each."""

    attention_gain: Tensor
    attention_bias: Tensor
    output_gain: Tensor
    output_bias: Tensor

    @staticmethod
    def of(layer: FusableLayer) -> "LayerNorms":
        """Return the parameters of a layer."""
        first, second = layer.attention_norm, layer.output_norm
        return LayerNorms(first.weight, first.bias, second.weight, second.bias)


class FusedLayers:
    """Some layers of a model, which train in few kernels.

    Attributes:
        halves: each weight and bias of the products -> its copy in half precision.
    """

    def __init__(self, layers: Sequence[FusableLayer], half: torch.dtype) -> None:
        self._layers = layers
        self._half = half
        weights = [weight for layer in layers for weight in LayerProducts.of(layer)]
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
            products = LayerProducts.of(layer)
            halves = LayerProducts(*(self.halves[weight] for weight in products))
            call = _LayerCall.of(layer, triton_plan, halves)
            x, x_half = _FusedLayer.apply(x, x_half, call, *products, *LayerNorms.of(layer))
        return x


def _cast(halves: Mapping[Tensor, Tensor], weights: Iterable[Tensor]) -> None:
    weights = list(weights)
    if weights:
        torch._foreach_copy_([halves[weight] for weight in weights], [weight.detach() for weight in weights])


class _LayerCall(NamedTuple):
    """What one pass through a fused layer has, beside the tensors that it differentiates by.

    Attributes:
        halves: the products' parameters in half precision.
        attention_dropout: of the attention weights; None if nothing is dropped.
        first_place: number of the dropout of the first residual connection in the micro-batch.
        second_place: of the second.
    """

    layer: FusableLayer
    plan: TritonPlan
    dropout: KernelDropout
    halves: LayerProducts
    attention_dropout: WeightDropout | None
    first_place: int
    second_place: int

    @staticmethod
    def of(layer: FusableLayer, plan: TritonPlan, halves: LayerProducts) -> "_LayerCall":
        """Take the places of the layer's dropouts, in their order."""
        dropout = plan.dropout
        assert dropout is not None
        attention_dropout = plan.weight_dropout(layer.attention_rate)
        return _LayerCall(layer, plan, dropout, halves, attention_dropout, dropout.next_place(), dropout.next_place())


class _SavedTensors(NamedTuple):
    """What the backward pass of a fused layer needs.

    Attributes:
        x_half: half (R, H), the input. qkv: half (R, 3 * H). context: half (R, H). log_sums: fp32 (R, N).
        y_half: half (R, H), the attention sublayer's result. inner, active: half (R, F), before and after the activation.
        first_sum, second_sum: fp32 (R, H), the input of each norm. *_mean, *_rstd: fp32 (R,), its statistics.
        attention_gain, output_gain: fp32 (H,).
    """

    x_half: Tensor
    qkv: Tensor
    context: Tensor
    log_sums: Tensor
    y_half: Tensor
    inner: Tensor
    active: Tensor
    attention_gain: Tensor
    output_gain: Tensor
    first_sum: Tensor
    first_mean: Tensor
    first_rstd: Tensor
    second_sum: Tensor
    second_mean: Tensor
    second_rstd: Tensor


class _FusedLayer(torch.autograd.Function):
    """x in fp32 and in half, (R, H), to the same after one layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x_half: Tensor, call: _LayerCall, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        from isinglass.backends.torch.gpu.triton.attention import attend
        from isinglass.backends.torch.gpu.triton.kernels import NormDropout, add_norm

        layer, halves, key = call.layer, call.halves, call.dropout.key
        norms = LayerNorms(*parameters[len(halves) :])
        qkv = torch.addmm(halves.qkv_bias, x_half, halves.qkv_weight.t())
        context, log_sums = attend(
            Projections.of_tokens(qkv), call.plan.num_heads, call.plan.bounds(), call.attention_dropout
        )
        attended = torch.addmm(halves.attention_output_bias, context, halves.attention_output_weight.t())
        first = add_norm(
            attended, x, norms.attention_gain, norms.attention_bias, layer.attention_norm.eps,
            NormDropout(layer.attention_output_rate, key, call.first_place),
        )  # fmt: skip
        inner = torch.addmm(halves.intermediate_bias, first.out_half, halves.intermediate_weight.t())
        active = F.gelu(inner)
        fed = torch.addmm(halves.output_bias, active, halves.output_weight.t())
        second = add_norm(
            fed, first.out, norms.output_gain, norms.output_bias, layer.output_norm.eps,
            NormDropout(layer.rate, key, call.second_place),
        )  # fmt: skip
        saved = _SavedTensors(
            x_half=x_half, qkv=qkv, context=context, log_sums=log_sums, y_half=first.out_half, inner=inner, active=active,
            attention_gain=norms.attention_gain, output_gain=norms.output_gain,
            first_sum=first.sum, first_mean=first.mean, first_rstd=first.rstd,
            second_sum=second.sum, second_mean=second.mean, second_rstd=second.rstd,
        )  # fmt: skip
        ctx.call = call
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return second.out, second.out_half

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_out_half: Tensor | None) -> tuple[Tensor | None, ...]:
        from isinglass.backends.torch.gpu.triton import kernels
        from isinglass.backends.torch.gpu.triton.attention import AttentionResult, attend_backward

        call: _LayerCall = ctx.call
        layer, halves, key = call.layer, call.halves, call.dropout.key
        saved = _SavedTensors(*ctx.saved_tensors)
        grad_out, grad_out_half = (None if grad is None else grad.contiguous() for grad in (grad_out, grad_out_half))
        H, half = saved.x_half.shape[1], saved.x_half.dtype
        widths = [3 * H, saved.inner.shape[1], 3 * H]  # of the sums over rows
        partial = torch.empty(kernels.PROGRAMS, sum(widths), device=saved.qkv.device)
        partial_first, partial_inner, partial_second = partial.split(widths, 1)

        second_norm = kernels.NormInput(saved.second_sum, saved.second_mean, saved.second_rstd, saved.output_gain)
        second_dropout = kernels.NormDropout(layer.rate, key, call.second_place)
        grad_y, grad_fed = kernels.add_norm_backward(
            grad_out, grad_out_half, second_norm, second_dropout, partial_second, half
        )
        grad_inner = kernels.gelu_backward(grad_fed @ halves.output_weight, saved.inner, partial_inner)

        first_norm = kernels.NormInput(saved.first_sum, saved.first_mean, saved.first_rstd, saved.attention_gain)
        first_dropout = kernels.NormDropout(layer.attention_output_rate, key, call.first_place)
        grad_y_half = grad_inner @ halves.intermediate_weight
        grad_x, grad_attended = kernels.add_norm_backward(
            grad_y, grad_y_half, first_norm, first_dropout, partial_first, half
        )

        grad_context, grad_qkv = grad_attended @ halves.attention_output_weight, torch.empty_like(saved.qkv)
        partial_qkv = attend_backward(
            grad_context, Projections.of_tokens(saved.qkv), AttentionResult(saved.context, saved.log_sums),
            call.plan.bounds(), call.attention_dropout, Projections.of_tokens(grad_qkv),
        )  # fmt: skip

        first_sums, inner_sums, second_sums = kernels.column_sums(partial).split(widths)
        grad_first_gain, grad_first_bias, grad_attention_output_bias = first_sums.split(H)
        grad_second_gain, grad_second_bias, grad_output_bias = second_sums.split(H)
        grad_products = LayerProducts(
            qkv_weight=_fp32_product(grad_qkv, saved.x_half),
            qkv_bias=kernels.column_sums(partial_qkv),
            attention_output_weight=_fp32_product(grad_attended, saved.context),
            attention_output_bias=grad_attention_output_bias,
            intermediate_weight=_fp32_product(grad_inner, saved.y_half),
            intermediate_bias=inner_sums,
            output_weight=_fp32_product(grad_fed, saved.active),
            output_bias=grad_output_bias,
        )
        grad_norms = LayerNorms(grad_first_gain, grad_first_bias, grad_second_gain, grad_second_bias)
        return grad_x, grad_qkv @ halves.qkv_weight, None, *grad_products, *grad_norms


def _fp32_product(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a weight, fp32 (out, in), of half (R, out) and (R, in)."""
    if _WRITES_FP32:
        return torch.mm(grad.t(), x, out_dtype=torch.float32)
    return (grad.t() @ x).float()


def why_not_fused(layers: Sequence[FusableLayer], num_heads: int, half: torch.dtype) -> str | None:
    """Try the layers on their device. Return why they cannot train fused; None if they can."""
    from isinglass.backends.torch.gpu.triton.kernels import MAX_COLUMNS

    if any(layer.activation is not F.gelu for layer in layers):
        return "their activation is not GELU"
    hidden_size = layers[0].output.out_features
    if hidden_size > MAX_COLUMNS:
        return f"the hidden size {hidden_size} is above {MAX_COLUMNS}"
    return _find_failure(layers[0], num_heads, half)


def _find_failure(layer: FusableLayer, num_heads: int, half: torch.dtype) -> str | None:
    """Return what is wrong if one layer, fused and without dropout, does not compute what it computes in fp32."""
    without_dropout: Any = SimpleNamespace(**{name: getattr(layer, name) for name in FusableLayer.__annotations__})
    without_dropout.attention_rate = without_dropout.attention_output_rate = without_dropout.rate = 0.0
    probe = _Probe(layer, num_heads)
    dropout = probe.begin_dropout()

    def run_fused(layer: FusableLayer) -> Callable[[Tensor, Any], Tensor]:
        return lambda x, plan: FusedLayers([layer], half)(x, plan, dropout)

    try:
        expected = probe.run(PaddedPlan, None, lambda x, plan: layer(x, plan, NO_DROPOUT, None))
        actual = probe.run(TritonPlan, dropout, run_fused(without_dropout))
        dropped = probe.run(TritonPlan, dropout, run_fused(layer))
    except Exception as error:  # noqa: BLE001 - Triton's compiler has errors of its own
        return f"they fail on this GPU ({str(error).splitlines()[0][:200]})"
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(actual, expected, strict=True)]
    errors += [0.0 if bool(tensor.isfinite().all()) else math.inf for tensor in dropped]
    return None if max(errors) <= TOLERANCE else f"their results on this GPU are {max(errors):.2g} off"


class _Probe:
    """A small random batch, to try a layer on."""

    def __init__(self, layer: FusableLayer, num_heads: int) -> None:
        self._device, H = layer.qkv.weight.device, layer.output.out_features
        self._num_heads = num_heads
        self._rows = ROWS.rows_for(int(_PROBE_LENGTHS.sum()))
        generator = torch.Generator(self._device).manual_seed(0)
        self._x, self._grad = torch.randn(2, self._rows, H, generator=generator, device=self._device).unbind(0)
        self._x.requires_grad_()
        parameters = *LayerProducts.of(layer), *LayerNorms.of(layer)
        self._inputs = self._x, *(parameter for parameter in parameters if parameter.requires_grad)

    def begin_dropout(self) -> KernelDropout:
        """Return a dropout whose key is on the device."""
        return KernelDropout(to_device({"key": begin_dropout(0, 0, self._device)}, self._device)["key"])

    def run(
        self, kind: type[GpuPlan], dropout: KernelDropout | None, layer: Callable[[Tensor, Any], Tensor]
    ) -> list[Tensor]:
        """Return the layer's result and the gradients of its input and parameters."""
        tensors = to_device(kind.arrays(_PROBE_LENGTHS, self._rows), self._device)
        max_length = padded_length(_PROBE_LENGTHS, self._rows)
        out = layer(self._x, kind.on_device(tensors, max_length, self._num_heads, dropout))
        return [out.detach(), *torch.autograd.grad(out, self._inputs, self._grad)]
