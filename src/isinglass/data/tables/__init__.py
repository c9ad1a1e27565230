"""Read the user's own tables: CSV, TSV, JSON Lines and Parquet, compressed or not.

`open_table` reads a file's header and returns a `Table`, whose `read` returns the rows of the requested columns. Texts go to
disk a few thousand at a time; labels stay in memory, because few of them differ.
"""

from pathlib import Path
from typing import Final

from isinglass.data.tables.csv import CsvTable
from isinglass.data.tables.file import COMPRESSIONS, DataFile
from isinglass.data.tables.jsonl import JsonTable
from isinglass.data.tables.parquet import ParquetTable
from isinglass.data.tables.table import Table
from isinglass.errors import DataError
from isinglass.names import brief

FORMATS: Final[dict[str, type[Table]]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonTable,
    ".ndjson": JsonTable,
    ".json": JsonTable,
    ".parquet": ParquetTable,
}
ENDINGS: Final = f"{', '.join(FORMATS)}; text may also end in {', '.join(COMPRESSIONS)}"


def is_table(path: Path) -> bool:
    """Return whether the file's ending is that of a table."""
    return DataFile(path=path, origin=str(path)).ending in FORMATS


def open_table(path: Path, delimiter: str | None = None) -> Table:
    """Read the header of a table whose format its ending names.

    Args:
        delimiter: separates the columns of CSV and TSV; None: the header decides.

    Raises:
        DataError: the file is missing, empty, damaged, not a regular file, or of a format that is not read.
        ConfigError: the delimiter is not one character.
    """
    file = DataFile.at(path)
    table = FORMATS.get(file.ending)
    if table is None or (table is ParquetTable and file.compression):
        raise DataError(f"{file.origin} has the ending {brief(path.suffix)}; supported endings are {ENDINGS}.")
    return table.open(file, delimiter)
