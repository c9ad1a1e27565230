"""Read the user's own tables: CSV, TSV, JSON Lines and Parquet, compressed or not.

`open_table` reads a file's header and returns a `Table`; `read_tables` returns the rows of the requested columns. Texts go
to disk a few thousand at a time; labels stay in memory, because few of them differ.

Python's own module reads CSV, in its strict mode. It is slower than Arrow's reader (4 s instead of 0.3 s for a million
rows), but it knows the row of each mistake, and it notices a quote that is never closed, which otherwise makes one text of
all the rows that follow.
"""

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples
from isinglass.data.files import COMPRESSIONS, LONGEST_VALUE, DataFile, short_reason
from isinglass.data.texts import CHUNK, StoredTexts
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed

CSV_ENDINGS: Final = (".csv", ".tsv")
JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
ENDINGS: Final = (*CSV_ENDINGS, *JSON_ENDINGS, ".parquet")
DELIMITERS: Final = (",", "\t", ";", "|")  # candidates where the usual delimiter does not separate the header
_DELIMITER_NAMES: Final = {"\\t": "\t", "tab": "\t"}
_TYPE_NAMES: Final = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}

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


def parse_delimiter(text: str) -> str:
    r"""Return the delimiter that a user means: one character as it is typed, or a tab for `\t` or `tab`.

    Raises:
        ConfigError: the text means no delimiter.
    """
    delimiter = _DELIMITER_NAMES.get(text, text)
    if len(delimiter) != 1 or delimiter in '"\r\n\0 ':
        raise ConfigError(f"delimiter is {brief(text)}; one character was expected, such as ',' or ';', or 'tab'.")
    return delimiter


@dataclass(frozen=True, kw_only=True)
class FieldTable(Table):
    """Rows of fields, all of which are texts.

    Attributes:
        header_row: number of the row that names the columns, counted from 1; 0 if there is none.
    """

    no_rows: ClassVar[str] = "no rows below its header"

    header_row: int

    @abstractmethod
    def rows(self) -> Iterator[tuple[int, list[list[str]]]]:
        """Yield the number of a row below the header, and its fields and those of up to a few thousand rows after it."""

    @abstractmethod
    def is_example(self, number: int, row: list[str]) -> bool:
        """Return whether a row that is blank or of another width than the header is an example, and not to be left out.

        Raises:
            DataError: the row is a mistake.
        """

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows below the header; see `Table.chunks`."""
        positions = [self.columns.index(name) for name in names]
        width = len(self.columns)
        for first, rows in self.rows():
            numbers: Sequence[int] = range(first, first + len(rows))
            left_out: list[int] = []
            if not all(len(row) == width and any(row) for row in rows):
                numbered = {number: row for number, row in enumerate(rows, first) if row}
                examples = {number: row for number, row in numbered.items() if self.is_example(number, row)}
                left_out = sorted(numbered.keys() - examples.keys())
                numbers, rows = [*examples], [*examples.values()]
            yield Chunk(columns=[[row[i] for row in rows] for i in positions], numbers=numbers, left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class UnquotedTable(FieldTable):
    """Lines of tab-separated fields, in which `"` is an ordinary character: GLUE's files, and plain texts.

    Attributes:
        expected: what a line should have, for messages.
        skips_short_rows: leave rows with too few fields out instead of refusing them.
    """

    unit: ClassVar[str] = "line"
    header: ClassVar[str] = ", line 1"
    left_out: ClassVar[str] = "rows with missing columns"

    expected: str
    skips_short_rows: bool = False

    def rows(self) -> Iterator[tuple[int, list[list[str]]]]:
        """Yield a few hundred rows at a time; see `FieldTable.rows`."""
        header_rows = self.header_row
        for first, lines in self.file.lines():
            yield first + header_rows, [line.split("\t") for line in lines[header_rows:]]
            header_rows = 0

    def is_example(self, number: int, row: list[str]) -> bool:
        """Return whether the row has all fields; see `FieldTable.is_example`."""
        width = len(self.columns)
        if len(row) > width or (len(row) < width and not self.skips_short_rows):
            raise DataError(f"{self.origin}, line {number}: {len(row)} tab-separated fields; {self.expected}.")
        return len(row) == width


@dataclass(frozen=True, kw_only=True)
class CsvTable(FieldTable):
    """A CSV or TSV file; rows above its header are blank."""

    delimiter: str

    @classmethod
    def open(cls, file: DataFile, delimiter: str | None) -> "CsvTable":
        """Read the header.

        Args:
            delimiter: None: `,` or a tab as the ending says, unless another one separates the header and this one does not.

        Raises:
            DataError: the file is empty or damaged, or more than one other delimiter separates the header.
            ConfigError: the delimiter is not one character.
        """
        if delimiter is not None:
            return cls._with(file, parse_delimiter(delimiter))
        table = cls._with(file, "\t" if file.ending == ".tsv" else ",")
        if len(table.columns) > 1:
            return table
        candidates = [cls._with(file, other) for other in DELIMITERS if other in table.columns[0]]
        separated = [candidate for candidate in candidates if len(candidate.columns) > 1]
        if not separated:
            return table
        if len(separated) > 1:
            raise DataError(
                f"{file.origin}: the header {brief(table.columns[0])} is not separated by {table.delimiter!r}, but may be "
                f"by {' or '.join(repr(other.delimiter) for other in separated)}: name the delimiter with --delimiter."
            )
        found = separated[0].delimiter
        note = f"Columns are separated by {found!r}, as the header of {file.origin} shows."
        return replace(separated[0], guesses={f"delimiter {found}": note})

    @classmethod
    def _with(cls, file: DataFile, delimiter: str) -> "CsvTable":
        """Read the first row that is not blank."""
        try:
            for number, fields in enumerate(csv.reader(_lines(file), delimiter=delimiter), 1):
                if any(fields):
                    return cls(file=file, columns=tuple(fields), header_row=number, delimiter=delimiter)
        except csv.Error as error:
            raise DataError(f"{file.origin}, row 1: the header cannot be read as CSV ({short_reason(error)}).") from None
        raise DataError(f"{file.origin} is empty; a header and rows below it were expected.")

    def rows(self) -> Iterator[tuple[int, list[list[str]]]]:
        """Yield `CHUNK` rows at a time; see `FieldTable.rows`."""
        rows: list[list[str]] = []
        number = 0
        try:
            for number, row in enumerate(csv.reader(_lines(self.file), delimiter=self.delimiter, strict=True), 1):
                if number > self.header_row:
                    rows.append(row)
                if len(rows) == CHUNK:
                    yield number + 1 - CHUNK, rows
                    rows = []
        except csv.Error as error:
            raise DataError(
                f"{self.origin}, row {number + 1}: quotes are open or misplaced ({short_reason(error)}): a text with "
                f"quotes stands in quotes, and those inside of it are doubled."
            ) from None
        yield number + 1 - len(rows), rows

    def is_example(self, number: int, row: list[str]) -> bool:
        """Return whether the row holds anything; `""` in a file of one column is an empty text."""
        width = len(self.columns)
        if len(row) != width:
            raise DataError(
                f"{self.origin}, row {number}: {len(row)} columns; the header has {width}: put a text that holds "
                f"{self.delimiter!r} or a line end in quotes, or name another --delimiter."
            )
        return len(row) == 1 or any(row)


def _lines(file: DataFile) -> Iterator[str]:
    """Yield the lines with their ends, which are LF, CR or both."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))  # Python's own is 131,072 characters
    for _, text in file.blocks(LONGEST_VALUE):
        yield from io.StringIO(text, newline="")


@dataclass(frozen=True, kw_only=True)
class JsonTable(Table):
    """A file of JSON Lines; its columns are the keys of the first block of lines."""

    unit: ClassVar[str] = "line"

    @classmethod
    def open(cls, file: DataFile) -> "JsonTable":
        """Read the keys of the first few hundred lines.

        Raises:
            DataError: the file is empty or damaged.
        """
        for objects in _read_objects(file):
            if objects:
                keys = dict.fromkeys(key for values in objects.values() for key in values)
                return cls(file=file, columns=tuple(keys))
        raise DataError(f"{file.origin} is empty; a JSON object in each line was expected.")

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the values of the named keys, None where an object lacks one; see `Table.chunks`."""
        for objects in _read_objects(self.file):
            columns = [[values.get(name) for values in objects.values()] for name in names]
            yield Chunk(columns=columns, numbers=[*objects])


def _read_objects(file: DataFile) -> Iterator[dict[int, dict[str, Any]]]:
    """Yield a few hundred objects at a time by their line numbers; blank lines are left out."""
    for first, lines in file.lines(LONGEST_VALUE):
        yield {number: _parse_object(file, number, line) for number, line in enumerate(lines, first) if line.strip()}


def _parse_object(file: DataFile, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        description = f"not JSON ({error.msg}, column {error.colno})"
    except ValueError:
        description = "a number of too many digits"
    except RecursionError:
        description = "JSON nested too deeply"
    else:
        if isinstance(values, dict):
            return values
        description = describe_type(values)
    if number == 1 and line.lstrip().startswith("["):
        raise DataError(f"{file.origin} holds one JSON array; JSON Lines were expected: each object in a line of its own.")
    raise DataError(f"{file.origin}, line {number}: {description}; a JSON object in each line was expected.")


@dataclass(frozen=True, kw_only=True)
class ParquetTable(Table):
    """A Parquet file, read by Arrow, which is imported here only: it takes 50 MiB of memory."""

    @classmethod
    def open(cls, file: DataFile) -> "ParquetTable":
        """Read the schema.

        Raises:
            DataError: the file is not Parquet.
        """
        with _open_parquet(file) as opened:
            return cls(file=file, columns=tuple(opened.schema_arrow.names))

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows, `CHUNK` at a time; see `Table.chunks`."""
        first = 1
        with _open_parquet(self.file) as opened:
            for batch in opened.iter_batches(batch_size=CHUNK, columns=[*names]):
                columns = [_read_values(batch.column(name)) for name in names]
                yield Chunk(columns=columns, numbers=range(first, first + len(batch)))
                first += len(batch)


@contextmanager
def _open_parquet(file: DataFile) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(file.path, "rb") as raw, pq.ParquetFile(raw) as opened:
            yield opened
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise DataError(f"{file.location} is not a readable Parquet file: {short_reason(error)}.") from None


def _read_values(column: Any) -> list[Any]:
    """Return an Arrow array's valid UTF-8 as texts, floats as NumPy's scalars, and other values as Python's."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):  # old writers store texts so
        column = column.cast(pa.large_string())
    column.validate(full=True)
    if pa.types.is_floating(column.type):
        return [*column.to_numpy(zero_copy_only=False)]  # scalars that know their width
    return [*column.to_pylist()]


def is_table(path: Path) -> bool:
    """Return whether the file's ending is that of a table."""
    return DataFile(path=path, origin=str(path)).ending in ENDINGS


def open_table(path: Path, delimiter: str | None = None) -> Table:
    """Read the header of a table whose format its ending names.

    Args:
        delimiter: separates the columns of CSV and TSV; None: the header decides.

    Raises:
        DataError: the file is missing, empty, damaged, not a regular file, or of a format that is not read.
        ConfigError: the delimiter is not one character.
    """
    file = DataFile.at(path)
    if file.ending == ".parquet" and not file.compression:
        return ParquetTable.open(file)
    if file.ending in CSV_ENDINGS:
        return CsvTable.open(file, delimiter)
    if file.ending in JSON_ENDINGS:
        return JsonTable.open(file)
    raise DataError(
        f"{file.origin} has the ending {brief(path.suffix)}; supported endings are {', '.join(ENDINGS)}, and those of text "
        f"followed by {', '.join(COMPRESSIONS)}."
    )


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
    texts = tuple(StoredTexts() for _ in columns.texts)
    labels: list[Label | None] = []
    shared_labels: dict[Label | None, Label | None] = {}  # one object for all examples with equal labels
    missing: dict[int, str] = {}
    numbers: list[Int64[np.ndarray, " n"]] = []
    origins: list[str] = []
    notes = [*ChainMap(*(dict(table.guesses) for table in tables)).values()]  # the first file speaks for all with its guess
    for table in tables:
        start = len(texts[0])
        left_out: list[int] = []
        for chunk in table.chunks(columns.names):
            for name, stored, values in zip(columns.texts, texts, chunk.columns, strict=False):
                converted = values if _are_texts(values) else _convert(_as_encodable_text, name, values, table, chunk)
                missing |= {len(stored) + i: name for i, text in enumerate(converted) if text is None}
                stored.extend(text or "" for text in converted)
            if columns.label is not None:
                converted = _convert(_as_label, columns.label, chunk.columns[-1], table, chunk)
                labels += [shared_labels.setdefault(label, label) for label in converted]
            numbers.append(np.asarray(chunk.numbers, np.int64))
            left_out += chunk.left_out
        if left_out:
            first = f"the first in {table.unit} {left_out[0]}"
            notes.append(f"{table.origin}: {len(left_out):,} {table.left_out} left out, {first}.")
        if len(texts[0]) == start:
            raise DataError(f"{table.origin} has {table.no_rows}; at least one was expected.")
        if len(tables) > 1:
            origins += [table.origin] * (len(texts[0]) - start)
    first, others, units = tables[0].origin, len(tables) - 1, {table.unit for table in tables}
    examples = Examples(
        texts=texts,
        labels=None if columns.label is None else labels,
        origin=f"{first} and {others} more file(s)" if others else first,
        line_numbers=np.concatenate(numbers),
        unit=units.pop() if len(units) == 1 else "row",
        notes=tuple(notes),
        origins=origins,
    )
    return examples, missing


def _are_texts(values: Sequence[Any]) -> bool:
    """Return whether all values are texts that can be encoded: nearly always, and found faster than one by one."""
    try:
        "".join(values).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def _convert(convert: Callable[[Any], Any], name: str, values: Sequence[Any], table: Table, chunk: Chunk) -> list[Any]:
    """Return the values of the column `name` as texts or labels.

    Raises:
        DataError: a value can be neither; the message names the row.
    """
    converted = []
    try:
        for value in values:
            converted.append(convert(value))
    except TypeError as error:
        column, expected = _EXPECTED[convert]
        place = f"{table.origin}, {table.unit} {chunk.numbers[len(converted)]}"
        raise DataError(f"{place}: {column} {brief(name)} holds {error}; {expected} was expected.") from None
    return converted


def _as_encodable_text(value: Any) -> str | None:
    text = as_text(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise TypeError("half of a surrogate pair, which is no character") from None
    return text


def _as_label(value: Any) -> Label | None:
    if type(value) is str:
        return value
    if not isinstance(value, list):
        return as_text(value)
    names = [as_text(member) or "" for member in value]
    if not all(map(str.strip, names)):
        raise TypeError("a list with an empty label")
    return tuple(names)


_EXPECTED: Final[Mapping[Callable[[Any], Any], tuple[str, str]]] = {
    _as_encodable_text: ("the column", "a text"),
    _as_label: ("the label column", "a name, a number or a list of names"),
}


def as_text(value: Any) -> str | None:
    """Return a value as a CSV file spells it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: the value is neither text, number nor boolean; the message says what it is.
    """
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.1 of 32 bits is not 0.10000000149
    if type(value) not in _SPELLINGS:
        raise TypeError(describe_type(value))
    return _SPELLINGS[type(value)](value)


def _spell_float(value: float) -> str | None:
    if math.isnan(value):
        return None
    is_exact_integer = value.is_integer() and abs(value) < 2**53
    return str(int(value)) if is_exact_integer else repr(value)


_SPELLINGS: Final[dict[type, Callable[[Any], str | None]]] = {
    type(None): lambda _: None,
    str: str,
    bool: lambda value: str(value).lower(),
    int: str,
    float: _spell_float,
    Decimal: "{:f}".format,
}


def describe_type(value: Any) -> str:
    """Return what a value is, for a message: `a list`, `a number`, `a value of the type date`."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), f"a value of the type {type(value).__name__}")
