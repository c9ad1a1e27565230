"""Lists in memory as a task."""

from collections.abc import Sequence
from typing import Any

from isinglass.config import KindChoice
from isinglass.data.custom.complete import complete
from isinglass.data.custom.task import task_data
from isinglass.data.examples import Examples
from isinglass.data.source import TaskData
from isinglass.data.tables.schema import Columns
from isinglass.data.tables.values import UnusableValue, label_list, text_array
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.tasks import Task


def memory_data(
    *,
    name: str,
    texts: tuple[Sequence[str], ...],
    labels: Sequence[Any],
    dev: tuple[tuple[Sequence[str], ...], Sequence[Any]] | None = None,
    task: Task | None = None,
    kind: KindChoice = "auto",
    positive_label: str | None = None,
    validation_fraction: float = 0.1,
    split_seed: int = 42,
) -> TaskData:
    """Lists in memory as a task, as `read_custom` does it with files.

    Args:
        texts: one column of N texts, or two.
        labels: N texts, numbers or booleans; or N lists of such (multi-label).
        dev: texts and labels to validate with; None: a share of the others.
        task: as an earlier run found it; its kind and labels are kept.

    Raises:
        DataError: a text or a label is missing or none, or the labels do not tell what the task is; with its index.
        ConfigError: the settings do not fit the labels.
    """
    columns = Columns(texts=("text", "text2")[: len(texts)], label="label")
    splits = {"train": memory_examples(texts, labels, name="training data")}
    if dev is not None:
        splits["dev"] = memory_examples(*dev, name="validation data")
    return task_data(
        splits,
        columns,
        name=name,
        kind=kind,
        positive_label=positive_label,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
        task=task,
    )


def memory_examples(texts: tuple[Sequence[str], ...], labels: Sequence[Any] | None = None, *, name: str) -> Examples:
    """Lists in memory as examples, without a task.

    Raises:
        DataError: the lists are of different lengths or empty, or hold what is no text or label; with its index.
    """
    parts: dict[str, Sequence[Any]] = dict(zip(("text", "text2"), texts, strict=False))
    if labels is not None:
        parts["label"] = labels
    if not 1 <= len(texts) <= 2 or any(isinstance(part, str) for part in parts.values()):
        raise DataError(f"The {name} are not one or two lists of texts, with a list of labels.")
    if len({len(part) for part in parts.values()}) != 1 or not len(texts[0]):
        lengths = " and ".join(f"{len(part):,} of {column}" for column, part in parts.items())
        raise DataError(f"The {name} are {lengths}; as many of each were expected, and at least one.")
    columns: dict[str, Any] = {}
    for column, part in parts.items():
        try:
            columns[column] = label_list([*part]) if column == "label" else text_array([*part]).to_pylist()
        except UnusableValue as found:
            expected = "a name, a number or a list of names" if column == "label" else "a text"
            raise DataError(f"The {name}, index {found.place}: the {column} is {found}; {expected} was expected.") from None
    examples = Examples(
        texts=tuple(StoredTexts(text or "" for text in columns[column]) for column in parts if column != "label"),
        labels=columns.get("label"),
        origin=name,
        line_numbers=range(len(texts[0])),
        unit="index",
    )
    return complete(examples, [*parts], drop=None)
