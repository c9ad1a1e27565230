"""A table whose header has been read, and its rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from isinglass.data.tables.file import DataFile
from isinglass.data.tables.values import Label, UnusableValue, label_list, text_array
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
    """n consecutive rows of the requested columns.

    Attributes:
        columns: the n values of each column as the file has them.
        numbers: n row or line numbers.
        empty: how many rows were left out because they hold nothing.
    """

    columns: Sequence[Sequence[Any] | pa.Array]
    numbers: Sequence[int]
    empty: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N rows of a table.

    Attributes:
        texts: N texts for each text column, empty where the row has none.
        missing: bool (text columns, N), true where the row has no text.
        labels: N labels, None where the row has none; None if no label column was requested.
        numbers: int64 (N,), where the rows stand. In CSV the header is row 1, as in a spreadsheet; JSON counts lines.
        empty: how many rows were left out because they hold nothing.
    """

    texts: tuple[StoredTexts, ...]
    missing: Bool[np.ndarray, "K N"]
    labels: list[Label | None] | None
    numbers: Int64[np.ndarray, " N"]
    empty: int


@dataclass(frozen=True, kw_only=True)
class Table(ABC):
    """A table whose header has been read: the base of one class for each format.

    Attributes:
        columns: names in the order of the file.
        guesses: what the header did not say plainly -> a sentence about the choice.
    """

    unit: ClassVar[str] = "row"  # what messages count the examples by
    description_of_rows: ClassVar[str] = "rows"

    file: DataFile
    columns: tuple[str, ...]
    guesses: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    @abstractmethod
    def open(cls, file: DataFile, delimiter: str | None) -> Self:
        """Read the header.

        Args:
            delimiter: separates the columns of CSV; other formats ignore it.

        Raises:
            DataError: the file is empty or damaged.
        """

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
            if name not in self.columns:
                hint = did_you_mean(name, self.columns[:100])
                raise DataError(f"{self.origin} has no column {brief(name)}{hint}; found {listed(self.columns)}.")
            if self.columns.count(name) > 1:
                raise DataError(f"{self.origin} has twice the column {brief(name)}; found {listed(self.columns)}.")

    def read(self, columns: Columns) -> Rows:
        """Read the requested columns and no others. Rows that hold nothing are left out.

        Raises:
            DataError: a column is missing, a value is neither text nor number, the file is damaged, or there are no rows.
        """
        self.require(columns.names)
        reader = _RowReader(self, columns)
        for chunk in self.chunks(columns.names):
            reader.add(chunk)
        return reader.rows()


class _RowReader:
    """Gathers the chunks of a table: texts on disk, and one object for each different label."""

    def __init__(self, table: Table, columns: Columns) -> None:
        self._table = table
        self._columns = columns
        self._texts = tuple(StoredTexts() for _ in columns.texts)
        self._missing: list[Bool[np.ndarray, "K n"]] = []
        self._labels: list[Label | None] = []
        self._shared_labels: dict[Label | None, Label | None] = {}
        self._numbers: list[Int64[np.ndarray, " n"]] = []
        self._empty = 0

    def add(self, chunk: Chunk) -> None:
        """Append the rows of a chunk."""
        values = dict(zip(self._columns.names, chunk.columns, strict=True))
        missing = []
        for name, stored in zip(self._columns.texts, self._texts, strict=True):
            array = self._convert(_text_array, values[name], f"the column {brief(name)}", "a text", chunk.numbers)
            stored.extend(pc.fill_null(array, "").to_pylist())
            missing.append(array.is_null().to_numpy(zero_copy_only=False))
        if label := self._columns.label:
            expected = "a name, a number or a list of names"
            labels = self._convert(_label_list, values[label], f"the label column {brief(label)}", expected, chunk.numbers)
            self._labels += [self._shared_labels.setdefault(label, label) for label in labels]
        self._missing.append(np.stack(missing))
        self._numbers.append(np.asarray(chunk.numbers, np.int64))
        self._empty += chunk.empty

    def _convert(
        self, convert: Callable[[Any], Any], values: Any, column: str, expected: str, numbers: Sequence[int]
    ) -> Any:
        try:
            return convert(values)
        except UnusableValue as error:
            place = f"{self._table.origin}, {self._table.unit} {numbers[error.index]}"
            raise DataError(f"{place}: {column} holds {error}; {expected} was expected.") from None

    def rows(self) -> Rows:
        """Return all rows that were added.

        Raises:
            DataError: there are none.
        """
        if not len(self._texts[0]):
            raise DataError(f"{self._table.origin} has no {self._table.description_of_rows}; at least one was expected.")
        return Rows(
            texts=self._texts,
            missing=np.concatenate(self._missing, axis=1),
            labels=None if self._columns.label is None else self._labels,
            numbers=np.concatenate(self._numbers),
            empty=self._empty,
        )


def _text_array(values: Sequence[Any] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else text_array(values)


def _label_list(values: Sequence[Any] | pa.Array) -> list[Label | None]:
    return label_list(values.to_pylist() if isinstance(values, pa.Array) else values)
