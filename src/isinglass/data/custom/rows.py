"""Read the rows of a split's tables as examples, each with all of its texts and its label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from isinglass.config import TrainConfig
from isinglass.data.examples import Examples
from isinglass.data.tables.table import Columns, Table, read_tables
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed


def read_rows(tables: Sequence[Table], columns: Columns, config: TrainConfig, *, labels_may_be_hidden: bool) -> Examples:
    """Read the complete rows of one split's tables, in the order of the files.

    Args:
        labels_may_be_hidden: for a test set, whose label column may be absent or empty.

    Raises:
        DataError: a column is missing, a value cannot be used, or a row is incomplete; the message names file and row.
        ConfigError: the label delimiter does not fit the labels.
    """
    if labels_may_be_hidden and not any(columns.label in table.columns for table in tables):
        columns = Columns(texts=columns.texts)
    examples = read_tables(tables, columns).examples
    if config.label_delimiter is not None:
        examples = _split_labels(examples, config.label_delimiter)
    if labels_may_be_hidden:
        examples = _hide_empty_labels(examples, columns)
    examples = _complete(examples, columns, drop_incomplete=config.drop_incomplete)
    _check_alike(examples)
    return _without_repeated_labels(examples)


def _split_labels(examples: Examples, delimiter: str) -> Examples:
    """Split each label text into a tuple of names; an empty text is no label.

    Raises:
        ConfigError: the delimiter is empty, or the labels are lists already.
    """
    if not delimiter:
        raise ConfigError("label_delimiter is empty; what stands between two labels was expected.")
    if examples.labels is None:
        return examples
    labels: Sequence[Any] = examples.labels
    names: dict[Any, Any] = {None: None}
    for index, label in enumerate(labels):
        if isinstance(label, tuple):
            raise ConfigError(
                f"{examples.where(index)}: the labels are a list, which needs no label_delimiter: leave it out."
            )
        if label not in names:
            names[label] = tuple(filter(None, map(str.strip, label.split(delimiter))))
    return replace(examples, labels=[names[label] for label in labels])


def _hide_empty_labels(examples: Examples, columns: Columns) -> Examples:
    """Return the examples without labels if the label column is empty throughout."""
    if examples.labels is None or not all(map(_is_blank_label, examples.labels)):
        return examples
    note = f"{examples.origin}: the column {brief(columns.label)} is empty: hidden labels."
    return replace(examples, labels=None, notes=(*examples.notes, note))


def _complete(examples: Examples, columns: Columns, *, drop_incomplete: bool) -> Examples:
    """Return the examples that have all texts and a label.

    Raises:
        DataError: some have not and `drop_incomplete` is false, or none has.
    """
    gaps = _find_gaps(examples, columns)
    is_incomplete = np.logical_or.reduce([*gaps.values()])
    if not is_incomplete.any():
        return examples
    first, count = int(is_incomplete.argmax()), int(is_incomplete.sum())
    if not drop_incomplete:
        column = next(name for name, is_blank in gaps.items() if is_blank[first])
        others = f" ({count - 1:,} more rows are incomplete)" if count > 1 else ""
        raise DataError(
            f"{examples.where(first)}: the column {brief(column)} is empty{others}: fill it in, or leave such rows out with "
            f"--drop-incomplete."
        )
    if count == len(examples):
        raise DataError(f"{examples.origin}: no row has all of {listed(gaps)}: nothing is left to use.")
    note = f"{examples.origin}: {count:,} incomplete row(s) left out, the first: {examples.where(first)}."
    return replace(examples.take(np.flatnonzero(~is_incomplete)), notes=(*examples.notes, note))


def _find_gaps(examples: Examples, columns: Columns) -> Mapping[str, Bool[np.ndarray, " N"]]:
    """Return for each column that was read where it is empty."""
    count = len(examples)
    gaps = {
        name: np.fromiter(map(_is_blank, texts), bool, count)
        for name, texts in zip(columns.texts, examples.texts, strict=True)
    }
    if examples.labels is not None:
        assert columns.label is not None
        gaps[columns.label] = np.fromiter(map(_is_blank_label, examples.labels), bool, count)
    return gaps


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _is_blank_label(label: Any) -> bool:
    """Return whether there is no label; an example of several labels may have none of them."""
    return label is None or (type(label) is str and _is_blank(label))


def _check_alike(examples: Examples) -> None:
    is_list = [isinstance(label, tuple) for label in examples.labels or ()]
    if len({*is_list}) > 1:
        name, names = is_list.index(False), is_list.index(True)
        raise DataError(
            f"{examples.where(name)}: the label is one name, in {examples.where(names)} a list: write lists everywhere."
        )


def _without_repeated_labels(examples: Examples) -> Examples:
    """Count a label that stands twice in the list of an example once."""
    if not examples.has_label_lists:
        return examples
    return replace(examples, labels=[tuple(dict.fromkeys(names)) for names in examples.labels or ()])
