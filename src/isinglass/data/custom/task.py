"""The task that examples make, and its splits."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from isinglass.config import KindChoice
from isinglass.data.custom.holdout import divide
from isinglass.data.custom.labels import find_labels
from isinglass.data.examples import Examples
from isinglass.data.source import TaskData
from isinglass.data.tables.schema import Columns
from isinglass.errors import DataError
from isinglass.tasks import Task
from isinglass.tasks.custom import custom_task


def task_data(
    splits: dict[str, Examples],
    columns: Columns,
    *,
    name: str,
    kind: KindChoice,
    positive_label: str | None,
    validation_fraction: float,
    split_seed: int,
    task: Task | None = None,
    notes: Iterable[str] = (),
) -> TaskData:
    """The task that the examples make, and its splits, the notes of all gathered."""
    notes = [*notes, *chain.from_iterable(examples.notes for examples in splits.values())]
    splits = {name: replace(examples, notes=()) for name, examples in splits.items()}
    if task is None:
        labelled = {name: examples for name, examples in splits.items() if examples.labels is not None}
        found = find_labels(labelled, label_column=columns.label, kind=kind, positive_label=positive_label)
        notes += found.notes
        task = custom_task(
            name=name,
            kind=found.kind,
            labels=found.labels,
            text_columns=columns.texts,
            label_column=columns.label,
            splits=[name for name in ("train", "dev", "test") if name in splits or name == "dev"],
            positive_label=found.positive_label,
        )
    for examples in splits.values():
        check_kind(examples, task)
    if "dev" not in splits:
        splits["train"], splits["dev"], note = divide(splits["train"], task, validation_fraction, split_seed)
        notes.append(note)
    if "test" in splits and splits["test"].labels is None:
        task = hiding_test(task)
    return TaskData(task=task, read=lambda split: splits[split.name], notes=tuple(notes))


def hiding_test(task: Task) -> Task:
    """Return the task with a test set whose labels are hidden."""
    return replace(task, test=tuple(replace(split, label_column=None) for split in task.test))


def check_kind(examples: Examples, task: Task) -> None:
    """Refuse lists of labels where the task has one label for each example, and the reverse."""
    if examples.labels and isinstance(examples.labels[0], tuple) != task.is_multilabel:
        found, needed = ("one label", "a list of labels") if task.is_multilabel else ("a list of labels", "one label")
        raise DataError(f"{examples.where(0)}: {found}; {task.title} needs {needed}.")
