"""A new classification head: drawn once, by NumPy, so that every backend begins with the same one."""

from typing import Final

import numpy as np

from isinglass.models.encoder_config import EncoderConfig
from isinglass.models.weights import Weights

_HEAD: Final = 0x68656164  # "head": apart from the seeds of batches and dropout


def with_head(weights: Weights, config: EncoderConfig, num_outputs: int, seed: int) -> Weights:
    """`weights` and what they lack of the head: float32, N(0, initializer_range) by `seed`, biases 0."""
    H = config.hidden_size
    rng = np.random.default_rng([seed, _HEAD])
    complete = dict(weights)
    for name, shape in (("head.dense", (H, H)), ("head.output", (num_outputs, H))):
        if f"{name}.weight" not in weights:
            complete[f"{name}.weight"] = rng.normal(0, config.initializer_range, shape).astype(np.float32)
            complete[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return complete
