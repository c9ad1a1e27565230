"""Dropout whose masks are a pure function of (seed, step), in keras.ops but for the random bits.

The key of a step is an input of the compiled program, and each mask adds the number of masks before it to the key. So the
same program draws other masks in each step, and the same masks when a run is repeated.

Keras draws uniform floats, one 32-bit number for each element. Here each 32-bit number serves two elements, as in the
PyTorch backend: an element is kept if its 16 bits, as a number, reach a threshold. The keep rate is exact to 1 / 65536.
"""

import math
from typing import Any, Final

import keras
import numpy as np
from jaxtyping import UInt32
from keras import ops

LEVELS: Final = 1 << 16


def step_key(seed: int, step: int, part: int = 0, rank: int = 0) -> UInt32[np.ndarray, " 2"]:
    """Return the key of one step: 50 random bits, so that no two steps of a long run share a key, and room for 1024 masks.

    Both numbers are below 2^30, because Keras takes larger ones modulo 2^31 - 2 on TensorFlow.

    Args:
        part: number of the micro-batch; each has a key of its own.
        rank: of the process; each has a key of its own.
    """
    entropy = [seed, step, part, rank]
    while len(entropy) > 2 and entropy[-1] == 0:  # trailing zeros count where the seed has more than 32 bits
        entropy.pop()
    numbers = np.random.SeedSequence(entropy).generate_state(2, np.uint32) >> np.uint32(2)
    return numbers & np.array([0x3FFFFFFF, 0x3FFFFC00], np.uint32)


def _bits(key: Any, shape: tuple[int, ...]) -> Any:
    """Return random uint16 of a shape. No function of Keras returns the numbers as the framework draws them."""
    count = math.prod(shape)
    pairs = -(-count // 2)  # each of 32 bits
    if keras.backend.backend() == "jax":
        import jax

        drawn = jax.lax.bitcast_convert_type(jax.random.bits(key, (pairs,), "uint32"), "uint16")
    else:
        import tensorflow as tf

        seed = tf.cast(key, tf.int32)  # both numbers are below 2^31
        drawn = tf.random.stateless_uniform((pairs,), seed, minval=None, maxval=None, dtype=tf.uint32)
        drawn = tf.bitcast(drawn, tf.uint16)
    return ops.reshape(ops.reshape(drawn, (-1,))[:count], shape)


class DropoutMasks:
    """The masks of one training step, drawn in the order in which the model calls `draw`."""

    def __init__(self, key: Any) -> None:
        """Start with the key of a step: what `step_key` returned, as a tensor."""
        self._key = key
        self._drawn = 0

    def draw(self, shape: tuple[int, ...], rate: float) -> Any:
        """Return independent booleans, false with probability `rate`, rounded to 1 / 65536."""
        self._drawn += 1
        key = self._key + ops.convert_to_tensor([0, self._drawn], dtype="uint32")
        return _bits(key, shape) >= ops.convert_to_tensor(_threshold(rate), dtype="uint16")


def _threshold(rate: float) -> int:
    return min(round(rate * LEVELS), LEVELS - 1)


def masked(x: Any, rate: float | None, masks: DropoutMasks | None) -> tuple[Any, float]:
    """Return `x` with elements dropped, and the factor that the caller still has to multiply with: (x, 1) without masks."""
    if masks is None or not rate:
        return x, 1.0
    factor = LEVELS / (LEVELS - _threshold(rate))
    return ops.where(masks.draw(x.shape, rate), x, ops.zeros((), x.dtype)), factor


def scaled(x: Any, factor: float) -> Any:
    """Return `x` times `factor`, computed in float32, because bfloat16 would round 1 / 0.9 by 0.16 %."""
    if factor == 1.0:
        return x
    return ops.cast(ops.cast(x, "float32") * factor, x.dtype)


def dropout(x: Any, rate: float | None, masks: DropoutMasks | None) -> Any:
    """Return the inverted dropout of `x`; `x` itself outside training (`masks` None) or without a rate."""
    return scaled(*masked(x, rate, masks))


def add_dropped_out(residual: Any, x: Any, rate: float | None, masks: DropoutMasks | None) -> Any:
    """Return residual + dropout(x), in float32."""
    dropped, factor = masked(x, rate, masks)
    return residual + scaled(ops.cast(dropped, "float32"), factor)
