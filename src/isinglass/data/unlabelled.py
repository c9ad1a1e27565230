"""A user's texts to predict."""

from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.lines import read_lines
from isinglass.data.tables.file import is_table
from isinglass.data.tables.table import open_table, read_table
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import listed
from isinglass.tasks import TASKS, Task


def read_texts(path: Path | None, task: Task, delimiter: str | None = None) -> Examples:
    """A user's texts to predict: a table by its ending, else lines of text; None: lines of standard input.

    Of a table the task's text columns are read, or, if it has just as many columns under other names, those. A missing text
    is predicted as an empty one, so that the answers are as many as the rows; rows that are empty altogether are left out
    and counted.

    Raises:
        DataError: the file is missing or damaged, or has other columns; with file, row and column.
    """
    is_published = task.name in TASKS
    if path is None or not is_table(path) or (is_published and path.suffix.lower() == ".tsv"):  # GLUE's TSV quotes nothing
        return read_user_texts(path, is_pair=task.is_pair)
    file = open_table(path, delimiter)
    wanted = [str(name) for name in task.hub_text_columns or task.splits[0].text_columns]
    notes = [*file.notes]
    if not {*wanted} <= {*file.columns} and len(file.columns) == len(wanted):
        notes.append(f"{file.origin}: {listed(file.columns)} taken for {listed(wanted)}.")
        wanted = [*file.columns]
    table = read_table(file, wanted)
    if table.missing.any():
        first = table.numbers[table.missing.argmax()]
        notes.append(
            f"{file.origin}: {table.missing.sum():,} missing text(s) taken for empty ones, the first in {file.unit} {first}."
        )
    if table.empty:
        notes.append(f"{file.origin}: {table.empty:,} empty row(s) left out.")
    return Examples(
        texts=table.texts,
        labels=None,
        origin=file.origin,
        line_numbers=table.numbers,
        unit=file.unit,
        notes=tuple(notes),
    )


def read_user_texts(path: Path | None, *, is_pair: bool) -> Examples:
    """Read the user's own sentences, one example a line; the two texts of a pair are separated by one tab.

    Raises:
        DataError: as `read_lines`, or a line has a tab too many or too few.
    """
    origin = "standard input" if path is None else str(path)
    expected = 2 if is_pair else 1
    texts = tuple(StoredTexts() for _ in range(expected))
    for first, lines in read_lines(path):
        rows = [line.split("\t") for line in lines]
        for number, fields in enumerate(rows, first):
            if len(fields) != expected:
                form = "two texts separated by one tab" if is_pair else "one text without tabs"
                raise DataError(f"{origin}, line {number}: {len(fields)} tab-separated fields; {form} expected.")
        for text, column in zip(texts, zip(*rows, strict=True), strict=True):
            text.extend(column)
    return Examples(texts=texts, labels=None, origin=origin, line_numbers=range(1, len(texts[0]) + 1))
