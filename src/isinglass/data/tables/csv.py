"""Tables of fields with a character between them: CSV and TSV, and lines of tab-separated fields without quotes.

Python's own module reads CSV, in its strict mode. It is slower than Arrow's reader (4 s instead of 0.3 s for a million
rows), but it knows the row of each mistake, and it notices a quote that is never closed, which otherwise makes one text of
all the rows that follow.
"""

import csv
import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from isinglass.data.files import LONGEST_VALUE, DataFile, short_reason
from isinglass.data.tables.table import Chunk, Table
from isinglass.data.texts import CHUNK
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief

DELIMITERS: Final = (",", "\t", ";", "|")  # candidates where the usual delimiter does not separate the header
_SPELLINGS: Final = {"\\t": "\t", "tab": "\t"}


def parse_delimiter(text: str) -> str:
    r"""Return the delimiter that a user means: one character as it is typed, or a tab for `\t` or `tab`.

    Raises:
        ConfigError: the text means no delimiter.
    """
    delimiter = _SPELLINGS.get(text, text)
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
        tables = [cls._with(file, other) for other in DELIMITERS if other in table.columns[0]]
        separated = {other.delimiter: other for other in tables if len(other.columns) > 1}
        if len(separated) > 1:
            raise DataError(
                f"{file.origin}: the header {brief(table.columns[0])} is not separated by {table.delimiter!r}, but may be "
                f"by {' or '.join(map(repr, separated))}: name the delimiter with --delimiter."
            )
        for other, separated_table in separated.items():
            note = f"Columns are separated by {other!r}, as the header of {file.origin} shows."
            return replace(separated_table, guesses={f"delimiter {other}": note})
        return table

    @classmethod
    def _with(cls, file: DataFile, delimiter: str) -> "CsvTable":
        row, fields = _read_header(file, delimiter)
        return cls(file=file, columns=fields, header_row=row, delimiter=delimiter)

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


def _read_header(file: DataFile, delimiter: str) -> tuple[int, tuple[str, ...]]:
    """Return the number and the fields of the first row that is not blank."""
    try:
        for number, fields in enumerate(csv.reader(_lines(file), delimiter=delimiter), 1):
            if any(fields):
                return number, tuple(fields)
    except csv.Error as error:
        raise DataError(f"{file.origin}, row 1: the header cannot be read as CSV ({short_reason(error)}).") from None
    raise DataError(f"{file.origin} is empty; a header and rows below it were expected.")


def _lines(file: DataFile) -> Iterator[str]:
    """Yield the lines with their ends, which are LF, CR or both."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))  # Python's own is 131,072 characters
    for _, text in file.blocks(LONGEST_VALUE):
        yield from io.StringIO(text, newline="")
