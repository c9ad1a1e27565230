"""Dropout whose masks are a pure function of (seed, step), in keras.ops.

The key of a step is an input of the compiled program; each mask folds in how many were drawn before it, so that the
same program draws other masks in each step and the same ones again when a run is repeated.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt32
from keras import ops, random


def step_key(seed: int, step: int, part: int = 0, rank: int = 0) -> UInt32[np.ndarray, " 2"]:
    """The key of one step: 50 random bits, so that no two steps of a long run share one, and room for 1024 masks.

    Both words are below 2^30: Keras takes larger ones modulo 2^31 - 2 on TensorFlow. Each micro-batch (`part`) of a step
    has a key of its own, and so has each process (`rank`) that shares it.
    """
    place = [part, rank] if rank else [part] if part else []
    words = np.random.SeedSequence([seed, step, *place]).generate_state(2, np.uint32) >> np.uint32(2)
    return words & np.array([0x3FFFFFFF, 0x3FFFFC00], np.uint32)


class _Key(random.SeedGenerator):
    """What keras.random asks for its next seed: a step's key and the mask's index instead of a variable's state."""

    def __init__(self, key: Any, index: int) -> None:
        self._key, self._index = key, index

    def next(self, ordered: bool = True) -> Any:  # noqa: ARG002  # Keras' signature
        return self._key + ops.convert_to_tensor([0, self._index], dtype="uint32")


class DropoutMasks:
    """The masks of one training step, drawn in the order in which the model asks for them."""

    def __init__(self, key: Any) -> None:
        """Begin the masks of a step; `key` is `step_key`'s, as a tensor."""
        self._key = key
        self._drawn = 0

    def draw(self, shape: tuple[int, ...], rate: float) -> Any:
        """Independent booleans, false with probability `rate`."""
        self._drawn += 1
        return random.uniform(shape, dtype="float32", seed=_Key(self._key, self._drawn)) >= rate


def masked(x: Any, rate: float, masks: DropoutMasks | None) -> tuple[Any, float]:
    """`x` with elements dropped, and the factor by which the caller still has to multiply: (x, 1) outside training."""
    if masks is None or rate == 0:
        return x, 1.0
    return ops.where(masks.draw(x.shape, rate), x, ops.zeros((), x.dtype)), 1 / (1 - rate)


def scaled(x: Any, factor: float) -> Any:
    """`x` times the factor, computed in float32: bfloat16 would round 1 / 0.9 by 0.16 %."""
    return x if factor == 1.0 else ops.cast(ops.cast(x, "float32") * factor, x.dtype)


def dropout(x: Any, rate: float, masks: DropoutMasks | None) -> Any:
    """Inverted dropout of `x`; `x` itself outside training (`masks` None) or at rate 0."""
    return scaled(*masked(x, rate, masks))


def add_dropped_out(residual: Any, x: Any, rate: float, masks: DropoutMasks | None) -> Any:
    """Residual + dropout(x), in float32."""
    kept, factor = masked(x, rate, masks)
    return residual + scaled(ops.cast(kept, "float32"), factor)
