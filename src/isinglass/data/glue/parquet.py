"""Read GLUE's Parquet files from the Hugging Face hub."""

import logging
from dataclasses import replace
from typing import Final

from isinglass.data.examples import Examples
from isinglass.data.tables.file import DataFile
from isinglass.data.tables.table import Columns, read_tables
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
    from isinglass.data.tables.parquet import ParquetTable  # imported where used: it loads Arrow

    name = f"{task.hub_config}/{split.hub_split}-00000-of-00001.parquet"
    path = fetch(HUB_REPO, name, repo_type="dataset", instead="give GLUE's files with --data-dir")
    if path is None:
        raise HubError(f"{HUB_REPO} on the hub has no file {name}: give GLUE's files with --data-dir.")
    origin = f"{HUB_REPO}/{name}"
    note = f"{origin} is the hub's at commit {commit_of(name, path)}."
    logger.info(note)
    table = ParquetTable.open(DataFile(path=path, origin=origin))
    label_column = None if split.label_column is None else LABEL_COLUMN
    rows = read_tables([table], Columns(texts=task.hub_text_columns, label=label_column))
    examples = replace(rows.examples, notes=(note,))
    for index, column in rows.missing.items():
        raise DataError(f"{examples.where(index)}: the column {column!r} is null; a text was expected.")
    if examples.labels is None or task.labels is None:
        return examples
    return replace(examples, labels=_named_labels(examples, task))


def _named_labels(examples: Examples, task: Task) -> list[str]:
    """Return the names of the hub's integers."""
    names = {str(integer): name for integer, name in enumerate(task.hub_labels or task.labels or ())}
    for index, value in enumerate(examples.labels or ()):
        if value not in names:
            raise DataError(
                f"{examples.where(index)}: the label is {value}; 0 to {len(names) - 1} expected for {task.title}."
            )
    return [names[str(value)] for value in examples.labels or ()]
