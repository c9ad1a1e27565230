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


def has_labels(tables: Sequence[Table], columns: Columns) -> bool:
    """Return whether any of the tables has the label column."""
    return any(columns.label in table.columns for table in tables)


def read_rows(split: str, tables: Sequence[Table], columns: Columns, config: TrainConfig) -> Examples:
    """Read the complete rows of one split's tables, in the order of the files; only a test set may lack the labels.

    Raises:
        DataError: a column is missing, a value cannot be used, or a row is incomplete; the message names file and row.
        ConfigError: the label delimiter does not fit the labels.
    """
    if split == "test" and not has_labels(tables, columns):
        columns = Columns(texts=columns.texts)
    examples = read_tables(tables, columns).examples
    if config.label_delimiter is not None:
        examples = _split_labels(examples, config.label_delimiter)
    if split == "test" and all(map(_is_blank_label, examples.labels or ())):
        examples = _hide_labels(examples, columns)
    examples = _complete(examples, columns, drop_incomplete=config.drop_incomplete)
    is_list = [isinstance(label, tuple) for label in examples.labels or ()]
    if len({*is_list}) > 1:
        name, names = examples.where(is_list.index(False)), examples.where(is_list.index(True))
        raise DataError(f"{name}: the label is one name, in {names} a list: write lists everywhere.")
    if examples.has_label_lists:  # a label that stands twice in a list counts once
        examples = replace(examples, labels=[tuple(dict.fromkeys(names)) for names in examples.labels or ()])
    return examples


def _split_labels(examples: Examples, delimiter: str) -> Examples:
    """Split each label text into a tuple of names; an empty text is no label.

    Raises:
        ConfigError: the delimiter is empty, or the labels are lists already.
    """
    if not delimiter:
        raise ConfigError("label_delimiter is empty; what stands between two labels was expected.")
    if examples.labels is None:
        return examples
    names: dict[Any, Any] = {None: None}
    for index, label in enumerate(examples.labels):
        if isinstance(label, tuple):
            place = examples.where(index)
            raise ConfigError(f"{place}: the labels are a list, which needs no label_delimiter: leave it out.")
        if label not in names:
            names[label] = tuple(filter(None, map(str.strip, label.split(delimiter))))
    return replace(examples, labels=[*map(names.__getitem__, examples.labels)])


def _hide_labels(examples: Examples, columns: Columns) -> Examples:
    if examples.labels is None:
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
    count = int(is_incomplete.sum())
    if count == 0:
        return examples
    first = int(is_incomplete.argmax())
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
    texts = zip(columns.texts, examples.texts, strict=True)
    gaps = {name: np.fromiter(map(_is_blank, column), bool, count) for name, column in texts}
    if examples.labels is not None:
        gaps[str(columns.label)] = np.fromiter(map(_is_blank_label, examples.labels), bool, count)
    return gaps


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _is_blank_label(label: Any) -> bool:
    """Return whether there is no label; an example of several labels may have none of them."""
    return label is None or (type(label) is str and _is_blank(label))
