"""CSV and TSV.

Python's own module reads them, in its strict mode. It is slower than Arrow's reader (4 s instead of 0.3 s for a million
rows), but it knows the row of each mistake, and it notices a quote that is never closed, which otherwise makes one text of
all the rows that follow.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from isinglass.data.tables.file import LONGEST_VALUE, DataFile, short_reason
from isinglass.data.tables.table import Chunk, Table
from isinglass.data.texts import CHUNK
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief

DELIMITERS: Final = (",", "\t", ";", "|")  # candidates where the usual delimiter does not separate the header
_SPELLINGS: Final = {"\\t": "\t", "tab": "\t"}
_FORBIDDEN: Final = '"\r\n\0 '


def parse_delimiter(text: str) -> str:
    r"""Return the delimiter that a user means: one character as it is typed, or a tab for `\t` or `tab`.

    Raises:
        ConfigError: the text means no delimiter.
    """
    delimiter = _SPELLINGS.get(text, text)
    if len(delimiter) != 1 or delimiter in _FORBIDDEN:
        raise ConfigError(f"delimiter is {brief(text)}; one character was expected, such as ',' or ';', or 'tab'.")
    return delimiter


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The first row that is not blank: its number and its fields."""

    row: int
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CsvTable(Table):
    """A CSV or TSV file.

    Attributes:
        delimiter: separates the columns.
        header_row: number of the header's row, counted from 1; rows above it are blank.
    """

    no_rows: ClassVar[str] = "no rows below its header"

    delimiter: str
    header_row: int

    @classmethod
    def open(cls, file: DataFile, delimiter: str | None) -> Self:
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
        others = [cls._with(file, other) for other in DELIMITERS if other in table.columns[0]]
        others = [other for other in others if len(other.columns) > 1]
        if len(others) > 1:
            choices = " or ".join(repr(other.delimiter) for other in others)
            raise DataError(
                f"{file.origin}: the header {brief(table.columns[0])} is not separated by {table.delimiter!r}, but may be "
                f"by {choices}: name the delimiter with --delimiter."
            )
        if not others:
            return table
        other = others[0].delimiter
        note = f"Columns are separated by {other!r}, as the header of {file.origin} shows."
        return cls._with(file, other, {f"delimiter {other}": note})

    @classmethod
    def _with(cls, file: DataFile, delimiter: str, guesses: dict[str, str] | None = None) -> Self:
        header = _read_header(file, delimiter)
        return cls(file=file, delimiter=delimiter, columns=header.fields, header_row=header.row, guesses=guesses or {})

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows below the header, `CHUNK` at a time; see `Table.chunks`."""
        positions = [self.columns.index(name) for name in names]
        width = len(self.columns)
        for first, rows in self._rows():
            numbered = dict(enumerate(rows, first))
            left_out: list[int] = []
            if not all(len(row) == width and any(row) for row in rows):
                self._check_widths(numbered)
                left_out = [number for number, row in numbered.items() if _is_blank(row)]
                numbered = {number: row for number, row in numbered.items() if row and not _is_blank(row)}
            columns = [[row[position] for row in numbered.values()] for position in positions]
            yield Chunk(columns=columns, numbers=[*numbered], left_out=left_out)

    def _rows(self) -> Iterator[tuple[int, list[list[str]]]]:
        """Yield the number of a row and up to `CHUNK` rows from there."""
        rows: list[list[str]] = []
        number = 0
        with _open_text(self.file) as text:
            try:
                for number, row in enumerate(csv.reader(_lines(text, self.file), delimiter=self.delimiter, strict=True), 1):
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

    def _check_widths(self, rows: Mapping[int, list[str]]) -> None:
        width = len(self.columns)
        for number, row in rows.items():
            if len(row) not in (0, width):
                raise DataError(
                    f"{self.origin}, row {number}: {len(row)} columns; the header has {width}: put a text that holds "
                    f"{self.delimiter!r} or a line end in quotes, or name another --delimiter."
                )


def _is_blank(row: list[str]) -> bool:
    """Return whether a row has several fields and all are empty; `""` in a file of one column is an empty text."""
    return len(row) > 1 and not any(row)


def _read_header(file: DataFile, delimiter: str) -> _Header:
    with _open_text(file) as text:
        try:
            for number, fields in enumerate(csv.reader(_lines(text, file), delimiter=delimiter), 1):
                if any(fields):
                    return _Header(row=number, fields=tuple(fields))
        except csv.Error as error:
            raise DataError(f"{file.origin}, row 1: the header cannot be read as CSV ({short_reason(error)}).") from None
    raise DataError(f"{file.origin} is empty; a header and rows below it were expected.")


@contextmanager
def _open_text(file: DataFile) -> Iterator[io.TextIOWrapper]:
    with file.open() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        yield text


def _lines(text: io.TextIOWrapper, file: DataFile) -> Iterator[str]:
    """Yield the lines with their ends.

    Raises:
        DataError: a line has `LONGEST_VALUE` characters or more, or holds a NUL byte.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))  # Python's own is 131,072 characters
    while line := text.readline(LONGEST_VALUE):
        if "\0" in line:
            file.raise_damage()
        if len(line) == LONGEST_VALUE:
            raise DataError(f"{file.origin}: a line of more than {LONGEST_VALUE:,} characters; rows of text were expected.")
        yield line
