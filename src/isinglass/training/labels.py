"""The labels of a task: matched with those of a model by their names, and the weights of their losses."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from isinglass.errors import CheckpointError, ConfigError
from isinglass.models.blueprint import HEAD_OUTPUT
from isinglass.models.checkpoint import Checkpoint
from isinglass.names import brief, shortened
from isinglass.tasks import Labels, Task

logger = logging.getLogger(__name__)


def with_head_for(checkpoint: Checkpoint, task: Task) -> tuple[Checkpoint, str | None]:
    """Return the model with a head that fits the task, and a note if its own output layer was dropped.

    A head whose label names are the task's is kept, in its own order, under the task's names. Any other output layer is
    replaced by a new one, in the task's order; the layer below it is kept.
    """
    config_json = {**checkpoint.config_json, "problem_type": task.kind.problem_type}
    checkpoint = replace(checkpoint, config_json=config_json)
    output = checkpoint.weights.get(f"{HEAD_OUTPUT}.weight")
    if output is None:
        return replace(checkpoint, label_names=task.labels), None
    if task.labels is None and len(output) == 1:
        return replace(checkpoint, label_names=None), None
    matched = task.match_labels(checkpoint.label_names or ())
    if matched is not None:
        return replace(checkpoint, label_names=matched), None
    weights = {name: array for name, array in checkpoint.weights.items() if not name.startswith(f"{HEAD_OUTPUT}.")}
    old_names = shortened(", ".join(checkpoint.label_names or ("one output",)), 200)
    note = f"{checkpoint.origin} has a head for other labels ({old_names}): a new one is trained."
    logger.warning(note)
    return replace(checkpoint, weights=weights, label_names=task.labels), note


def label_order(checkpoint: Checkpoint, task: Task) -> tuple[str, ...] | None:
    """Return the task's label names in the order of a finished model's outputs; None for regression.

    Raises:
        CheckpointError: the model has no trained head, or one for other labels.
    """
    outputs = checkpoint.num_outputs
    if outputs is None:
        raise CheckpointError(f"{checkpoint.origin} has no trained classification head: train it first.")
    if task.labels is None:
        if outputs != 1:
            raise CheckpointError(f"{checkpoint.origin} has {outputs} outputs; {task.title} is a regression with one.")
        return None
    names = checkpoint.label_names or ()
    matched = task.match_labels(names)
    if matched is None:
        raise CheckpointError(
            f"{checkpoint.origin}: the labels in id2label ({', '.join(names) or 'one output'}) are not those of "
            f"{task.title} ({', '.join(task.labels)}); name them in config.json, in the order of the outputs."
        )
    return matched


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
    balanced = task.kind.balanced_weights(labels, task.num_outputs)
    if source == "balanced":
        return tuple(balanced.tolist())
    weights = _read_weights(source, order or ())
    return tuple((task.kind.weight_scale(labels, weights) * weights).tolist())


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
