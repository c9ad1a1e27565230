"""Kernels in Triton for what lies between the matrix products of a block, in fp16 or bf16 on a GPU.

PyTorch's kernels for one residual connection (dropout, sum, LayerNorm, cast, and backward their like, and the sum that is a
bias's gradient) read and write the same numbers five times over. Here each direction is one kernel.

Shapes: R rows, H columns. "half" stands for fp16 or bf16. Sums over rows come as P partial sums, one for each program, in
fp32; `column_sums` adds them up, in the same order each time.

`adamw` moves as much as PyTorch's fused step less the gradient, which that one writes back when it is scaled.

Dropout draws 32 bits for each element by Philox with 7 rounds (Salmon et al. 2011: enough to pass BigCrush), for four
elements at a time, from the step's key and the number of the place where it drops. The backward kernel draws them again.
"""

# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-incomplete-defs

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS: Final = 264  # P: two for each of an H100's 132 multiprocessors
MAX_COLUMNS: Final = 8192  # H; a row lies in one program's registers
_LEVELS: Final = 1 << 31
PLACES: Final = tl.constexpr(1_000_003)  # between the keys of two places
ROUNDS: Final = tl.constexpr(7)


@triton.jit
def _kept(key, place, row, least, BLOCK: tl.constexpr):
    """(BLOCK,) true where 31 random bits, as a number, reach `least`."""
    quarter = row * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    a, b, c, d = tl.randint4x(tl.load(key) + place * PLACES, quarter, n_rounds=ROUNDS)
    bits = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (BLOCK,))
    return (bits.to(tl.uint32, bitcast=True) >> 1).to(tl.int32) >= least


@triton.jit(do_not_specialize=["place"])
def _add_norm(
    x, residual, gain, bias, key, out, out_half, summed, mean_of, rstd_of,
    place, least, scale, eps, H, DROPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < H
    width = H.to(tl.int64)
    at = row * width + column
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    if DROPS:
        value = tl.where(_kept(key, place, row, least, BLOCK), value * scale, 0.0)
    value += tl.load(residual + at, inside, 0.0)
    mean = tl.sum(value, 0) / H
    centred = tl.where(inside, value - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 0) / H + eps)
    result = centred * rstd * tl.load(gain + column, inside, 0.0) + tl.load(bias + column, inside, 0.0)
    tl.store(out + at, result, inside)
    tl.store(out_half + at, result.to(out_half.dtype.element_ty), inside)
    tl.store(summed + at, value, inside)
    tl.store(mean_of + row, mean)
    tl.store(rstd_of + row, rstd)


@triton.jit(do_not_specialize=["place"])
def _add_norm_backward(
    grad, grad_half, summed, mean_of, rstd_of, gain, key, of_residual, of_x, partial,
    place, least, scale, rows, H, stride, HAS_GRAD: tl.constexpr, HAS_HALF: tl.constexpr, DROPS: tl.constexpr,
    BLOCK: tl.constexpr,
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
        rstd = tl.load(rstd_of + row)
        normal = tl.where(inside, (tl.load(summed + at, inside, 0.0) - tl.load(mean_of + row)) * rstd, 0.0)
        weighted = g * weight
        of_value = (weighted - normal * (tl.sum(weighted * normal, 0) / H) - tl.sum(weighted, 0) / H) * rstd
        tl.store(of_residual + at, of_value, inside)
        dropped = of_value
        if DROPS:
            dropped = tl.where(_kept(key, place, row, least, BLOCK), of_value * scale, 0.0)
        tl.store(of_x + at, dropped.to(of_x.dtype.element_ty), inside)
        sum_gain += g * normal
        sum_bias += g
        sum_x += tl.where(inside, dropped, 0.0)
    to = partial + program.to(tl.int64) * stride + column
    tl.store(to, sum_gain, inside)
    tl.store(to + H, sum_bias, inside)
    tl.store(to + 2 * H, sum_x, inside)


@triton.jit
def _gelu_backward(grad, x, of_x, partial, rows, H, stride, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < H
    width = H.to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(program, rows, tl.num_programs(0)):
        at = row * width + column
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        below = 0.5 * (1 + tl.erf(value * 0.7071067811865476))  # the normal distribution's
        density = 0.3989422804014327 * tl.exp(-0.5 * value * value)
        result = tl.load(grad + at, inside, 0.0).to(tl.float32) * (below + value * density)
        tl.store(of_x + at, result.to(of_x.dtype.element_ty), inside)
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


def add_norm(
    x: Tensor, residual: Tensor, gain: Tensor, bias: Tensor, eps: float, rate: float, key: Tensor, place: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """LayerNorm of residual + dropout(x).

    Args:
        x: half (R, H). residual: fp32 (R, H). gain, bias: fp32 (H,). All contiguous.
        rate: of the dropout; 0 for none.
        key: int64 (1,), of the step.
        place: of this dropout among the step's.

    Returns:
        The result in fp32 and in half (R, H), and for the backward pass the sum (R, H), its mean and 1 / its standard
        deviation (R,), in fp32.
    """
    rows, H = x.shape
    out, summed, out_half = torch.empty_like(residual), torch.empty_like(residual), torch.empty_like(x)
    mean, rstd = residual.new_empty(2, rows).unbind(0)
    block = triton.next_power_of_2(H)
    _add_norm[(rows,)](
        x, residual, gain, bias, key, out, out_half, summed, mean, rstd,
        place, *threshold(rate), eps, H, DROPS=rate > 0, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return out, out_half, summed, mean, rstd


def add_norm_backward(
    grad: Tensor | None, grad_half: Tensor | None, summed: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor,
    rate: float, key: Tensor, place: int, partial: Tensor, half: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradient of `add_norm` for the gradients of its two results, of which one may be None.

    Args:
        partial: fp32 (P, 3 * H), some columns of a wider one; receives of the gradients of `gain` and `bias`, and of the
            gradient of x, partial sums over the rows.

    Returns:
        The gradients of residual, fp32, and of x, half.
    """
    rows, H = summed.shape
    of_residual, of_x = torch.empty_like(summed), torch.empty_like(summed, dtype=half)
    block = triton.next_power_of_2(H)
    _add_norm_backward[(len(partial),)](
        summed if grad is None else grad, of_x if grad_half is None else grad_half, summed, mean, rstd, gain, key,
        of_residual, of_x, partial, place, *threshold(rate), rows, H, partial.stride(0),
        HAS_GRAD=grad is not None, HAS_HALF=grad_half is not None, DROPS=rate > 0, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return of_residual, of_x


def gelu_backward(grad: Tensor, x: Tensor, partial: Tensor) -> Tensor:
    """The gradient of GELU(x), half (R, H), for that of its result; `partial`, fp32 (P, H), receives sums over its rows."""
    rows, H = x.shape
    of_x, block = torch.empty_like(x), min(1024, triton.next_power_of_2(H))
    grid = (len(partial), triton.cdiv(H, block))
    _gelu_backward[grid](grad, x, of_x, partial, rows, H, partial.stride(0), BLOCK=block, num_warps=_warps(block))
    return of_x


def column_sums(partial: Tensor) -> Tensor:
    """fp32 (P, H) to (H,)."""
    P, H = partial.shape
    out, block = partial.new_empty(H), 32
    _column_sums[(triton.cdiv(H, block),)](partial, out, P, H, P=triton.next_power_of_2(P), BLOCK=block, num_warps=8)
    return out


def adamw(
    weight: Tensor, mean: Tensor, square: Tensor, grad: Tensor, scale: Tensor, rate: Tensor, corrections: Tensor,
    *, betas: tuple[float, float], eps: float, decay: float, half: Tensor | None = None,
) -> None:  # fmt: skip
    """One step of AdamW (Loshchilov and Hutter 2019), in place. All tensors but `half` fp32, and contiguous.

    Args:
        weight, mean, square, grad: of one shape; the moments of the gradient, and the gradient, which stays as it is.
        scale: one number, by which the gradient is divided.
        rate: one number, the learning rate.
        corrections: (2,), 1 - beta1^t and the root of 1 - beta2^t.
        half: of the weight's shape; receives it, cast.
    """
    (beta1, beta2), count, block = betas, weight.numel(), 2048
    _adamw[(triton.cdiv(count, block),)](
        weight, grad, mean, square, weight if half is None else half, scale, rate, corrections, 1 - beta1, beta2, 1 - beta2,
        eps, decay, count, HAS_HALF=half is not None, BLOCK=block, num_warps=8,
    )  # fmt: skip


def threshold(rate: float) -> tuple[int, float]:
    """Of a dropout: the least 31-bit number that keeps an element, and 1 / (true keep rate)."""
    least = round(rate * _LEVELS)
    return least, _LEVELS / (_LEVELS - least)


def _warps(block: int) -> int:
    return max(1, min(8, block // 256))
