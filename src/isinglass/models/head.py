"""A new classification head, drawn by NumPy so that every backend begins with the same one."""

from typing import Final

import numpy as np
from jaxtyping import Float32

from isinglass.models.blueprint import Blueprint, Parameter
from isinglass.models.weights import Weights

_HEAD: Final = 0x68656164  # "head": apart from the seeds of batches and dropout


def with_head(weights: Weights, blueprint: Blueprint, num_outputs: int, seed: int) -> Weights:
    """Return `weights` and the parameters of the head that they lack, float32.

    New matrices are drawn from N(0, initializer_range) by `seed`, new biases are 0, and new norms 1.
    """
    rng = np.random.default_rng([seed, _HEAD])
    complete = dict(weights)
    for module in blueprint.head_modules(num_outputs):
        for parameter in module.parameters:
            if parameter.name not in weights:
                complete[parameter.name] = _initial(parameter, blueprint.initializer_range, rng)
    return complete


def _initial(parameter: Parameter, deviation: float, rng: np.random.Generator) -> Float32[np.ndarray, "..."]:
    if parameter.role == "matrix":
        return rng.normal(0, deviation, parameter.shape).astype(np.float32)
    return np.full(parameter.shape, 1 if parameter.role == "norm" else 0, np.float32)
