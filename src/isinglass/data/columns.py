"""Make examples of columns of tables: which values are texts or labels, and how they are spelled.

Texts go to disk a few thousand at a time; labels stay in memory, because few of them differ.
"""

import math
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples
from isinglass.data.formats import Chunk, Table, describe_type
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import brief

Label = str | tuple[str, ...]  # one label, or all labels of an example


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns to read: one or two with texts, and one with labels or None."""

    texts: tuple[str, ...]
    label: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the label's last."""
        return self.texts if self.label is None else (*self.texts, self.label)


def read_tables(tables: Sequence[Table], columns: Columns) -> tuple[Examples, Mapping[int, str]]:
    """Read the requested columns and no others, in the order of the tables. Rows that hold nothing are left out.

    Returns:
        The examples: a missing text is empty, a missing label is None. And the position of each example that lacks a text,
        with the name of the column.

    Raises:
        DataError: a column is missing, a value is neither text nor number, a file is damaged or has no rows.
    """
    for table in tables:
        table.require(columns.names)
    rows = _Rows(columns)
    rows.notes += ChainMap(
        *(dict(table.guesses) for table in tables)
    ).values()  # the first file speaks for all with its guess
    for table in tables:
        rows.read(table)
    first, others, units = tables[0].file.origin, len(tables) - 1, {table.unit for table in tables}
    examples = Examples(
        texts=rows.texts,
        labels=None if columns.label is None else rows.labels,
        origin=f"{first} and {others} more file(s)" if others else first,
        line_numbers=np.concatenate(rows.numbers),
        unit=units.pop() if len(units) == 1 else "row",
        notes=tuple(rows.notes),
        origins=rows.origins if others else (),
    )
    return examples, rows.missing


class _Rows:
    """The rows that have been read, in the form of `Examples`.

    Attributes:
        missing: position of each row that lacks a text -> the name of the column.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.texts = tuple(StoredTexts() for _ in columns.texts)
        self.labels: list[Label | None] = []
        self.missing: dict[int, str] = {}
        self.numbers: list[Int64[np.ndarray, " n"]] = []
        self.origins: list[str] = []
        self.notes: list[str] = []
        self._shared_labels: dict[Label | None, Label | None] = {}  # one object for all examples with equal labels

    def read(self, table: Table) -> None:
        """Append all rows of a table; see `read_tables` for the errors."""
        if doubt := table.file.doubt():
            self.notes.append(doubt)
        left_out: list[int] = []
        start = len(self.texts[0])
        for chunk in table.chunks(self.columns.names):
            self._append(table, chunk)
            left_out += chunk.left_out
        count = len(self.texts[0]) - start
        if left_out:
            first = f"the first in {table.unit} {left_out[0]}"
            self.notes.append(f"{table.file.origin}: {len(left_out):,} {table.left_out} left out, {first}.")
        if count == 0:
            raise DataError(f"{table.file.origin} has {table.no_rows}; at least one was expected.")
        self.origins += [table.file.origin] * count

    def _append(self, table: Table, chunk: Chunk) -> None:
        for name, stored, values in zip(self.columns.texts, self.texts, chunk.columns, strict=False):
            texts = texts_of(name, values, table, chunk)
            self.missing |= {len(stored) + i: name for i, text in enumerate(texts) if text is None}
            stored.extend(text or "" for text in texts)
        if self.columns.label is not None:
            labels = _convert(_as_label, self.columns.label, chunk.columns[-1], table, chunk)
            self.labels += [self._shared_labels.setdefault(label, label) for label in labels]
        self.numbers.append(np.asarray(chunk.numbers, np.int64))


def _convert(convert: Callable[[Any], Any], name: str, values: Sequence[Any], table: Table, chunk: Chunk) -> Sequence[Any]:
    """Return the values of the column `name` as texts or labels.

    Raises:
        DataError: a value can be neither; the message names the row.
    """
    with suppress(TypeError, UnicodeEncodeError):
        "".join(values).encode()
        return values  # all are texts: nearly always, and found faster than one by one
    converted = []
    try:
        for value in values:
            converted.append(convert(value))
    except TypeError as error:
        column, expected = "the column", "a text"
        if convert is _as_label:
            column, expected = "the label column", "a name, a number or a list of names"
        place = f"{table.file.origin}, {table.unit} {chunk.numbers[len(converted)]}"
        raise DataError(f"{place}: {column} {brief(name)} holds {error}; {expected} was expected.") from None
    return converted


def texts_of(name: str, values: Sequence[Any], table: Table, chunk: Chunk) -> Sequence[str | None]:
    """Return the values of the column `name` as texts, None where one is missing.

    Raises:
        DataError: a value is neither text nor number; the message names the row.
    """
    return _convert(_as_encodable_text, name, values, table, chunk)


def _as_encodable_text(value: Any) -> str | None:
    text = as_text(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise TypeError("half of a surrogate pair, which is no character") from None
    return text


def _as_label(value: Any) -> Label | None:
    if not isinstance(value, list):
        return as_text(value)
    names = [as_text(member) or "" for member in value]
    if not all(map(str.strip, names)):
        raise TypeError("a list with an empty label")
    return tuple(names)


def as_text(value: Any) -> str | None:
    """Return a value as a CSV file spells it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: the value is neither text, number nor boolean; the message says what it is.
    """
    match float(str(value)) if isinstance(value, np.floating) else value:  # 0.1 of 32 bits is not 0.10000000149
        case None:
            return None
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case float(number) if math.isnan(number):
            return None
        case float(number):
            return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    raise TypeError(describe_type(value))
