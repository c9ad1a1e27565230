"""Read GLUE's TSV files, which quote nothing: no CSV reader may touch them."""

import logging
from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.lines import names_in, read_lines
from isinglass.data.tables.file import DataFile
from isinglass.data.tables.table import Columns, read_tables
from isinglass.data.tables.unquoted import UnquotedTable
from isinglass.errors import DataError
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)


def read_split(task: Task, split: Split, data_dir: Path) -> Examples:
    """Read one split of a task from a directory in GLUE's layout (`DATA_DIR/MRPC/train.tsv`).

    Raises:
        DataError: the file or a column is missing, a row has another number of fields than the header (or than the
            first row), or nothing follows the header.
    """
    table = _open_table(task, split, _find_file(task, split, data_dir))
    label = None if split.label_column is None else str(split.label_column)
    examples = read_tables([table], Columns(texts=tuple(map(str, split.text_columns)), label=label)).examples
    for note in examples.notes:
        logger.warning(note)
    return examples


def _find_file(task: Task, split: Split, data_dir: Path) -> DataFile:
    folder = data_dir / task.folder
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a directory; --data-dir is the folder that holds {task.folder}/.")
    if not folder.is_dir():
        content = names_in(data_dir) or "nothing"
        raise DataError(f"{data_dir} has no folder {task.folder}; it holds {content}. --data-dir is the folder above.")
    return DataFile.at(folder / split.file)


def _open_table(task: Task, split: Split, file: DataFile) -> UnquotedTable:
    """Read the first line; the columns of a file without header are named by their positions."""
    _, lines = next(read_lines(file.path))
    fields = lines[0].split("\t")
    if split.has_header:
        return UnquotedTable(
            file=file,
            columns=tuple(fields),
            expected=f"the header has {len(fields)}",
            header_rows=1,
            skips_short_rows=task.skips_short_rows,
        )
    least = 1 + max(map(int, (*split.text_columns, split.label_column or 0)))
    if len(fields) < least:
        raise DataError(f"{file.origin}, line 1: {len(fields)} tab-separated fields; at least {least} were expected.")
    return UnquotedTable(file=file, columns=tuple(map(str, range(len(fields)))), expected=f"line 1 has {len(fields)}")
