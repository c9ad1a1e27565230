"""Read GLUE's Parquet files from the Hugging Face hub."""

import logging
from typing import Any, Final

from isinglass.data.examples import Examples
from isinglass.errors import DataError, HubError
from isinglass.hub import commit_of, fetch
from isinglass.tasks import Split, Task
from isinglass.tasks.glue import HUB_REPO

logger = logging.getLogger(__name__)

LABEL_COLUMN: Final = "label"


def read_split(task: Task, split: Split) -> Examples:
    """Read one split of a GLUE task from the hub.

    Raises:
        HubError: see `fetch`.
        DataError: the file is not Parquet, a column is missing, a text is null, or an integer label has no name.
    """
    from isinglass.data.tables.file import DataFile  # imported where used: they load Arrow
    from isinglass.data.tables.parquet import ParquetTable
    from isinglass.data.tables.table import Columns

    name = f"{task.hub_config}/{split.hub_split}-00000-of-00001.parquet"
    path = fetch(HUB_REPO, name, repo_type="dataset", instead="give GLUE's files with --data-dir")
    if path is None:
        raise HubError(f"{HUB_REPO} on the hub has no file {name}: give GLUE's files with --data-dir.")
    origin = f"{HUB_REPO}/{name}"
    note = f"{origin} is the hub's at commit {commit_of(name, path)}."
    logger.info(note)
    table = ParquetTable.open(DataFile(path=path, origin=origin), None)
    label_column = None if split.label_column is None else LABEL_COLUMN
    rows = table.read(Columns(texts=task.hub_text_columns, label=label_column))
    for column, missing in zip(task.hub_text_columns, rows.missing, strict=True):
        if missing.any():
            row = missing.argmax() + 1
            raise DataError(f"{origin}, row {row}: the column {column!r} is null; a text was expected.")
    return Examples(
        texts=rows.texts,
        labels=None if rows.labels is None else _named_labels(rows.labels, task, origin),
        origin=origin,
        line_numbers=rows.numbers,
        unit="row",
        notes=(note,),
    )


def _named_labels(values: Any, task: Task, origin: str) -> list[str]:
    """Return the names of the hub's integers; a regression's scores as they are."""
    if task.labels is None:
        return [str(value) for value in values]
    names = {str(integer): name for integer, name in enumerate(task.hub_labels or task.labels)}
    for row, value in enumerate(values, 1):
        if value not in names:
            raise DataError(f"{origin}, row {row}: the label is {value}; 0 to {len(names) - 1} expected for {task.title}.")
    return [names[value] for value in values]
