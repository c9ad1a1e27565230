"""The labels of a model's head and those of a task, matched by their names."""

import logging
from dataclasses import replace

from isinglass.errors import CheckpointError
from isinglass.models.blueprint import HEAD_OUTPUT
from isinglass.models.checkpoint import Checkpoint
from isinglass.names import shortened
from isinglass.tasks import Task

logger = logging.getLogger(__name__)


def with_head_for(checkpoint: Checkpoint, task: Task) -> tuple[Checkpoint, str | None]:
    """Return the model with a head that fits the task, and a note if its own output layer was dropped.

    A head whose label names are the task's is kept, in its own order, under the task's names. Any other output layer is
    replaced by a new one, in the task's order; the layer below it is kept.
    """
    checkpoint = replace(checkpoint, is_multilabel=task.is_multilabel)
    output = checkpoint.weights.get(f"{HEAD_OUTPUT}.weight")
    if output is None:
        return replace(checkpoint, label_names=task.labels), None
    if task.is_regression and len(output) == 1:
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
