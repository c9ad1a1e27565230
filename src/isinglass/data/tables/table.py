"""Tables whose headers have been read, and their rows as examples."""

from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples
from isinglass.data.files import DataFile
from isinglass.data.tables.values import Label, UnusableValue, label_list, text_list
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import brief, did_you_mean, listed


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns to read: one or two with texts, and one with labels or None."""

    texts: tuple[str, ...]
    label: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the label's last."""
        return self.texts if self.label is None else (*self.texts, self.label)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """n rows of the requested columns.

    Attributes:
        columns: the n values of each column as the file has them.
        numbers: n row or line numbers.
        left_out: numbers of the rows between them that hold no example.
    """

    columns: Sequence[Sequence[Any]]
    numbers: Sequence[int]
    left_out: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Table(ABC):
    """A table whose header has been read: the base of one class for each format.

    Attributes:
        columns: names in the order of the file.
        guesses: what the header did not say plainly -> a sentence about the choice.
    """

    unit: ClassVar[str] = "row"  # what messages count the examples by
    header: ClassVar[str] = ""  # where messages find the names of the columns, after the name of the file
    no_rows: ClassVar[str] = "no rows"
    left_out: ClassVar[str] = "empty row(s)"

    file: DataFile
    columns: tuple[str, ...]
    guesses: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows of the named columns, at most a few thousand at a time.

        Raises:
            DataError: the file is damaged; the message names the row.
        """

    @property
    def origin(self) -> str:
        """The file's name in messages."""
        return self.file.origin

    def require(self, names: Sequence[str]) -> None:
        """Check that the table has each of the named columns exactly once.

        Raises:
            DataError: it has not; the message lists the columns.
        """
        for name in names:
            problem = f"no column {brief(name)}{did_you_mean(name, self.columns[:100])}"
            if name in self.columns:
                problem = f"the column {brief(name)} twice"
            if self.columns.count(name) != 1:
                raise DataError(f"{self.origin}{self.header} has {problem}; found {listed(self.columns)}.")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of some tables.

    Attributes:
        examples: in the order of the tables. A missing text is empty, a missing label is None.
        missing: position of each example that lacks a text -> the name of the column.
    """

    examples: Examples
    missing: Mapping[int, str]


def read_tables(tables: Sequence[Table], columns: Columns) -> Rows:
    """Read the requested columns and no others, in the order of the tables. Rows that hold nothing are left out.

    Raises:
        DataError: a column is missing, a value is neither text nor number, a file is damaged or has no rows.
    """
    for table in tables:
        table.require(columns.names)
    reader = _Reader(columns)
    counts = [reader.add(table) for table in tables]
    first, *others = [table.origin for table in tables]
    units = {table.unit for table in tables}
    guesses = ChainMap(*(dict(table.guesses) for table in tables))  # the first file speaks for all that share its guess
    examples = Examples(
        texts=reader.texts,
        labels=None if columns.label is None else reader.labels,
        origin=f"{first} and {len(others)} more file(s)" if others else first,
        line_numbers=np.concatenate(reader.numbers),
        unit=units.pop() if len(units) == 1 else "row",
        notes=(*guesses.values(), *reader.notes),
        origins=[*chain.from_iterable(map(repeat, (first, *others), counts))] if others else (),
    )
    return Rows(examples=examples, missing=reader.missing)


class _Reader:
    """Gathers rows: texts on disk, one object for each different label, and where each row stands."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._shared_labels: dict[Label | None, Label | None] = {}
        self.texts = tuple(StoredTexts() for _ in columns.texts)
        self.labels: list[Label | None] = []
        self.missing: dict[int, str] = {}
        self.numbers: list[Int64[np.ndarray, " n"]] = []
        self.notes: list[str] = []

    def add(self, table: Table) -> int:
        """Read a table and return how many rows it has.

        Raises:
            DataError: see `read_tables`.
        """
        start = len(self.texts[0])
        left_out: list[int] = []
        for chunk in table.chunks(self._columns.names):
            try:
                self._add_chunk(chunk)
            except UnusableValue as error:
                raise DataError(f"{table.origin}, {table.unit} {chunk.numbers[error.index]}: {error}") from None
            left_out += chunk.left_out
        if left_out:
            first = f"the first in {table.unit} {left_out[0]}"
            self.notes.append(f"{table.origin}: {len(left_out):,} {table.left_out} left out, {first}.")
        count = len(self.texts[0]) - start
        if not count:
            raise DataError(f"{table.origin} has {table.no_rows}; at least one was expected.")
        return count

    def _add_chunk(self, chunk: Chunk) -> None:
        start = len(self.texts[0])
        for name, stored, values in zip(self._columns.texts, self.texts, chunk.columns, strict=False):
            texts = text_list(name, values)
            if None in texts:
                self.missing |= {start + i: name for i, text in enumerate(texts) if text is None}
                texts = [text or "" for text in texts]
            stored.extend(texts)  # type: ignore[arg-type]  # no None is left
        if self._columns.label is not None:
            labels = label_list(self._columns.label, chunk.columns[-1])
            self.labels += [self._shared_labels.setdefault(label, label) for label in labels]
        self.numbers.append(np.asarray(chunk.numbers, np.int64))
