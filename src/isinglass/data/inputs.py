"""Read texts to predict, piece by piece: tables, or lines of a file, a pipe or standard input.

A piece of a file has a few thousand rows, so that memory does not grow with the file. A piece of a stream is what has
arrived, so that a line is answered before the next one is sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.data.columns import texts_of
from isinglass.data.examples import Examples
from isinglass.data.files import STANDARD_INPUT, DataFile
from isinglass.data.formats import Chunk, FieldTable, ParquetTable, Table, UnquotedTable, is_table, open_table
from isinglass.data.texts import CHUNK
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed, printable
from isinglass.tasks import TASKS, Task

ALL: Final = "all"  # in place of the names of columns to keep
_MOST_WORDS: Final = 5  # of the name of a column
_AS_LINES: Final = "save the texts as lines of a .txt file"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """n rows of an input.

    Attributes:
        kept: column -> its n values as the file has them.
    """

    examples: Examples
    kept: Mapping[str, Sequence[Any]]


@dataclass(kw_only=True)
class _Counts:
    """What has been read so far.

    Attributes:
        missing, left_out: how many texts are missing and how many rows are left out, and the number of the first.
    """

    rows: int = 0
    missing: int = 0
    first_missing: int = 0
    left_out: int = 0
    first_left_out: int = 0

    def notes(self, table: Table) -> Iterator[str]:
        """Yield what a user should know about the rows."""
        origin, unit = table.file.origin, table.unit
        if self.missing:
            yield f"{origin}: {self.missing:,} missing text(s) used as empty ones, the first in {unit} {self.first_missing}."
        if self.left_out:
            yield f"{origin}: {self.left_out:,} {table.left_out} left out, the first in {unit} {self.first_left_out}."


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A table, or lines, with texts to predict.

    Attributes:
        columns: those with the texts, one or two.
        kept: those whose values come with the predictions.
        notes: what a user should know about the choice of the columns.
    """

    table: Table
    columns: tuple[str, ...]
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _counts: _Counts = field(default_factory=_Counts)

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once, as it arrives."""
        return self.table.file.is_stream

    def check(self) -> tuple[int, list[str]]:
        """Read the whole file and forget it: a mistake in its last row shows before any work is done.

        Returns:
            The number of examples, and what a user should know about them.

        Raises:
            DataError: a row cannot be used, or there is none.
        """
        counts = _Counts()
        deque(self._pieces(counts), maxlen=0)
        return counts.rows, [*self.notes, *counts.notes(self.table)]

    def pieces(self) -> Iterator[Piece]:
        """Yield the rows in their order. A missing text is empty, so that there are as many predictions as rows.

        Rows that hold nothing are left out. Afterwards `late_notes` says what was seen.

        Raises:
            DataError: a row cannot be used, or there is none; the message names it.
        """
        return self._pieces(self._counts)

    def late_notes(self) -> list[str]:
        """Return what a user should know about the rows of `pieces`."""
        return [*self._counts.notes(self.table)]

    def _pieces(self, counts: _Counts) -> Iterator[Piece]:
        names = [*dict.fromkeys((*self.columns, *self.kept))]
        for chunk in _joined(self.table.chunks(names), 1 if self.is_stream else CHUNK):
            if chunk.left_out and not counts.left_out:
                counts.first_left_out = chunk.left_out[0]
            counts.left_out += len(chunk.left_out)
            if not len(chunk.numbers):
                continue
            values = dict(zip(names, chunk.columns, strict=True))
            texts = tuple(self._texts(name, values[name], chunk, counts) for name in self.columns)
            counts.rows += len(chunk.numbers)
            examples = Examples(
                texts=texts,
                labels=None,
                origin=self.table.file.origin,
                line_numbers=np.asarray(chunk.numbers, np.int64),
                unit=self.table.unit,
            )
            yield Piece(examples=examples, kept={name: values[name] for name in self.kept})
        if counts.rows == 0:
            raise DataError(f"{self.table.file.origin} has {self.table.no_rows}; at least one was expected.")

    def _texts(self, name: str, values: Sequence[Any], chunk: Chunk, counts: _Counts) -> list[str]:
        texts = texts_of(name, values, self.table, chunk)
        missing = [number for number, text in zip(chunk.numbers, texts, strict=True) if text is None]
        if missing and not counts.missing:
            counts.first_missing = missing[0]
        counts.missing += len(missing)
        return [text or "" for text in texts]

    def arrow_types(self) -> dict[str, Any]:
        """Return Arrow's types of the kept columns; no type where only the values tell it."""
        import pyarrow as pa

        if isinstance(self.table, FieldTable):
            return dict.fromkeys(self.kept, pa.string())
        if not isinstance(self.table, ParquetTable):
            return {}
        types = self.table.arrow_types(self.kept)
        return {name: pa.large_string() if _is_bytes(kind) else kind for name, kind in types.items()}


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))  # read as texts


def _joined(chunks: Iterable[Chunk], least: int) -> Iterator[Chunk]:
    """Yield chunks of at least `least` rows, made of consecutive ones; the last may be smaller."""
    pending: list[Chunk] = []
    rows = 0
    for chunk in chunks:
        pending.append(chunk)
        rows += len(chunk.numbers)
        if rows >= least:
            yield _join(pending)
            pending, rows = [], 0
    if pending:
        yield _join(pending)


def _join(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    columns = [[value for part in parts for value in part] for parts in zip(*(c.columns for c in chunks), strict=True)]
    numbers = [number for chunk in chunks for number in chunk.numbers]
    return Chunk(columns=columns, numbers=numbers, left_out=[number for chunk in chunks for number in chunk.left_out])


def open_input(
    path: Path | None,
    task: Task,
    *,
    text_columns: Sequence[str | None] = (None, None),
    delimiter: str | None = None,
    encoding: str = "utf-8",
    keep: Sequence[str] = (),
) -> Inputs:
    """Open texts to predict: a table if the file's ending is that of one, else lines; None: lines of standard input.

    Args:
        text_columns: where the texts of the task stand; None: in the column of the name that the task has for it.
        delimiter: of CSV and TSV; None: the header decides.
        encoding: a codec of Python; Parquet has its own.
        keep: names of other columns whose values come with the predictions, perhaps separated by commas, or `all`.

    Raises:
        DataError: the file is missing or damaged, or has other columns.
        ConfigError: a column is named for what has no columns, or for a second text that the task has not.
    """
    if text_columns[1] is not None and not task.is_pair:
        raise ConfigError("The model is for single texts: leave --text-column2 out.")
    is_named = any(name is not None for name in text_columns)
    is_glue_tsv = path is not None and task.name in TASKS and path.suffix.lower() == ".tsv"  # GLUE quotes nothing
    if path is None or not is_table(path) or (is_glue_tsv and not is_named):
        table: Table = _open_lines(path, task, encoding)
        if is_named:
            raise ConfigError(f"{table.file.origin} has no columns but one example in each line: leave --text-column out.")
        columns, notes = table.columns, tuple[str, ...]()
    else:
        table = open_table(path, delimiter, encoding)
        columns, notes = _choose_columns(table, task, text_columns)
    kept = _kept_columns(table, keep)
    doubts = filter(None, [table.file.doubt()])
    return Inputs(table=table, columns=columns, kept=kept, notes=(*notes, *table.guesses.values(), *doubts))


def _open_lines(path: Path | None, task: Task, encoding: str) -> UnquotedTable:
    """Return lines of one text, or of two that are separated by one tab."""
    columns = ("text", "text2") if task.is_pair else ("text",)
    expected = "two texts separated by one tab expected" if task.is_pair else "one text without tabs expected"
    file = STANDARD_INPUT if path is None else DataFile(path=path, origin=printable(str(path)))  # a pipe will do
    return UnquotedTable(file=replace(file, encoding=encoding), columns=columns, header_row=0, expected=expected)


def _choose_columns(table: Table, task: Task, named: Sequence[str | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of the texts, and what a user should know about the choice.

    Only a format that names its columns in any case may have other ones, if they are just as many: in a CSV file without
    a header they would be its first row, which would get no prediction.

    Raises:
        DataError: the table has not these columns.
    """
    columns = tuple(name or own for name, own in zip(named, task.column_names, strict=False))
    is_other = not {*columns} <= {*table.columns} and len(table.columns) == len(columns)
    if is_other and not any(named) and not isinstance(table, FieldTable):
        return table.columns, (f"{table.file.origin}: {listed(table.columns)} used as {listed(columns)}.",)
    require_texts(table, columns, task.column_names, instead=_AS_LINES)
    return columns, ()


def require_texts(table: Table, columns: Sequence[str], known: Sequence[str], *, instead: str = "") -> None:
    """Check that a table has the columns of the texts.

    Args:
        known: the names that the task has for them; where another is missing, the user named it.
        instead: what else to do with a file whose first row is no header.

    Raises:
        DataError: it has not; the message lists its columns and says how to name them.
    """
    missing = [name for name in columns if name not in table.columns]
    if not missing or missing[0] not in known:
        table.require(columns)
        return
    option = "--text-column" if missing[0] == columns[0] else "--text-column2"
    found = f"{table.file.origin} has no column {brief(missing[0])}, from which the model takes its texts"
    found += f"; found {listed(table.columns)}"
    if not isinstance(table, FieldTable):
        raise DataError(f"{found}: name yours with {option}.")
    remedy = f"add a header{instead and ', or '}{instead}"
    if any(map(_looks_like_text, table.columns)):
        raise DataError(f"{found}, which look like texts and not like a header: {remedy}.")
    raise DataError(f"{found}: name yours with {option} or, if the first row is no header, {remedy}.")


def _looks_like_text(name: str) -> bool:
    return len(name.split()) > _MOST_WORDS


def _kept_columns(table: Table, keep: Sequence[str]) -> tuple[str, ...]:
    names: list[str] = []
    for name in keep:
        if name == ALL:
            names += table.columns
        else:
            names += [name] if name in table.columns else [part.strip() for part in name.split(",")]
    kept = tuple(dict.fromkeys(names))
    table.require(kept)
    return kept
