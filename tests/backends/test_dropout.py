"""Statistics of dropout: exact rates, independent masks, and masks that are a pure function of (seed, step)."""

import itertools

import numpy as np
import pytest
import torch

from isinglass.backends.torch.batch import NO_DROPOUT
from isinglass.backends.torch.cpu.dropout import MaskDropout, drop

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.013])
def test_the_keep_rate_is_exact(rate: float, dtype: torch.dtype) -> None:
    """The rate must be within four standard deviations of the nominal rate over 4 million elements, far closer than 1e-3."""
    mask, scale = MaskDropout(1, 2).draw((2000, 2000), rate, dtype)
    assert mask.itemsize == dtype.itemsize
    assert set(mask.unique().tolist()) == {0, -1}
    dropped = drop(torch.ones(2000, 2000, dtype=dtype), mask)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    kept = float(dropped.double().mean())
    assert abs(kept - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / 4e6) + 1 / 65536
    assert abs(scale * (1 - rate) - 1) < 1 / 65536


def test_neighbouring_elements_steps_and_calls_are_independent() -> None:
    """One 64-bit word serves four elements, and a call uses four streams: lags, steps and calls must be uncorrelated."""
    masks = MaskDropout(7, 0)
    first = masks.draw((1 << 20,), 0.5, torch.float32)[0].numpy() + 0.5
    second = masks.draw((1 << 20,), 0.5, torch.float32)[0].numpy() + 0.5
    next_step = MaskDropout(7, 1).draw((1 << 20,), 0.5, torch.float32)[0].numpy() + 0.5
    bound = 5 / np.sqrt(1 << 20)
    for lag in (1, 2, 3, 4, 8, 1024, 1 << 19):
        assert abs(np.mean(first[lag:] * first[:-lag]) / 0.25) < bound, f"lag {lag}"
    assert abs(np.mean(first * second) / 0.25) < bound
    assert abs(np.mean(first * next_step) / 0.25) < bound


def test_masks_are_a_function_of_seed_step_and_rank() -> None:
    """Exact resuming then needs no stored generator state."""

    def draw(seed: int, step: int) -> torch.Tensor:
        return MaskDropout(seed, step).draw((1000,), 0.3, torch.bfloat16)[0]

    def of(rank: int, part: int = 0) -> torch.Tensor:
        return MaskDropout(1, 5, part=part, rank=rank).draw((1000,), 0.3, torch.bfloat16)[0]

    assert torch.equal(draw(1, 5), draw(1, 5))
    assert torch.equal(of(2), of(2))
    masks = [draw(1, 5), of(1), of(2), of(0, 1), of(1, 1)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(masks, 2))
    assert not torch.equal(draw(1, 5), draw(5, 1))
    assert not torch.equal(draw(1, 5), draw(1, 6))


def test_values_and_gradients_are_those_of_multiplying_by_the_mask() -> None:
    x = torch.randn(64, 32, requires_grad=True)
    residual = torch.randn(64, 32, requires_grad=True)
    mask, scale = MaskDropout(3, 1).draw((64, 32), 0.25, torch.float32)
    mask = -mask  # as factors 0 and 1
    torch.testing.assert_close(MaskDropout(3, 1).apply(x, 0.25), x * mask * scale)
    out = MaskDropout(3, 1).add(residual, x, 0.25)
    torch.testing.assert_close(out, residual + x * mask * scale)
    weight = torch.randn(64, 32)
    (out * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight * mask * scale)
    torch.testing.assert_close(residual.grad, weight)


def test_no_dropout_and_rate_zero_change_nothing() -> None:
    x, residual = torch.randn(4, 4), torch.randn(4, 4)
    assert NO_DROPOUT.apply(x, 0.5) is x
    assert NO_DROPOUT.apply_unscaled(x, 0.5) == (x, 1.0)
    assert MaskDropout(1, 1).apply(x, 0.0) is x
    for dropout, rate in ((NO_DROPOUT, 0.5), (MaskDropout(1, 1), 0.0)):
        torch.testing.assert_close(dropout.add(residual, x, rate), residual + x)


def test_a_sum_in_prediction_takes_no_memory_unless_its_precision_is_wider() -> None:
    """Prediction writes the sum over the residual. Anywhere else this would change the residual's gradient."""
    with torch.inference_mode():
        residual, x = torch.randn(4, 4), torch.randn(4, 4)
        assert NO_DROPOUT.add(residual, x, 0.5) is residual
        narrow = residual.bfloat16()
        assert NO_DROPOUT.add(narrow, x, 0.5).dtype == torch.float32


def test_the_mean_survives_bfloat16() -> None:
    """A scale of 1/0.9 rounded to bfloat16 would shrink everything by 0.15 percent."""
    residual, x = torch.zeros(1000, 1000), torch.ones(1000, 1000, dtype=torch.bfloat16)
    mean = float(MaskDropout(1, 1).add(residual, x, 0.1).double().mean())
    assert abs(mean - 1) < 1e-3
