"""A source of examples: what every part of the program that trains or predicts reads its data from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from isinglass.data.examples import Examples
from isinglass.tasks import Split, Task


@runtime_checkable
class Source(Protocol):
    """A task and the examples of its splits."""

    @property
    def task(self) -> Task:
        """The task, published or the user's own."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the result about what was guessed or looks wrong."""
        ...

    def read(self, split: Split) -> Examples:
        """Return the examples of one of the task's splits.

        Raises:
            DataError: the data are missing or damaged.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LoadedSplits:
    """Splits that have been read already, by name."""

    task: Task
    splits: Mapping[str, Examples]
    notes: tuple[str, ...] = ()

    def read(self, split: Split) -> Examples:
        """Return the examples of the split."""
        return self.splits[split.name]
