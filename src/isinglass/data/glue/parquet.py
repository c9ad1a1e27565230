"""GLUE's Parquet files on the Hugging Face hub."""

import logging

from isinglass.data.examples import Examples
from isinglass.data.texts import CHUNK, StoredTexts
from isinglass.errors import DataError, HubError
from isinglass.hub import commit_of, fetch, reason
from isinglass.tasks import Split, Task
from isinglass.tasks.glue import HUB_REPO

logger = logging.getLogger(__name__)


def read_split(task: Task, split: Split) -> Examples:
    """Read one split of a GLUE task from the hub's Parquet files.

    Raises:
        HubError: as `fetch`.
        DataError: the file is not Parquet, a column is missing, a text is null, or an integer label has no name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = f"{task.hub_config}/{split.hub_split}-00000-of-00001.parquet"
    path = fetch(HUB_REPO, file, repo_type="dataset", instead="give GLUE's files with --data-dir")
    if path is None:
        raise HubError(f"{HUB_REPO} on the hub has no file {file}: give GLUE's files with --data-dir.")
    origin = f"{HUB_REPO}/{file}"
    note = f"{origin} is the hub's at commit {commit_of(file, path)}."
    logger.info(note)
    label_columns = ["label"] if split.label_column is not None else []
    wanted = [*task.hub_text_columns, *label_columns]
    texts = tuple(StoredTexts() for _ in task.hub_text_columns)
    numbers: list[object] = []
    try:
        with pq.ParquetFile(path) as opened:
            names = opened.schema_arrow.names
            for name in wanted:
                if name not in names:
                    raise DataError(f"{origin}: no column {name!r}; found {', '.join(map(repr, names))}.")
            for batch in opened.iter_batches(batch_size=CHUNK, columns=wanted):
                for name, column in zip(task.hub_text_columns, texts, strict=True):
                    values = batch.column(name).to_pylist()
                    if None in values:
                        row = len(column) + values.index(None) + 1
                        raise DataError(f"{origin}, row {row}: the column {name!r} is null; a text was expected.")
                    column.extend([str(text) for text in values])
                if label_columns:
                    numbers += batch.column("label").to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{origin} (at {path}) is not a readable Parquet file: {reason(error)}.") from None
    if not len(texts[0]):
        raise DataError(f"{origin} has no rows; {task.title}'s {split.name} set was expected.")
    labels: list[str] | None = None
    if label_columns:
        labels = _names(numbers, task, origin)
    return Examples(
        texts=texts, labels=labels, origin=origin, line_numbers=range(1, len(texts[0]) + 1), unit="row", notes=(note,)
    )


def _names(values: list[object], task: Task, origin: str) -> list[str]:
    """The hub's integers as label names; a regression score as it is."""
    if task.labels is None:
        return [str(value) for value in values]
    names = dict(enumerate(task.hub_labels or task.labels))
    for row, value in enumerate(values, 1):
        if value not in names:
            raise DataError(f"{origin}, row {row}: the label is {value!r}; 0 to {len(names) - 1} expected for {task.title}.")
    return [names[value] for value in values]  # type: ignore[index]  # checked above
