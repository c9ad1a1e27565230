"""The factors of the classes' losses."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isinglass.data.examples import Labels
from isinglass.errors import ConfigError
from isinglass.names import brief
from isinglass.tasks import Task


def class_weights(source: str | None, task: Task, labels: Labels, order: Sequence[str] | None) -> tuple[float, ...] | None:
    """Return the factors that the setting `class_weights` asks for, in the order of the outputs; None if it asks for none.

    `balanced` is N / (K * count) for each of K classes, as in scikit-learn; for a multi-label task it is the number of
    examples without the label over the number with it. The weights of a file are scaled to a mean of 1 over the N training
    examples, so that the learning rate keeps its meaning; those of a multi-label task are taken as they are.

    Args:
        source: None, `balanced`, a JSON file of label -> weight, or such a JSON object itself.

    Raises:
        ConfigError: for a regression, or where the file is not a JSON object with a positive number for each label.
    """
    if source is None:
        return None
    if order is None:
        raise ConfigError("class_weights are for classes: a regression has none, leave them out.")
    if task.is_multilabel:
        counts = labels.sum(0).astype(np.float64)
        balanced = (len(labels) - counts) / np.maximum(counts, 1)
    else:
        counts = np.bincount(labels.astype(np.int64), minlength=len(order)).astype(np.float64)
        balanced = len(labels) / (len(order) * np.maximum(counts, 1))
    if source == "balanced":
        return tuple(balanced.tolist())
    weights = _read_weights(source, order)
    scale = 1.0 if task.is_multilabel else len(labels) / float(counts @ weights)
    return tuple((scale * weights).tolist())


def _read_weights(source: str, order: Sequence[str]) -> Float64[np.ndarray, " K"]:
    is_json = source.lstrip().startswith("{")
    origin = "class_weights" if is_json else source
    try:
        weights: Any = json.loads(source if is_json else Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"class_weights is {brief(source)}: neither `balanced` nor a JSON file of label -> weight ({error})."
        ) from None
    if not isinstance(weights, dict) or {*weights} != {*order}:
        found = ", ".join(map(repr, weights)) if isinstance(weights, dict) else type(weights).__name__
        raise ConfigError(f"{origin}: a weight for each of {', '.join(map(repr, order))} was expected; found {found[:200]}.")
    for label, weight in weights.items():
        if not _is_positive(weight):
            raise ConfigError(f"{origin}: the weight of {label!r} is {brief(weight)}; a number above 0 was expected.")
    return np.array([float(weights[label]) for label in order])


def _is_positive(weight: object) -> bool:
    """Tell whether a JSON value is a finite number above 0."""
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf
