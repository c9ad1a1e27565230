"""The task that the user's examples make."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from isinglass.config import TrainConfig
from isinglass.data.custom.labels import resolve_labels
from isinglass.data.examples import Examples
from isinglass.data.tables.table import Columns
from isinglass.errors import DataError
from isinglass.tasks import MULTILABEL, Task
from isinglass.tasks.custom import custom_task

SPLITS: Final = ("train", "dev", "test")


def resolve_task(splits: Mapping[str, Examples], columns: Columns, config: TrainConfig) -> tuple[Task, tuple[str, ...]]:
    """Resolve the kind of task and its labels from the examples.

    Returns:
        The task, which has a dev set in any case, and sentences about what was guessed or looks wrong.

    Raises:
        DataError: the labels make no task.
        ConfigError: the settings do not fit the labels.
    """
    assert columns.label is not None
    labelled = {split: examples for split, examples in splits.items() if examples.labels is not None}
    labels = resolve_labels(labelled, label_column=columns.label, kind=config.kind, positive_label=config.positive_label)
    task = custom_task(
        name=config.task,
        kind=labels.kind,
        labels=labels.names,
        text_columns=columns.texts,
        label_column=columns.label,
        splits=[split for split in SPLITS if split in splits or split == "dev"],
        positive_label=labels.positive,
    )
    return task, labels.notes


def with_hidden_test_labels(task: Task) -> Task:
    """Return the task with a test set that has no labels."""
    return replace(task, test=tuple(replace(split, label_column=None) for split in task.test))


def check_kind(examples: Examples, task: Task) -> None:
    """Refuse lists of labels where the task has one label for each example, and the reverse.

    Raises:
        DataError: the first label is of the other form.
    """
    if not examples.labels or examples.has_label_lists == (task.kind is MULTILABEL):
        return
    forms = ("one label", "a list of labels")
    found, needed = forms[examples.has_label_lists], forms[task.kind is MULTILABEL]
    raise DataError(f"{examples.where(0)}: {found}; {task.title} needs {needed}.")
