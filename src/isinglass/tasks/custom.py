"""A task of the user's own: a value like the published ones, made of what their files hold, and kept with the model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from isinglass.errors import DataError
from isinglass.names import brief, printable
from isinglass.tasks.kinds import KINDS, KindName
from isinglass.tasks.task import Split, Task

FORMAT: Final = 1  # of `task.json`
MOST_LABELS: Final = 10_000
LONGEST_NAME: Final = 200  # characters of a label or a column
FORMULA: Final = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one


def custom_task(
    *,
    name: str,
    kind: KindName,
    labels: Sequence[str] | None,
    text_columns: Sequence[str],
    label_column: str,
    splits: Sequence[str],
    positive_label: str | None = None,
) -> Task:
    """Return a task over the columns of the user's files.

    Args:
        labels: the names in the order of a new model's outputs; None for regression.
        text_columns: one, or two for pairs.
        splits: those of `train`, `dev` and `test` that there are.
        positive_label: the one of two labels that F1 counts.

    Raises:
        DataError: a label cannot be written into tables: control characters, too long, or the beginning of a formula.
    """
    for label in labels or ():
        check_label(label)
    of = {one: Split(name=one, text_columns=tuple(text_columns), label_column=label_column) for one in splits}
    return Task(
        name=name,
        title=name,
        labels=None if labels is None else tuple(labels),
        kind=KINDS[kind],
        train=of.get("train"),
        dev=(of["dev"],) if "dev" in of else (),
        test=(of["test"],) if "test" in of else (),
        metrics=KINDS[kind].metrics(labels or ()),
        positive_label=positive_label or (labels[-1] if labels else ""),
        score_range=(-math.inf, math.inf),
    )


def with_test(task: Task) -> Task:
    """Return the task with a test set."""
    return task if task.test else replace(task, test=(replace(task.splits[0], name="test"),))


def check_label(label: str) -> None:
    """Refuse a label that could not stand in a table, a spreadsheet or a terminal.

    Raises:
        DataError: with the label.
    """
    if not label.strip() or label != label.strip() or len(label) > LONGEST_NAME or printable(label) != label:
        raise DataError(
            f"The label {brief(label)} cannot be a name: up to {LONGEST_NAME} printable characters without spaces around "
            f"them were expected."
        )
    if label.startswith(FORMULA) and not _is_number(label):
        raise DataError(f"The label {brief(label)} begins like a spreadsheet's formula: give it another name.")


def to_json(task: Task) -> str:
    """Return the text of `task.json`."""
    first = task.splits[0]
    values = {
        "format": FORMAT,
        "name": task.name,
        "kind": task.kind.name,
        "labels": task.labels,
        "text_columns": first.text_columns,
        "label_column": first.label_column,
        "splits": [split.name for split in task.splits],
        "positive_label": task.positive_label,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def from_json(values: Mapping[str, Any], origin: str) -> Task:
    """Return the task of a `task.json`, which may come from a stranger.

    Raises:
        DataError: it is not what `to_json` writes.
    """
    strings = {"name": 1, "kind": 1, "label_column": 1, "positive_label": 1}
    lists = {"text_columns": (1, 2), "splits": (1, 3)} | (
        {} if values.get("labels") is None else {"labels": (1, MOST_LABELS)}
    )
    for key in strings:
        if not isinstance(values.get(key), str) or len(values[key]) > LONGEST_NAME:
            raise DataError(f"{origin}: {key} is {brief(values.get(key))}; a text was expected.")
    for key, (least, most) in lists.items():
        found = values.get(key)
        if (
            not isinstance(found, list)
            or not least <= len(found) <= most
            or not all(isinstance(one, str) and len(one) <= LONGEST_NAME for one in found)
            or len(set(found)) < len(found)
        ):
            raise DataError(f"{origin}: {key} is {brief(found)}; {least} to {most} different texts were expected.")
    kind, labels = values["kind"], values.get("labels")
    if values.get("format") != FORMAT or kind not in ("classification", "regression", "multilabel"):
        raise DataError(f"{origin} is not the task.json of this version of isinglass: train anew, or update it.")
    if (labels is None) != (kind == "regression") or not {*values["splits"]} <= {"train", "dev", "test"}:
        raise DataError(f"{origin}: labels and splits do not fit the kind {kind!r}: the file is damaged.")
    return custom_task(
        name=values["name"],
        kind=kind,
        labels=labels,
        text_columns=values["text_columns"],
        label_column=values["label_column"],
        splits=values["splits"],
        positive_label=values["positive_label"],
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
