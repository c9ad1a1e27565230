"""Rows that have all their texts and their label."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isinglass.data.examples import Examples
from isinglass.data.tables.file import RawLabel
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed


def separated(examples: Examples, delimiter: str) -> Sequence[Any]:
    """Several labels in one text, as tuples; an empty text is no label."""
    if not delimiter:
        raise ConfigError("label_delimiter is empty; what stands between two labels was expected.")
    labels: Sequence[Any] = examples.labels or ()
    known: dict[RawLabel | None, RawLabel | None] = {None: None}
    for i, label in enumerate(labels):
        if isinstance(label, tuple):
            raise ConfigError(f"{examples.where(i)}: the labels are a list, which needs no label_delimiter: leave it out.")
        if label not in known:
            known[label] = tuple(part.strip() for part in label.split(delimiter) if part.strip())
    return [known[label] for label in labels]


def complete(examples: Examples, names: Sequence[str], *, drop: bool | None, may_hide: bool = False) -> Examples:
    """The examples, checked to have texts and labels.

    Args:
        names: of the columns, the label's last.
        drop: leave the others out; None: not offered.
        may_hide: whether labels that are all missing are hidden ones.
    """
    masks = [np.fromiter((not text or text.isspace() for text in column), bool, len(column)) for column in examples.texts]
    if examples.labels is not None:
        labels: Sequence[Any] = examples.labels
        masks.append(
            np.fromiter((one is None or (type(one) is str and not one.strip()) for one in labels), bool, len(labels))
        )
        if may_hide and masks[-1].all():
            masks.pop()
            note = f"{examples.origin}: the column {brief(names[-1])} is empty: hidden labels."
            examples = replace(examples, labels=None, notes=(*examples.notes, note))
    incomplete = np.logical_or.reduce(masks)
    if incomplete.any():
        first, count = int(incomplete.argmax()), int(incomplete.sum())
        if not drop:
            name = next(name for name, mask in zip(names, masks, strict=False) if mask[first])
            remedy = "" if drop is None else ", or leave such rows out with --drop-incomplete"
            others = f" ({count - 1:,} more rows are incomplete)" if count > 1 else ""
            raise DataError(f"{examples.where(first)}: the column {brief(name)} is empty{others}: fill it in{remedy}.")
        if count == len(incomplete):
            raise DataError(f"{examples.origin}: no row has all of {listed(names)}: nothing is left to use.")
        note = f"{examples.origin}: {count:,} incomplete row(s) left out, the first: {examples.where(first)}."
        examples = replace(examples.take(np.flatnonzero(~incomplete)), notes=(*examples.notes, note))
    _check_alike(examples)
    return replace(examples, labels=_without_doubles(examples.labels))


def _check_alike(examples: Examples) -> None:
    lists = [isinstance(label, tuple) for label in examples.labels or ()]
    if any(lists) and not all(lists):
        one, other = lists.index(True), lists.index(False)
        raise DataError(
            f"{examples.where(other)}: the label is one name, in {examples.where(one)} a list: write lists everywhere."
        )


def _without_doubles(labels: Any) -> Any:
    """A label that stands twice in the list of one example counts once."""
    return [tuple(dict.fromkeys(one)) for one in labels] if labels and isinstance(labels[0], tuple) else labels
