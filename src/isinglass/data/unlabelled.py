"""Read a user's texts to predict: tables, or lines of plain text."""

from dataclasses import replace
from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.files import STANDARD_INPUT, DataFile
from isinglass.data.tables import is_table, open_table
from isinglass.data.tables.csv import UnquotedTable
from isinglass.data.tables.table import Columns, read_tables
from isinglass.names import listed, printable
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
    notes = []
    if not {*columns} <= {*table.columns} and len(table.columns) == len(columns):
        notes.append(f"{table.origin}: {listed(table.columns)} used as {listed(columns)}.")
        columns = table.columns
    rows = read_tables([table], Columns(texts=columns))
    examples = rows.examples
    if rows.missing:
        first = f"the first in {table.unit} {examples.line_numbers[min(rows.missing)]}"
        notes.append(f"{table.origin}: {len(rows.missing):,} missing text(s) used as empty ones, {first}.")
    return replace(examples, notes=(*notes, *examples.notes))


def read_user_texts(path: Path | None, *, is_pair: bool) -> Examples:
    """Read one example from each line; the two texts of a pair are separated by one tab.

    Raises:
        DataError: as `DataFile.lines`, or a line has another number of tabs.
    """
    columns = ("text", "text2") if is_pair else ("text",)
    expected = "two texts separated by one tab expected" if is_pair else "one text without tabs expected"
    file = STANDARD_INPUT if path is None else DataFile(path=path, origin=printable(str(path)))  # a pipe will do
    table = UnquotedTable(file=file, columns=columns, header_row=0, expected=expected)
    return read_tables([table], Columns(texts=columns)).examples
