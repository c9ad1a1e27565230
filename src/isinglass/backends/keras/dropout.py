"""Dropout whose masks are a pure function of (seed, step), in keras.ops but for the random bits.

The key of a step is an input of the compiled program; each mask folds in how many were drawn before it, so that the
same program draws other masks in each step and the same ones again when a run is repeated.

Keras draws uniform floats, one 32-bit number for each element. Here each serves two, as in the PyTorch backend: an element
is kept if its 16 bits, as a number, reach a threshold, so that the keep rate is exact to 1 / 65536.
"""

import math
from typing import Any, Final

import keras
import numpy as np
from jaxtyping import UInt32
from keras import ops

LEVELS: Final = 1 << 16


def step_key(seed: int, step: int, part: int = 0, rank: int = 0) -> UInt32[np.ndarray, " 2"]:
    """The key of one step: 50 random bits, so that no two steps of a long run share one, and room for 1024 masks.

    Both words are below 2^30: Keras takes larger ones modulo 2^31 - 2 on TensorFlow. Each micro-batch (`part`) of a step
    has a key of its own, and so has each process (`rank`) that shares it.
    """
    place = [part, rank] if rank else [part] if part else []
    words = np.random.SeedSequence([seed, step, *place]).generate_state(2, np.uint32) >> np.uint32(2)
    return words & np.array([0x3FFFFFFF, 0x3FFFFC00], np.uint32)


def _bits(key: Any, shape: tuple[int, ...]) -> Any:
    """uint16, all bits random: whole words as the framework draws them, which no function of Keras returns."""
    count = math.prod(shape)
    words = -(-count // 2)
    if keras.backend.backend() == "jax":
        import jax

        drawn = jax.lax.bitcast_convert_type(jax.random.bits(key, (words,), "uint32"), "uint16")
    else:
        import tensorflow as tf

        seed = tf.cast(key, tf.int32)  # the words are below 2^31
        drawn = tf.random.stateless_uniform((words,), seed, minval=None, maxval=None, dtype=tf.uint32)
        drawn = tf.bitcast(drawn, tf.uint16)
    return ops.reshape(ops.reshape(drawn, (-1,))[:count], shape)


class DropoutMasks:
    """The masks of one training step, drawn in the order in which the model asks for them."""

    def __init__(self, key: Any) -> None:
        """Begin the masks of a step; `key` is `step_key`'s, as a tensor."""
        self._key = key
        self._drawn = 0

    def draw(self, shape: tuple[int, ...], rate: float) -> Any:
        """Independent booleans, false with probability `rate` in 1/65536ths."""
        self._drawn += 1
        key = self._key + ops.convert_to_tensor([0, self._drawn], dtype="uint32")
        return _bits(key, shape) >= ops.convert_to_tensor(_dropped(rate), dtype="uint16")


def _dropped(rate: float) -> int:
    dropped = round(rate * LEVELS)
    if not 0 < dropped < LEVELS:
        raise ValueError(f"a dropout rate is to lie between 0 and 1, not at {rate}")
    return dropped


def masked(x: Any, rate: float, masks: DropoutMasks | None) -> tuple[Any, float]:
    """`x` with elements dropped, and the factor by which the caller still has to multiply: (x, 1) outside training."""
    if masks is None or rate == 0:
        return x, 1.0
    factor = LEVELS / (LEVELS - _dropped(rate))
    return ops.where(masks.draw(x.shape, rate), x, ops.zeros((), x.dtype)), factor


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
