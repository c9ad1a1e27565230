"""GLUE's TSV files.

GLUE quotes nothing: `"` is an ordinary character, so no CSV reader may touch these files.
"""

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from isinglass.data.examples import Examples
from isinglass.data.lines import held_names, read_lines
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import did_you_mean, shortened
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)


def read_split(task: Task, split: Split, data_dir: Path) -> Examples:
    """Read one split of a task from a directory in GLUE's layout (`DATA_DIR/MRPC/train.tsv`).

    Raises:
        DataError: the file or a column is missing, a row has another number of fields than the header (or than the
            first row), or nothing follows the header.
    """
    path = data_dir / task.folder / split.file
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a directory; --data-dir is the folder that holds {task.folder}/.")
    if not (data_dir / task.folder).is_dir():
        raise DataError(
            f"{data_dir} has no folder {task.folder}; it holds {held_names(data_dir) or 'nothing'}. --data-dir is the "
            f"folder above."
        )
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is a pipe or a device, which may never end; a file was expected.")
    blocks = read_lines(path)
    first, lines = next(blocks)
    columns, expected, source = _columns(split, lines[0], path)
    texts = tuple(StoredTexts() for _ in split.text_columns)
    labels: list[str] = []
    known: dict[str, str] = {}  # one object for each label, not for each row
    skipped: list[int] = []
    if split.has_header:
        first, lines = first + 1, lines[1:]
    end = first
    for start, block in chain([(first, lines)], blocks):
        rows = [line.split("\t") for line in block]
        end = start + len(rows)
        if any(len(row) != expected for row in rows):
            numbered = list(enumerate(rows, start))
            for place, row in numbered:
                if len(row) > expected or (len(row) < expected and not task.skips_short_rows):
                    raise DataError(f"{path}, line {place}: {len(row)} tab-separated fields; {source} has {expected}.")
            skipped += [place for place, row in numbered if len(row) < expected]
            rows = [row for row in rows if len(row) == expected]
        for column, text in zip(columns, texts, strict=False):
            text.extend([row[column] for row in rows])
        if split.label_column is not None:
            labels += [known.setdefault(row[columns[-1]], row[columns[-1]]) for row in rows]
    if not len(texts[0]):
        raise DataError(f"{path} has no rows below its header; {task.title}'s {split.name} set was expected.")
    notes: tuple[str, ...] = ()
    if skipped:
        notes = (f"{path}: {len(skipped)} rows with missing columns left out, the first in line {skipped[0]}.",)
        logger.warning(notes[0])
    return Examples(
        texts=texts,
        labels=labels if split.label_column is not None else None,
        origin=str(path),
        line_numbers=np.delete(np.arange(first, end), np.array(skipped) - first) if skipped else range(first, end),
        notes=notes,
    )


def _columns(split: Split, line: str, path: Path) -> tuple[list[int], int, str]:
    """Positions of the text columns and then the label column, the number of fields, and what tells it: the first line."""
    wanted: Sequence[str | int] = [*split.text_columns]
    if split.label_column is not None:
        wanted = [*wanted, split.label_column]
    fields = line.split("\t")
    if not split.has_header:
        positions = [int(column) for column in wanted]
        if max(positions) >= len(fields):
            raise DataError(
                f"{path}, line 1: {len(fields)} tab-separated fields; at least {max(positions) + 1} were expected."
            )
        return positions, len(fields), "line 1"
    for name in wanted:
        if fields.count(str(name)) != 1:
            problem = f"twice the column {name!r}" if name in fields else f"no column {name!r}"
            found = shortened(", ".join(map(repr, fields[:100])), 200)
            raise DataError(f"{path}, line 1: {problem}{did_you_mean(str(name), fields[:100])}; found {found}.")
    return [fields.index(str(name)) for name in wanted], len(fields), "the header"
