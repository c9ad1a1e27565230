"""Read a user's texts to predict: tables, or lines of plain text."""

from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.lines import read_lines
from isinglass.data.tables import is_table, open_table
from isinglass.data.tables.table import Columns
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import listed
from isinglass.tasks import TASKS, Task


def read_texts(path: Path | None, task: Task, delimiter: str | None = None) -> Examples:
    """Read texts to predict: a table if the file's ending is that of one, else lines; None: lines of standard input.

    In a table the task's text columns are read; if it has just as many columns under other names, those. A missing text
    is predicted as an empty one, so that there are as many predictions as rows. Rows that hold nothing are left out and
    counted.

    Raises:
        DataError: the file is missing or damaged, or has other columns; the message names file, row and column.
    """
    if path is None or not is_table(path):
        return read_user_texts(path, is_pair=task.is_pair)
    if task.name in TASKS and path.suffix.lower() == ".tsv":  # GLUE's TSV quotes nothing
        return read_user_texts(path, is_pair=task.is_pair)
    table = open_table(path, delimiter)
    expected = task.hub_text_columns or task.splits[0].text_columns
    columns = tuple(map(str, expected))
    notes = [*table.guesses.values()]
    if not {*columns} <= {*table.columns} and len(table.columns) == len(columns):
        notes.append(f"{table.origin}: {listed(table.columns)} used as {listed(columns)}.")
        columns = table.columns
    rows = table.read(Columns(texts=columns))
    missing = rows.missing.any(axis=0)
    if missing.any():
        first = rows.numbers[missing.argmax()]
        notes.append(
            f"{table.origin}: {missing.sum():,} missing text(s) used as empty ones, the first in {table.unit} {first}."
        )
    if rows.empty:
        notes.append(f"{table.origin}: {rows.empty:,} empty row(s) left out.")
    return Examples(
        texts=rows.texts,
        labels=None,
        origin=table.origin,
        line_numbers=rows.numbers,
        unit=table.unit,
        notes=tuple(notes),
    )


def read_user_texts(path: Path | None, *, is_pair: bool) -> Examples:
    """Read one example from each line; the two texts of a pair are separated by one tab.

    Raises:
        DataError: as `read_lines`, or a line has another number of tabs.
    """
    origin = "standard input" if path is None else str(path)
    width = 2 if is_pair else 1
    expected = "two texts separated by one tab" if is_pair else "one text without tabs"
    texts = tuple(StoredTexts() for _ in range(width))
    for first, lines in read_lines(path):
        rows = [line.split("\t") for line in lines]
        for number, fields in enumerate(rows, first):
            if len(fields) != width:
                raise DataError(f"{origin}, line {number}: {len(fields)} tab-separated fields; {expected} expected.")
        for stored, column in zip(texts, zip(*rows, strict=True), strict=True):
            stored.extend(column)
    return Examples(texts=texts, labels=None, origin=origin, line_numbers=range(1, len(texts[0]) + 1))
