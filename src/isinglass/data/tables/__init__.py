"""Read the user's own tables: CSV, TSV, JSON Lines and Parquet, compressed or not.

`open_table` reads a file's header and returns a `Table`; `read_tables` returns the rows of the requested columns. Texts go
to disk a few thousand at a time; labels stay in memory, because few of them differ.
"""

from pathlib import Path
from typing import Final

from isinglass.data.files import COMPRESSIONS, DataFile
from isinglass.data.tables.csv import CsvTable
from isinglass.data.tables.jsonl import JsonTable
from isinglass.data.tables.table import Table
from isinglass.errors import DataError
from isinglass.names import brief

CSV_ENDINGS: Final = (".csv", ".tsv")
JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
ENDINGS: Final = (*CSV_ENDINGS, *JSON_ENDINGS, ".parquet")


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
        from isinglass.data.tables.parquet import ParquetTable  # imported where used: it loads Arrow

        return ParquetTable.open(file)
    if file.ending in CSV_ENDINGS:
        return CsvTable.open(file, delimiter)
    if file.ending in JSON_ENDINGS:
        return JsonTable.open(file)
    raise DataError(
        f"{file.origin} has the ending {brief(path.suffix)}; supported endings are {', '.join(ENDINGS)}, and those of text "
        f"followed by {', '.join(COMPRESSIONS)}."
    )
