"""Kernels in Triton for what lies between the matrix products of a block, in fp16 or bf16 on a GPU.

PyTorch's kernels for one residual connection (dropout, sum, LayerNorm and cast, their backward passes, and the sum that is
the gradient of a bias) read and write the same numbers five times over. Here each direction is one kernel.

Shapes: R rows, H columns. "half" stands for fp16 or bf16. Sums over rows are written as P partial sums in fp32, one for each
program; `column_sums` adds them up, in the same order each time.

`adamw` moves as much memory as PyTorch's fused step without the gradient, which PyTorch writes back when it is scaled.

Dropout draws 32 bits for each element by Philox with 7 rounds (Salmon et al. 2011: enough to pass BigCrush), for four
elements at a time, from the key of the micro-batch and the number of the place that drops. The backward kernel draws them
again.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-incomplete-defs

from typing import Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from isinglass.backends.torch.gpu.attention import PlacedDropout

PROGRAMS: Final = 264  # P: two for each of an H100's 132 multiprocessors
MAX_COLUMNS: Final = 8192  # H; a row lies in one program's registers
PLACES: Final = tl.constexpr(1_000_003)  # between the keys of two places
ROUNDS: Final = tl.constexpr(7)


@triton.jit
def _draw_kept(key, place, row, least, BLOCK: tl.constexpr):
    """Return (BLOCK,) true where 31 random bits, as a number, reach `least`."""
    quarter = row * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    a, b, c, d = tl.randint4x(tl.load(key) + place * PLACES, quarter, n_rounds=ROUNDS)
    bits = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (BLOCK,))
    return (bits.to(tl.uint32, bitcast=True) >> 1).to(tl.int32) >= least


@triton.jit(do_not_specialize=["place"])
def _add_norm(
    x, residual, gain, bias, out, out_half, sums, means, rstds,
    key, place, least, factor, eps, H, DROPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < H
    width = H.to(tl.int64)
    at = row * width + column
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    if DROPS:
        value = tl.where(_draw_kept(key, place, row, least, BLOCK), value * factor, 0.0)
    value += tl.load(residual + at, inside, 0.0)
    mean = tl.sum(value, 0) / H
    centred = tl.where(inside, value - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 0) / H + eps)
    result = centred * rstd * tl.load(gain + column, inside, 0.0) + tl.load(bias + column, inside, 0.0)
    tl.store(out + at, result, inside)
    tl.store(out_half + at, result.to(out_half.dtype.element_ty), inside)
    tl.store(sums + at, value, inside)
    tl.store(means + row, mean)
    tl.store(rstds + row, rstd)


@triton.jit(do_not_specialize=["place"])
def _add_norm_backward(
    grad, grad_half, sums, means, rstds, gain, grad_residual, grad_x, partial, key, place, least, factor, rows, H, stride,
    HAS_GRAD: tl.constexpr, HAS_HALF: tl.constexpr, DROPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < H
    weight = tl.load(gain + column, inside, 0.0)
    width = H.to(tl.int64)
    sum_gain = tl.zeros((BLOCK,), tl.float32)
    sum_bias = tl.zeros((BLOCK,), tl.float32)
    sum_x = tl.zeros((BLOCK,), tl.float32)
    for row in range(program, rows, tl.num_programs(0)):
        at = row * width + column
        g = tl.zeros((BLOCK,), tl.float32)
        if HAS_GRAD:
            g += tl.load(grad + at, inside, 0.0)
        if HAS_HALF:
            g += tl.load(grad_half + at, inside, 0.0).to(tl.float32)
        rstd = tl.load(rstds + row)
        normal = tl.where(inside, (tl.load(sums + at, inside, 0.0) - tl.load(means + row)) * rstd, 0.0)
        weighted = g * weight
        grad_value = (weighted - normal * (tl.sum(weighted * normal, 0) / H) - tl.sum(weighted, 0) / H) * rstd
        tl.store(grad_residual + at, grad_value, inside)
        dropped = grad_value
        if DROPS:
            dropped = tl.where(_draw_kept(key, place, row, least, BLOCK), grad_value * factor, 0.0)
        tl.store(grad_x + at, dropped.to(grad_x.dtype.element_ty), inside)
        sum_gain += g * normal
        sum_bias += g
        sum_x += tl.where(inside, dropped, 0.0)
    to = partial + program.to(tl.int64) * stride + column
    tl.store(to, sum_gain, inside)
    tl.store(to + H, sum_bias, inside)
    tl.store(to + 2 * H, sum_x, inside)


@triton.jit
def _gelu_backward(grad, x, grad_x, partial, rows, H, stride, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < H
    width = H.to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(program, rows, tl.num_programs(0)):
        at = row * width + column
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        below = 0.5 * (1 + tl.erf(value * 0.7071067811865476))  # of the normal distribution
        density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
        result = tl.load(grad + at, inside, 0.0).to(tl.float32) * (below + value * density)
        tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), inside)
        total += result
    tl.store(partial + program.to(tl.int64) * stride + column, total, inside)


@triton.jit
def _column_sums(partial, out, programs, H, P: tl.constexpr, BLOCK: tl.constexpr):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, P)
    inside = (row[:, None] < programs) & (column[None, :] < H)
    values = tl.load(partial + row[:, None].to(tl.int64) * H + column[None, :], inside, 0.0)
    tl.store(out + column, tl.sum(values, 0), column < H)


@triton.jit
def _adamw(
    weight, grad, mean, square, half, scale, rate, corrections, rest1, beta2, rest2, eps, decay, N, HAS_HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N
    lr = tl.load(rate)
    g = tl.load(grad + at, inside, 0.0) / tl.load(scale)
    m = tl.load(mean + at, inside, 0.0)
    v = tl.load(square + at, inside, 0.0)
    w = tl.load(weight + at, inside, 0.0)
    m += rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    w = w * (1 - lr * decay) - lr / tl.load(corrections) * m / (tl.sqrt(v) / tl.load(corrections + 1) + eps)
    tl.store(mean + at, m, inside)
    tl.store(square + at, v, inside)
    tl.store(weight + at, w, inside)
    if HAS_HALF:
        tl.store(half + at, w.to(half.dtype.element_ty), inside)


class NormStatistics(NamedTuple):
    """What the backward pass of a norm needs, in fp32.

    Attributes:
        sum: (R, H), the norm's input: residual + dropout(x).
        mean: (R,), of the sum.
        rstd: (R,), 1 / the standard deviation of the sum.
    """

    sum: Tensor
    mean: Tensor
    rstd: Tensor


def add_norm(
    x: Tensor, residual: Tensor, gain: Tensor, bias: Tensor, eps: float, dropout: PlacedDropout
) -> tuple[Tensor, Tensor, NormStatistics]:
    """Return the LayerNorm of residual + dropout(x), (R, H), in fp32 and in half, and its statistics.

    Args:
        x: half (R, H). All tensors are contiguous.
        residual: fp32 (R, H).
        gain: fp32 (H,).
        bias: fp32 (H,).
    """
    rows, H = x.shape
    out, sums, out_half = torch.empty_like(residual), torch.empty_like(residual), torch.empty_like(x)
    mean, rstd = residual.new_empty(2, rows).unbind(0)
    block = triton.next_power_of_2(H)
    _add_norm[(rows,)](
        x, residual, gain, bias, out, out_half, sums, mean, rstd, eps=eps, H=H, BLOCK=block, num_warps=_warps(block),
        **dropout.arguments(),
    )  # fmt: skip
    return out, out_half, NormStatistics(sums, mean, rstd)


def add_norm_backward(
    grad: Tensor | None, grad_half: Tensor | None, norm: NormStatistics, gain: Tensor, dropout: PlacedDropout,
    partial: Tensor, half: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of residual, fp32 (R, H), and of x, half (R, H), for those of `add_norm`'s two results.

    Args:
        grad: fp32 (R, H), for the result in fp32; may be None.
        grad_half: half (R, H), for the result in half; may be None if the other is not.
        partial: fp32 (P, 3 * H), some columns of a wider tensor. Receives partial sums over the rows for the gradients of
            gain and bias, and of the gradient of x.
    """
    rows, H = norm.sum.shape
    grad_residual, grad_x = torch.empty_like(norm.sum), torch.empty_like(norm.sum, dtype=half)
    block = triton.next_power_of_2(H)
    _add_norm_backward[(len(partial),)](
        norm.sum if grad is None else grad, grad_x if grad_half is None else grad_half, norm.sum, norm.mean, norm.rstd,
        gain, grad_residual, grad_x, partial, rows=rows, H=H, stride=partial.stride(0), HAS_GRAD=grad is not None,
        HAS_HALF=grad_half is not None, BLOCK=block, num_warps=_warps(block), **dropout.arguments(),
    )  # fmt: skip
    return grad_residual, grad_x


def gelu_backward(grad: Tensor, x: Tensor, partial: Tensor) -> Tensor:
    """Return the gradient of x, half (R, H), for that of GELU(x).

    Args:
        partial: fp32 (P, H), receives partial sums of the gradient over its rows.
    """
    rows, H = x.shape
    grad_x, block = torch.empty_like(x), min(1024, triton.next_power_of_2(H))
    grid = (len(partial), triton.cdiv(H, block))
    _gelu_backward[grid](grad, x, grad_x, partial, rows, H, partial.stride(0), BLOCK=block, num_warps=_warps(block))
    return grad_x


def column_sums(partial: Tensor) -> Tensor:
    """Return the sums (H,) over the rows of fp32 (P, H)."""
    P, H = partial.shape
    out, block = partial.new_empty(H), 32
    _column_sums[(triton.cdiv(H, block),)](partial, out, P, H, P=triton.next_power_of_2(P), BLOCK=block, num_warps=8)
    return out


def adamw(
    weight: Tensor, mean: Tensor, square: Tensor, grad: Tensor, scale: Tensor, rate: Tensor, corrections: Tensor,
    *, betas: tuple[float, float], eps: float, decay: float, half: Tensor | None = None,
) -> None:  # fmt: skip
    """Update a parameter and its moments in place by AdamW (Loshchilov and Hutter 2019).

    Args:
        weight: the parameter. All tensors but `half` are fp32, and contiguous.
        mean: moment of the gradient, of the parameter's shape.
        square: moment of the squared gradient, likewise.
        grad: likewise; it is not changed.
        scale: (), by which the gradient is divided.
        rate: (), the learning rate.
        corrections: (2,), 1 - beta1^t and the square root of 1 - beta2^t.
        half: of the parameter's shape; receives it, cast.
    """
    (beta1, beta2), count, block = betas, weight.numel(), 2048
    _adamw[(triton.cdiv(count, block),)](
        weight, grad, mean, square, weight if half is None else half, scale, rate, corrections, 1 - beta1, beta2, 1 - beta2,
        eps, decay, count, HAS_HALF=half is not None, BLOCK=block, num_warps=8,
    )  # fmt: skip


def _warps(block: int) -> int:
    return max(1, min(8, block // 256))
