"""The texts and labels of one split, as names and numbers that people wrote, and the sources that they are read from."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import numpy as np
from jaxtyping import Int64

from isinglass.data.texts import take_texts
from isinglass.errors import DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.results import HubData
from isinglass.tasks import Labels, Split, Task
from isinglass.tasks.kinds import InvalidLabelError


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N examples in the order of their file.

    Attributes:
        texts: one column of N texts, or two (pairs).
        labels: N label names, or N tuples of names (multi-label); None if the split hides them. Before incomplete rows are
            left out, a missing label is None.
        origin: the file's name in messages; for several files, their common name.
        origins: the name of each example's file, where there are several.
        line_numbers: where example i stands in the file: line `line_numbers[i]`, counted from 1.
        unit: what `line_numbers` counts: `line` of a text file, `row` of a table.
        notes: what a reader of the result should know about this file.
    """

    texts: tuple[Sequence[str], ...]
    labels: Sequence[Any] | None
    origin: str
    line_numbers: Sequence[int] | Int64[np.ndarray, " N"]
    unit: str = "line"
    notes: tuple[str, ...] = ()
    origins: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts[0])

    @property
    def has_label_lists(self) -> bool:
        """Whether the labels are tuples of names."""
        return isinstance(next(iter(self.labels or ()), None), tuple)

    def each_label(self) -> Iterable[str]:
        """Return all labels of all examples, in their order."""
        labels = self.labels or ()
        return chain.from_iterable(labels) if self.has_label_lists else labels

    def where(self, index: int) -> str:
        """Return the file and the line of example `index`, for messages."""
        origin = self.origins[index] if self.origins else self.origin
        return f"{origin}, {self.unit} {self.line_numbers[index]}"

    def where_label(self, label: Any) -> str:
        """Return the place of the first example that has the label, or all of these labels; there must be one."""
        assert self.labels is not None
        if self.has_label_lists:
            return self.where(next(i for i, labels in enumerate(self.labels) if label in (labels, *labels)))
        return self.where([*self.labels].index(label))

    def take(self, index: Int64[np.ndarray, " M"]) -> "Examples":
        """Return the examples `index` in that order."""
        positions = index.tolist()
        return replace(
            self,
            texts=tuple(take_texts(column, positions) for column in self.texts),
            labels=None if self.labels is None else [self.labels[i] for i in positions],
            line_numbers=np.asarray(self.line_numbers)[index],
            origins=[self.origins[i] for i in positions] if self.origins else (),
        )


def digest_of(*parts: Examples) -> str:
    """Return a digest of texts and labels, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for examples in parts:
        labels = repeat(None) if examples.labels is None else examples.labels
        for row in zip(*examples.texts, labels):  # `repeat` has no end
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def encode_labels(examples: Examples, task: Task, model_labels: Sequence[str] | None) -> Labels:
    """Return the labels as a model sees them.

    Args:
        model_labels: names in the order of the model's outputs; None for regression.

    Returns:
        int64 (N,), positions in `model_labels`; float32 (N,) for regression; float32 (N, outputs) of 0 and 1 for a
        multi-label task.

    Raises:
        DataError: a label is none of the task's, or a score is not a number within `task.score_range`.
    """
    assert examples.labels is not None, "this split hides its labels"
    try:
        return task.kind.encode(examples.labels, model_labels or (), task.score_range)
    except InvalidLabelError as error:
        label, needed = error.args
    place = examples.where_label(label)
    if needed:
        raise DataError(f"{place}: the score is {brief(str(label))}; {task.title} needs {needed}.")
    names = task.labels or ()
    hint = did_you_mean(label, names) if isinstance(label, str) and label else ""
    raise DataError(f"{place}: the label is {brief(label)}{hint}; {task.title} has {listed(names)}.")


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A task and the examples of its splits: what every part of the program that trains or predicts reads its data from.

    Attributes:
        task: published or the user's own.
        notes: sentences for the result about what was guessed or looks wrong.
        dataset: the data set of the hub that they come from; None for files and published tasks.
    """

    task: Task
    notes: tuple[str, ...] = ()
    dataset: HubData | None = None

    @abstractmethod
    def read(self, split: Split) -> Examples:
        """Return the examples of one of the task's splits.

        Raises:
            DataError: the data are missing or damaged.
        """

    def why_unlabelled(self, split: Split) -> str:
        """Return why a split without a label column cannot be scored, and what to do."""
        return f"{self.task.title}'s {split.name} set hides its labels: use `isinglass predict`."


@dataclass(frozen=True, kw_only=True)
class LoadedSplits(Source):
    """Splits that have been read already, by name."""

    splits: Mapping[str, Examples]

    def read(self, split: Split) -> Examples:
        """Return the examples of the split."""
        return self.splits[split.name]
