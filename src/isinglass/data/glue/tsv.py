"""Read GLUE's TSV files.

GLUE quotes nothing: `"` is an ordinary character, so no CSV reader may touch these files.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples
from isinglass.data.lines import names_in, read_lines
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
    path = _find_file(task, split, data_dir)
    blocks = read_lines(path)
    number, lines = next(blocks)
    layout = _read_layout(split, lines[0], path)
    first_block = (number + layout.header_rows, lines[layout.header_rows :])
    reader = _RowReader(layout, skips_short_rows=task.skips_short_rows)
    for start, block in chain([first_block], blocks):
        reader.add(start, block)
    if not len(reader):
        raise DataError(f"{path} has no rows below its header; {task.title}'s {split.name} set was expected.")
    return reader.examples()


def _find_file(task: Task, split: Split, data_dir: Path) -> Path:
    folder = data_dir / task.folder
    path = folder / split.file
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a directory; --data-dir is the folder that holds {task.folder}/.")
    if not folder.is_dir():
        raise DataError(
            f"{data_dir} has no folder {task.folder}; it holds {names_in(data_dir) or 'nothing'}. --data-dir is the "
            f"folder above."
        )
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise DataError(f"{path} is a pipe or a device, which may never end; a file was expected.")
    return path


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the rows of a file are made up.

    Attributes:
        texts: positions of the text columns.
        label: position of the label column; None where labels are hidden.
        width: fields of a row.
        source: what tells the width, for messages: the header or the first line.
        header_rows: 1 or 0.
    """

    path: Path
    texts: tuple[int, ...]
    label: int | None
    width: int
    source: str
    header_rows: int


def _read_layout(split: Split, line: str, path: Path) -> _Layout:
    """Resolve the split's columns in the first line of its file."""
    fields = line.split("\t")
    label = split.label_column
    return _Layout(
        path=path,
        texts=tuple(_position(column, fields, path) for column in split.text_columns),
        label=None if label is None else _position(label, fields, path),
        width=len(fields),
        source="the header" if split.has_header else "line 1",
        header_rows=int(split.has_header),
    )


def _position(column: str | int, fields: Sequence[str], path: Path) -> int:
    """Return where a column stands among the fields of the first line: a name is looked up, a number checked."""
    if isinstance(column, int):
        if column >= len(fields):
            raise DataError(f"{path}, line 1: {len(fields)} tab-separated fields; at least {column + 1} were expected.")
        return column
    if fields.count(column) != 1:
        problem = "twice the" if column in fields else "no"
        found = shortened(", ".join(map(repr, fields[:100])), 200)
        hint = did_you_mean(column, fields[:100])
        raise DataError(f"{path}, line 1: {problem} column {column!r}{hint}; found {found}.")
    return fields.index(column)


class _RowReader:
    """Gathers the rows of a file: texts on disk, and one object for each different label."""

    def __init__(self, layout: _Layout, *, skips_short_rows: bool) -> None:
        self._layout = layout
        self._skips_short_rows = skips_short_rows
        self._texts = tuple(StoredTexts() for _ in layout.texts)
        self._labels: list[str] = []
        self._shared_labels: dict[str, str] = {}
        self._short: list[int] = []  # line numbers of rows that were left out
        self._end = 1  # number of the next line

    def __len__(self) -> int:
        return len(self._texts[0])

    def add(self, start: int, lines: Sequence[str]) -> None:
        """Append the rows of some lines, the first of which has the number `start`.

        Raises:
            DataError: a row has too many fields, or too few where the task does not skip such rows.
        """
        self._end = start + len(lines)
        rows = [line.split("\t") for line in lines]
        if any(len(row) != self._layout.width for row in rows):
            rows = self._complete(start, rows)
        for position, texts in zip(self._layout.texts, self._texts, strict=True):
            texts.extend([row[position] for row in rows])
        label = self._layout.label
        if label is not None:
            self._labels += [self._shared_labels.setdefault(row[label], row[label]) for row in rows]

    def _complete(self, start: int, rows: Sequence[list[str]]) -> list[list[str]]:
        width = self._layout.width
        for number, row in enumerate(rows, start):
            if len(row) > width or (len(row) < width and not self._skips_short_rows):
                place = f"{self._layout.path}, line {number}"
                raise DataError(f"{place}: {len(row)} tab-separated fields; {self._layout.source} has {width}.")
        self._short += [number for number, row in enumerate(rows, start) if len(row) < width]
        return [row for row in rows if len(row) == width]

    def examples(self) -> Examples:
        """Return all rows that were added."""
        path = self._layout.path
        numbers: Sequence[int] | Int64[np.ndarray, " N"] = range(1 + self._layout.header_rows, self._end)
        notes: tuple[str, ...] = ()
        if self._short:
            numbers = np.setdiff1d(numbers, self._short)
            notes = (f"{path}: {len(self._short)} rows with missing columns left out, the first in line {self._short[0]}.",)
            logger.warning(notes[0])
        return Examples(
            texts=self._texts,
            labels=None if self._layout.label is None else self._labels,
            origin=str(path),
            line_numbers=numbers,
            notes=notes,
        )
