"""Lines of tab-separated fields without quotes: `"` is an ordinary character."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from isinglass.data.lines import read_lines
from isinglass.data.tables.file import STANDARD_INPUT
from isinglass.data.tables.table import Chunk, Table
from isinglass.errors import DataError


@dataclass(frozen=True, kw_only=True)
class UnquotedTable(Table):
    """GLUE's TSV files, and the lines of plain texts.

    Attributes:
        expected: what tells how many fields a line has, for messages.
        header_rows: 1 if the first line names the columns, else 0.
        skips_short_rows: leave rows with too few fields out instead of refusing them.
    """

    unit: ClassVar[str] = "line"
    header: ClassVar[str] = ", line 1"
    no_rows: ClassVar[str] = "no rows below its header"
    left_out: ClassVar[str] = "rows with missing columns"

    expected: str
    header_rows: int = 0
    skips_short_rows: bool = False

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield a few hundred rows at a time; see `Table.chunks`."""
        positions = [self.columns.index(name) for name in names]
        width = len(self.columns)
        path = None if self.file is STANDARD_INPUT else self.file.path
        header_rows = self.header_rows
        for first, lines in read_lines(path):
            rows = [line.split("\t") for line in lines[header_rows:]]
            numbers: Sequence[int] = range(first + header_rows, first + len(lines))
            header_rows = 0
            short: list[int] = []
            if any(len(row) != width for row in rows):
                numbers, rows, short = self._sort_out(numbers, rows)
            columns = [[row[position] for row in rows] for position in positions]
            yield Chunk(columns=columns, numbers=numbers, left_out=short)

    def _sort_out(
        self, numbers: Sequence[int], rows: Sequence[list[str]]
    ) -> tuple[Sequence[int], list[list[str]], list[int]]:
        """Return the numbers and fields of the complete rows, and the numbers of those that are too short.

        Raises:
            DataError: a row is too long, or too short where such rows are not skipped.
        """
        width = len(self.columns)
        for number, row in zip(numbers, rows, strict=True):
            if len(row) > width or (len(row) < width and not self.skips_short_rows):
                raise DataError(f"{self.origin}, line {number}: {len(row)} tab-separated fields; {self.expected}.")
        numbered = dict(zip(numbers, rows, strict=True))
        complete = {number: row for number, row in numbered.items() if len(row) == width}
        return [*complete], [*complete.values()], sorted(numbered.keys() - complete.keys())
