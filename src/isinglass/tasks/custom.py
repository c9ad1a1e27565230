"""A task of the user's own: a value like the published ones, made of what their files hold, and kept with the model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isinglass.errors import DataError
from isinglass.names import brief, printable
from isinglass.tasks.kinds import KINDS, KindName, parse_number
from isinglass.tasks.task import Split, Task

FORMAT: Final = 1  # of `task.json`
MOST_BYTES: Final = 10_000_000  # of a `task.json` that is read
MOST_LABELS: Final = 10_000
LONGEST_NAME: Final = 200  # characters of a label or a column
FORMULA: Final = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one


_Text = Annotated[str, Field(max_length=LONGEST_NAME, description="a text was")]


def _texts(least: int, most: int) -> Any:
    return Field(min_length=least, max_length=most, description=f"{least} to {most} different texts were")


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
    if label.startswith(FORMULA) and not math.isfinite(parse_number(label)):
        raise DataError(f"The label {brief(label)} begins like a spreadsheet's formula: give it another name.")


class _TaskJson(BaseModel):
    """What `task.json` holds. A field's description is what messages expect."""

    model_config = ConfigDict(strict=True)

    name: _Text
    kind: Annotated[KindName, Field(description=f"one of {', '.join(KINDS)} was")]
    labels: Annotated[list[_Text] | None, _texts(1, MOST_LABELS)] = None
    text_columns: Annotated[list[_Text], _texts(1, 2)]
    label_column: _Text
    splits: Annotated[
        list[Literal["train", "dev", "test"]], Field(min_length=1, description="some of train, dev and test were")
    ]
    positive_label: _Text


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
    if values.get("format") != FORMAT:
        raise DataError(f"{origin} is not the task.json of this version of isinglass: train again, or update it.")
    try:
        stored = _TaskJson.model_validate(dict(values))
    except ValidationError as error:
        key = str(error.errors(include_url=False)[0]["loc"][0])
        expected = _TaskJson.model_fields[key].description
        raise DataError(f"{origin}: {key} is {brief(values.get(key))}; {expected} expected.") from None
    all_names = (stored.labels or [], stored.text_columns, stored.splits)
    if (stored.labels is None) != (stored.kind == "regression") or any(len({*names}) < len(names) for names in all_names):
        raise DataError(f"{origin}: the labels do not fit the kind {stored.kind!r}, or a name stands twice: it is damaged.")
    return custom_task(**stored.model_dump())
