"""What the readers produce: the texts and labels of one split, still as words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.tasks import Task

# int64 (N,), positions in the model's label order; float32 (N,), the scores of a regression; or float32 (N, outputs), 1
# where an example of a multi-label task has the label of that output, else 0
Labels = NDArray[np.int64] | NDArray[np.float32]
LARGEST_SCORE: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N examples in the order of their file.

    Attributes:
        texts: one column of N texts, or two (pairs).
        labels: N label names, or tuples of such (multi-label); None if the split hides them.
        origin: the file, for messages; of several, what they are called together.
        origins: the file of each example, where there are several.
        line_numbers: where example i stands in the file: line `line_numbers[i]`, counted from 1.
        unit: what `line_numbers` counts: `line` of a text file, `row` of a table.
        notes: what a reader of the result should know of this file.
    """

    texts: tuple[Sequence[str], ...]
    labels: Sequence[str] | Sequence[tuple[str, ...]] | None
    origin: str
    line_numbers: Sequence[int] | Int64[np.ndarray, " N"]
    unit: str = "line"
    notes: tuple[str, ...] = ()
    origins: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts[0])

    def where(self, index: int) -> str:
        """Origin and line of example `index`, for messages."""
        return f"{self.origins[index] if self.origins else self.origin}, {self.unit} {self.line_numbers[index]}"

    def take(self, index: Int64[np.ndarray, " M"]) -> "Examples":
        """The examples `index`, in that order."""
        return replace(
            self,
            texts=tuple(
                column.take(index) if isinstance(column, StoredTexts) else [column[i] for i in index]
                for column in self.texts
            ),
            labels=None if self.labels is None else [self.labels[i] for i in index],
            line_numbers=np.asarray(self.line_numbers)[index],
            origins=[self.origins[i] for i in index] if self.origins else (),
        )


def encode_labels(examples: Examples, task: Task, model_labels: Sequence[str] | None) -> Labels:
    """Labels as a model sees them: int64 (N,), the position in `model_labels`; float32 (N,) for regression; float32
    (N, outputs) of 0 and 1 for a multi-label task.

    Raises:
        DataError: a label that the task does not have, or a score that is no number or outside `task.score_range`.
    """
    assert examples.labels is not None, "this split hides its labels"
    if task.labels is None:
        return np.array([_score(examples, task, i, str(raw)) for i, raw in enumerate(examples.labels)], np.float32)
    assert model_labels is not None
    position = {name: i for i, name in enumerate(model_labels)}
    labels: Sequence[Any] = examples.labels
    try:
        if not task.is_multilabel:
            return np.fromiter((position[label] for label in labels), np.int64, len(labels))
        labels = [(names,) if isinstance(names, str) else names for names in labels]
        chosen = np.zeros((len(labels), len(position)), np.float32)
        rows = np.repeat(np.arange(len(labels)), [len(names) for names in labels])
        chosen[rows, [position[label] for names in labels for label in names]] = 1
        return chosen
    except KeyError as error:
        (label,) = error.args
    index = next(i for i, one in enumerate(labels) if label == one or (isinstance(one, tuple) and label in one))
    hint = did_you_mean(label, task.labels) if label and isinstance(label, str) else ""
    raise DataError(f"{examples.where(index)}: the label is {brief(label)}{hint}; {task.title} has {listed(task.labels)}.")


def _score(examples: Examples, task: Task, index: int, raw: str) -> float:
    low, high = task.score_range
    try:
        score = float(raw)
    except ValueError:
        score = float("nan")
    if not (low <= score <= high and abs(score) <= LARGEST_SCORE):
        needed = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise DataError(f"{examples.where(index)}: the score is {brief(raw)}; {task.title} needs {needed}.")
    return score
