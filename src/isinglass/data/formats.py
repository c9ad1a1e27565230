"""Read the formats of tables: CSV, TSV, JSON and Parquet, compressed or not, and lines of unquoted fields.

`open_table` reads a file's header and returns a `Table`, which yields the values of the requested columns as the file has
them; `isinglass.data.columns` makes texts and labels of them.

Python's own module reads CSV, in its strict mode. It is slower than Arrow's reader (4 s instead of 0.3 s for a million
rows), but it knows the row of each mistake, and it notices a quote that is never closed, which otherwise makes one text of
all the rows that follow.
"""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from isinglass.data.files import BLOCK_BYTES, COMPRESSIONS, LONGEST_VALUE, DataFile, short_reason
from isinglass.data.json_array import is_array, read_array
from isinglass.data.texts import CHUNK
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed

CSV_ENDINGS: Final = (".csv", ".tsv")
JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
ENDINGS: Final = (*CSV_ENDINGS, *JSON_ENDINGS, ".parquet")
DELIMITERS: Final = (",", "\t", ";", "|")  # candidates where the usual delimiter does not separate the header
_DELIMITER_NAMES: Final = {"\\t": "\t", "tab": "\t"}


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
                raise DataError(f"{self.file.origin}{self.header} has {problem}; found {listed(self.columns)}.")


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
            raise DataError(f"{self.file.origin}, line {number}: {len(row)} tab-separated fields; {self.expected}.")
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
        separated = [other for other in (cls._with(file, one) for one in DELIMITERS) if len(other.columns) > 1]
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
                f"{self.file.origin}, row {number + 1}: quotes are open or misplaced ({short_reason(error)}): a text with "
                f"quotes stands in quotes, and those inside of it are doubled."
            ) from None
        yield number + 1 - len(rows), rows

    def is_example(self, number: int, row: list[str]) -> bool:
        """Return whether the row holds anything; `""` in a file of one column is an empty text."""
        width = len(self.columns)
        if len(row) != width:
            raise DataError(
                f"{self.file.origin}, row {number}: {len(row)} columns; the header has {width}: put a text that holds "
                f"{self.delimiter!r} or a line end in quotes, or name another --delimiter."
            )
        return len(row) == 1 or any(row)


def _lines(file: DataFile) -> Iterator[str]:
    """Yield the lines with their ends, which are LF, CR or both."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))  # Python's own is 131,072 characters
    for _, text in file.blocks(LONGEST_VALUE):
        yield from io.StringIO(text, newline="")


class JsonTable(Table):
    """A file of JSON Lines; its columns are the keys of the first few hundred objects."""

    unit: ClassVar[str] = "line"

    @classmethod
    def open(cls, file: DataFile) -> "JsonTable":
        """Read the keys of the first few hundred objects.

        Raises:
            DataError: the file is empty or damaged.
        """
        for objects in cls.read_objects(file):
            if objects:
                keys = dict.fromkeys(key for values in objects.values() for key in values)
                return cls(file=file, columns=tuple(keys))
        raise DataError(f"{file.origin} is empty; JSON objects, in an array or one in each line, were expected.")

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the values of the named keys, None where an object lacks one; see `Table.chunks`."""
        for objects in self.read_objects(self.file):
            columns = [[values.get(name) for values in objects.values()] for name in names]
            yield Chunk(columns=columns, numbers=[*objects])

    @staticmethod
    def read_objects(file: DataFile) -> Iterator[dict[int, dict[str, Any]]]:
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
    raise DataError(f"{file.origin}, line {number}: {description}; a JSON object in each line was expected.")


class JsonArrayTable(JsonTable):
    """A file that holds one JSON array of objects, which may span lines."""

    unit: ClassVar[str] = "object"

    @staticmethod
    def read_objects(file: DataFile) -> Iterator[dict[int, dict[str, Any]]]:
        """Yield the objects of about 64 KiB at a time by their numbers, counted from 1."""
        objects: dict[int, dict[str, Any]] = {}
        characters = 0
        for number, (values, size) in enumerate(read_array(file), 1):
            if not isinstance(values, dict):
                place = f"{file.origin}, object {number}"
                raise DataError(f"{place}: {describe_type(values)}; an array of JSON objects was expected.")
            objects[number] = values
            characters += size
            if characters >= BLOCK_BYTES:
                yield objects
                objects, characters = {}, 0
        yield objects


@dataclass(frozen=True, kw_only=True)
class ParquetTable(Table):
    """A Parquet file, read by Arrow, which is imported here only: it takes 50 MiB of memory.

    Attributes:
        metadata: what the writer noted beside the schema.
        class_names: column -> the names of its classes, where its values are their numbers. The number -1 is no class.
    """

    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def open(cls, file: DataFile) -> "ParquetTable":
        """Read the schema.

        Raises:
            DataError: the file is not Parquet.
        """
        with _open_parquet(file) as opened:
            schema = opened.schema_arrow
            return cls(file=file, columns=tuple(schema.names), metadata=schema.metadata or {})

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows, `CHUNK` at a time, with the names of classes in the place of their numbers; see `Table.chunks`."""
        first = 1
        with _open_parquet(self.file) as opened:
            for batch in opened.iter_batches(batch_size=CHUNK, columns=[*names]):
                columns = [self._with_class_names(name, _read_values(batch.column(name)), first) for name in names]
                yield Chunk(columns=columns, numbers=range(first, first + len(batch)))
                first += len(batch)

    def arrow_types(self, names: Sequence[str]) -> dict[str, Any]:
        """Return Arrow's types of the columns, without their dictionaries."""
        import pyarrow as pa

        with _open_parquet(self.file) as opened:
            types = {name: opened.schema_arrow.field(name).type for name in names}
        return {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in types.items()}

    def _with_class_names(self, column: str, values: list[Any], first: int) -> list[Any]:
        """Return the values of a column, whose first one is in the row `first`, with the names of its classes."""
        names = self.class_names.get(column)
        if names is None:
            return values
        named = []
        for row, value in enumerate(values, first):
            try:
                named.append(_class_name(value, names))
            except LookupError:
                expected = f"0 to {len(names) - 1} were expected, the numbers of its classes"
                raise DataError(f"{self.file.origin}, row {row}: {brief(column)} is {brief(value)}; {expected}.") from None
        return named


def _class_name(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a class, or a list of names for a list; None for -1 and null.

    Raises:
        LookupError: the value is neither the number nor the name of a class.
    """
    if type(value) is int and -1 <= value < len(names):
        return None if value == -1 else names[value]
    if isinstance(value, list):
        return [_class_name(member, names) for member in value]
    if value is None or value in names:
        return value
    raise LookupError


@contextmanager
def _open_parquet(file: DataFile) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(file.path, "rb") as raw, pq.ParquetFile(raw) as opened:
            yield opened
    except DataError:  # about a value
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


def open_table(path: Path, delimiter: str | None = None, encoding: str = "utf-8") -> Table:
    """Read the header of a table whose format its ending names.

    Args:
        delimiter: separates the columns of CSV and TSV; None: the header decides.
        encoding: a codec of Python; Parquet has its own.

    Raises:
        DataError: the file is missing, empty, damaged, not a regular file, or of a format that is not read.
        ConfigError: the delimiter is not one character.
    """
    file = DataFile.at(path, encoding)
    if file.ending == ".parquet" and not file.compression:
        return ParquetTable.open(file)
    if file.ending in CSV_ENDINGS:
        return CsvTable.open(file, delimiter)
    if file.ending in JSON_ENDINGS:
        return (JsonArrayTable if is_array(file) else JsonTable).open(file)
    raise DataError(
        f"{file.origin} has the ending {brief(path.suffix)}; supported endings are {', '.join(ENDINGS)}, and those of text "
        f"followed by {', '.join(COMPRESSIONS)}."
    )


_TYPE_NAMES: Final = {
    type(None): "null",
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


def describe_type(value: Any) -> str:
    """Return what a value is, for a message: `a list`, `a number`, `a value of the type date`."""
    return _TYPE_NAMES.get(type(value), f"a value of the type {type(value).__name__}")
