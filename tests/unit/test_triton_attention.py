"""Our attention kernels, run by Triton's interpreter on a CPU (conftest.py), otherwise on the GPU."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from isinglass.backends.torch.gpu.attention import PlacedDropout
from isinglass.backends.torch.gpu.triton.attention import TILE, Projections, SequenceBounds, attend, attend_backward
from tests.interpreted import mend_products

mend_products()
DEVICE = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
N = 2
KEY = torch.tensor([12345], device=DEVICE)
in_half = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
in_shapes = pytest.mark.parametrize(
    ("queries", "keys", "D"),
    [
        ([3, 17, TILE, 1], [3, 17, TILE, 1], 16),  # one tile each, the last full
        ([70, 2, 130], [70, 2, 130], 24),  # several tiles; D is not a power of two
        ([1, 1, 1, 0], [3, 130, TILE, 9], 8),  # the last layer's: one query each, and keys without a query
    ],
)


def bounds_of(queries: list[int], keys: list[int]) -> SequenceBounds:
    cu_q, cu_k = (torch.tensor(np.cumsum([0, *each]), dtype=torch.int32, device=DEVICE) for each in (queries, keys))
    return SequenceBounds(cu_q, cu_k, max(queries), max(keys))


def normal(*shape: int, half: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, half)


def inputs(queries: list[int], keys: list[int], D: int, half: torch.dtype) -> Projections:
    """Return columns of wider tensors, as in a model."""
    wide_q, wide_kv = normal(sum(queries), 3 * N * D, half=half, seed=1), normal(sum(keys), 2 * N * D, half=half, seed=2)
    return Projections.split(wide_kv, wide_q[:, : N * D])


def written_out(leaves: list[Tensor], bounds: SequenceBounds, D: int, kept: list[Tensor] | None = None) -> Tensor:
    """Compute attention in fp32, one sequence after another, with the weights multiplied by `kept`."""
    parts = []
    for i, ((a, b), (c, d)) in enumerate(zip(pairwise(bounds.cu_q.tolist()), pairwise(bounds.cu_k.tolist()), strict=True)):
        q, k, v = (x[start:stop].view(-1, N, D) for x, start, stop in zip(leaves, (a, c, c), (b, d, d), strict=True))
        weights = (torch.einsum("qnd,knd->nqk", q, k) / math.sqrt(D)).softmax(-1)
        weights = weights if kept is None else weights * kept[i]
        parts.append(torch.einsum("nqk,knd->qnd", weights, v).reshape(b - a, N * D))
    return torch.cat(parts)


def masks(bounds: SequenceBounds, rate: float, place: int = 3, key: Tensor = KEY) -> list[Tensor]:
    """Return the factor of each weight, (N, Lq, Lk) for each sequence, read off one-hot values with equal scores."""
    lengths_q, lengths_k = (cu.diff().tolist() for cu in (bounds.cu_q, bounds.cu_k))
    D, found = 128, [torch.zeros(N, q, k, device=DEVICE) for q, k in zip(lengths_q, lengths_k, strict=True)]
    dropout = PlacedDropout(rate, key, place)
    q, k = (torch.zeros(sum(lengths), N * D, device=DEVICE, dtype=torch.float16) for lengths in (lengths_q, lengths_k))
    places = torch.cat([torch.arange(length) for length in lengths_k]).to(DEVICE)
    for begin in range(0, max(lengths_k), D):  # D keys are visible at a time
        v = (places[:, None] == begin + torch.arange(D, device=DEVICE)).to(torch.float16).repeat(1, N)
        out, _ = attend(Projections(q, k, v), N, bounds, dropout)
        for each, (a, b) in zip(found, pairwise(bounds.cu_q.tolist()), strict=True):
            shown = out[a:b].view(-1, N, D).transpose(0, 1).float() * each.shape[2]
            each[:, :, begin : begin + D] = shown[:, :, : max(0, each.shape[2] - begin)]
    return found


def gradients(
    qkv: Projections, bounds: SequenceBounds, dropout: PlacedDropout
) -> tuple[Tensor, Tensor, Projections, Tensor]:
    """Return the output, its gradient, the gradients of the inputs, and their partial sums."""
    q, k, _ = qkv
    out, log_sums = attend(qkv, N, bounds, dropout)
    grad = normal(*out.shape, half=q.dtype, seed=3)
    grad_q = torch.full_like(q, math.nan)  # unwritten entries are noticed
    grad_kv = torch.full((len(k), 2 * k.shape[1]), math.nan, device=DEVICE, dtype=q.dtype)
    grads = Projections.split(grad_kv, grad_q)
    sums = attend_backward(grad, qkv, out, log_sums, bounds, dropout, grads)
    return out, grad, grads, sums


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@in_half
@in_shapes
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_each_sequence_alone(half, queries, keys, D, rate):
    """Uses the masks of the kernels, which the forward and the backward pass draw separately."""
    bounds, qkv = bounds_of(queries, keys), inputs(queries, keys, D, half)
    out, grad, found, sums = gradients(qkv, bounds, PlacedDropout(rate, KEY, 3))
    leaves = [x.detach().float().contiguous().requires_grad_() for x in qkv]
    expected = written_out(leaves, bounds, D, masks(bounds, rate) if rate else None)
    tolerance = 3 * torch.finfo(half).eps
    assert off(out, expected.detach()) < tolerance
    of_leaves = torch.autograd.grad(expected, leaves, grad.float())
    for each, wanted in zip(found, of_leaves, strict=True):
        assert off(each, wanted) < tolerance
    assert off(sums.sum(0), torch.cat([each.sum(0) for each in of_leaves])) < tolerance


def test_a_sequence_reaches_no_other():
    """If the numbers of the neighbours change, the results of a sequence must stay the same to the last bit."""
    lengths, D = [5, 70, 9], 16
    bounds = bounds_of(lengths, lengths)
    q, k, v = inputs(lengths, lengths, D, torch.float16)
    found = gradients(Projections(q, k, v), bounds, PlacedDropout(0.0, KEY, 0))
    for each in (q, k, v):
        each[:5] *= -2
        each[75:] *= 3
    changed = gradients(Projections(q, k, v), bounds, PlacedDropout(0.0, KEY, 0))
    assert torch.equal(found[0][5:75], changed[0][5:75]) and not torch.equal(found[0][75:], changed[0][75:])
    for before, after in zip(found[2], changed[2], strict=True):
        assert torch.equal(before[5:75], after[5:75])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_weights_are_kept_at_the_rate_and_independently(rate):
    """The rate is within 5 standard deviations. Neighbours, heads, sequences, places and steps must be uncorrelated."""
    bounds = bounds_of([150, 150], [150, 150])
    drawn = masks(bounds, rate)
    kept = torch.stack([(each > 0).double() for each in drawn])  # sequence, head, query, key
    values = torch.cat([each[each > 0] for each in drawn])
    torch.testing.assert_close(values, torch.full_like(values, 1 / (1 - rate)), rtol=2e-3, atol=0)
    variance = rate * (1 - rate)
    assert float(kept.mean()) == pytest.approx(1 - rate, abs=5 * math.sqrt(variance / kept.numel()))
    assert all(torch.equal(*pair) for pair in zip(drawn, masks(bounds, rate), strict=True))
    others = [torch.stack(masks(bounds, rate, **other)) for other in ({"place": 4}, {"key": KEY + 1})]
    c = kept - kept.mean()
    pairs = [(c, (other > 0).double() - (1 - rate)) for other in others]
    pairs += [(c[0], c[1]), (c[:, 0], c[:, 1]), (c[:, :, 1:], c[:, :, :-1]), (c[:, :, TILE:], c[:, :, :-TILE])]
    pairs += [(c[..., lag:], c[..., :-lag]) for lag in (1, 2, 3, 4, TILE)]
    for a, b in pairs:
        assert abs(float((a * b).mean())) / variance < 5 / math.sqrt(a.numel())
