"""What the readers produce: the texts and labels of one split, still as words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isinglass.errors import DataError
from isinglass.names import brief, did_you_mean
from isinglass.tasks import Task

# int64 (N,), positions in the model's label order; or float32 (N,), the scores of a regression
Labels = NDArray[np.int64] | NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N examples in the order of their file.

    Attributes:
        texts: one column of N texts, or two (pairs).
        labels: N label names, or None if the split hides them.
        origin: the file, for messages.
        line_numbers: where example i stands in the file: line `line_numbers[i]`, counted from 1.
        unit: what `line_numbers` counts: `line` of a text file, `row` of a table.
        notes: what a reader of the result should know of this file.
    """

    texts: tuple[Sequence[str], ...]
    labels: Sequence[str] | None
    origin: str
    line_numbers: Sequence[int]
    unit: str = "line"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts[0])

    def where(self, index: int) -> str:
        """Origin and line of example `index`, for messages."""
        return f"{self.origin}, {self.unit} {self.line_numbers[index]}"


def encode_labels(examples: Examples, task: Task, model_labels: Sequence[str] | None) -> Labels:
    """Labels as a model sees them: int64 (N,), the position in `model_labels`; float32 (N,) for regression.

    Raises:
        DataError: a label that the task does not have, or a score that is no number or outside `task.score_range`.
    """
    assert examples.labels is not None, "this split hides its labels"
    if task.labels is None:
        return np.array([_score(examples, task, i, raw) for i, raw in enumerate(examples.labels)], np.float32)
    assert model_labels is not None
    position = {name: i for i, name in enumerate(model_labels)}
    try:
        return np.array([position[label] for label in examples.labels], np.int64)
    except KeyError:
        index = next(i for i, label in enumerate(examples.labels) if label not in position)
    label = examples.labels[index]
    hint = did_you_mean(label, task.labels) if label else ""
    raise DataError(
        f"{examples.where(index)}: the label is {brief(label)}{hint}; {task.title} has {', '.join(map(repr, task.labels))}."
    )


def _score(examples: Examples, task: Task, index: int, raw: str) -> float:
    low, high = task.score_range
    try:
        score = float(raw)
    except ValueError:
        score = float("nan")
    if not low <= score <= high:
        raise DataError(
            f"{examples.where(index)}: the score is {brief(raw)}; {task.title} needs a number from {low:g} to {high:g}."
        )
    return score
