"""Read GLUE and the demo task: TSV files as GLUE distributes them, Parquet files as the hub holds them."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isinglass.data.columns import Columns, read_tables
from isinglass.data.examples import Examples, Source
from isinglass.data.files import DataFile, names_in
from isinglass.data.formats import ParquetTable, UnquotedTable
from isinglass.errors import DataError, HubError
from isinglass.hub import commit_of, fetch
from isinglass.tasks import Split, Task
from isinglass.tasks.glue import DEMO, HUB_REPO, demo_data_dir

LABEL: Final = "label"  # name of the column on the hub

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PublishedFiles(Source):
    """The files of a published task.

    Attributes:
        data_dir: a directory in GLUE's layout; None: the hub, or the installed package for the task `demo`.
    """

    data_dir: Path | None

    def read(self, split: Split) -> Examples:
        """Read one split.

        Raises:
            DataError: the data are missing or damaged.
            HubError: the hub cannot be reached and its cache does not hold the file.
        """
        if self.data_dir is not None:
            return read_tsv(self.task, split, self.data_dir)
        if self.task is DEMO:
            return read_tsv(self.task, split, demo_data_dir())
        return read_hub(self.task, split)


# ---- TSV ---------------------------------------------------------------


def read_tsv(task: Task, split: Split, data_dir: Path) -> Examples:
    """Read one split of a task from a directory in GLUE's layout (`DATA_DIR/MRPC/train.tsv`).

    Raises:
        DataError: the file or a column is missing, a row has another number of fields than the header (or than the
            first row), or nothing follows the header.
    """
    folder = data_dir / task.folder
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a directory; --data-dir is the folder that holds {task.folder}/.")
    if not folder.is_dir():
        content = names_in(data_dir) or "nothing"
        raise DataError(f"{data_dir} has no folder {task.folder}; it holds {content}. --data-dir is the folder above.")
    table = _open_tsv(task, split, DataFile.at(folder / split.file))
    label = None if split.label_column is None else str(split.label_column)
    examples, _ = read_tables([table], Columns(texts=tuple(map(str, split.text_columns)), label=label))
    for note in examples.notes:
        logger.warning(note)
    return examples


def _open_tsv(task: Task, split: Split, file: DataFile) -> UnquotedTable:
    """Read the first line; the columns of a file without header are named by their positions."""
    _, (first_line, *_) = next(file.lines())
    columns = tuple(first_line.split("\t"))
    source = "the header"
    if not split.has_header:
        least = 1 + max(map(int, (*split.text_columns, split.label_column or 0)))
        if len(columns) < least:
            place = f"{file.origin}, line 1"
            raise DataError(f"{place}: {len(columns)} tab-separated fields; at least {least} were expected.")
        columns = tuple(map(str, range(len(columns))))
        source = "line 1"
    return UnquotedTable(
        file=file,
        columns=columns,
        header_row=int(split.has_header),
        expected=f"{source} has {len(columns)}",
        skips_short_rows=task.skips_short_rows,
    )


# ---- the hub -----------------------------------------------------------


def read_hub(task: Task, split: Split) -> Examples:
    """Read one split of a GLUE task from the hub.

    Raises:
        HubError: see `fetch`.
        DataError: the file is not Parquet, a column is missing, a text is null, or an integer label has no name.
    """
    name = f"{task.name}/{split.hub_split}-00000-of-00001.parquet"
    path = fetch(HUB_REPO, name, repo_type="dataset", instead="give GLUE's files with --data-dir")
    if path is None:
        raise HubError(f"{HUB_REPO} on the hub has no file {name}: give GLUE's files with --data-dir.")
    origin = f"{HUB_REPO}/{name}"
    note = f"{origin} is the hub's at commit {commit_of(name, path)}."
    logger.info(note)
    class_names = {} if task.labels is None else {LABEL: task.hub_labels or task.labels}
    table = replace(ParquetTable.open(DataFile(path=path, origin=origin)), class_names=class_names)
    label_column = None if split.label_column is None else LABEL
    examples, missing = read_tables([table], Columns(texts=task.column_names, label=label_column))
    for index, column in missing.items():
        raise DataError(f"{examples.where(index)}: the column {column!r} is null; a text was expected.")
    if examples.labels is not None and None in examples.labels:
        index = [*examples.labels].index(None)
        raise DataError(f"{examples.where(index)}: the label is missing (null or -1); {task.title} needs one.")
    return replace(examples, notes=(note,))
