"""The rows of a table, some thousand at a time: texts go to disk at once; labels are few, and stay Python's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from isinglass.data.tables import csv, jsonl, parquet
from isinglass.data.tables.file import COMPRESSIONS, EXTENSIONS, FORMATS, RawLabel, TableFile, check_regular, endings
from isinglass.data.tables.values import UnusableValue, label_list, text_array
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import brief, printable


@dataclass(frozen=True, kw_only=True)
class Table:
    """N rows of a file: the columns that were asked for.

    Attributes:
        texts: N texts for each text column, empty where there is none.
        missing: bool (N,), where a row lacks a text, be it one of two.
        labels: N labels, None where there is none; None if no label column was asked for.
        numbers: int64 (N,), where the rows stand: in CSV as a spreadsheet counts, whose header is row 1; lines of JSON.
        empty: rows without anything, which are left out.
    """

    texts: tuple[StoredTexts, ...]
    missing: Bool[np.ndarray, " N"]
    labels: list[RawLabel | None] | None
    numbers: Int64[np.ndarray, " N"]
    empty: int = 0


def open_table(path: Path, delimiter: str | None = None) -> TableFile:
    """Judge a file by its ending, and read its header.

    Args:
        delimiter: of CSV and TSV; None: `,` or a tab, as the ending says, unless the header is plainly separated by another.

    Raises:
        DataError: the file is missing, empty, damaged, no regular file, or of a kind that is not read.
        ConfigError: the delimiter is not one character.
    """
    ending, compression = endings(path)
    check_regular(path)
    kind = FORMATS.get(ending)
    if kind is None or (kind == "parquet" and compression):
        raise DataError(f"{printable(str(path))} has the ending {brief(path.suffix)}; read are {EXTENSIONS}.")
    file = TableFile(path=path, format=kind, compression=COMPRESSIONS.get(compression), columns=())
    if kind == "delimited":
        return csv.read_header(file, ending, delimiter)
    return replace(file, columns=parquet.read_columns(file) if kind == "parquet" else jsonl.read_columns(file))


_CHUNKS: Final = {"delimited": csv.read_chunks, "json": jsonl.read_chunks, "parquet": parquet.read_chunks}


def read_table(file: TableFile, text_columns: Sequence[str], label_column: str | None = None) -> Table:
    """Read the named columns, and no others. Rows that are empty altogether are left out.

    Raises:
        DataError: a column is missing, a value is neither text nor number, the file is damaged, or there are no rows.
    """
    names = [*text_columns, *([] if label_column is None else [label_column])]
    file.require(names)
    texts = tuple(StoredTexts() for _ in text_columns)
    missing: list[Bool[np.ndarray, " n"]] = []
    labels: list[RawLabel | None] = []
    known: dict[RawLabel, RawLabel] = {}  # one object for each label, not for each row
    numbers: list[Int64[np.ndarray, " n"]] = []
    empty = 0
    for chunk in _CHUNKS[file.format](file, names):
        arrays = [_texts(*one, file, chunk.numbers) for one in zip(text_columns, chunk.columns, strict=False)]
        for array, column in zip(arrays, texts, strict=True):
            column.extend(pc.fill_null(array, "").to_pylist())
        missing.append(np.logical_or.reduce([array.is_null().to_numpy(zero_copy_only=False) for array in arrays]))
        if label_column is not None:
            found = _labels(chunk.columns[-1], file, label_column, chunk.numbers)
            labels += [None if label is None else known.setdefault(label, label) for label in found]
        numbers.append(np.asarray(chunk.numbers, np.int64))
        empty += chunk.empty
    if not len(texts[0]):
        below = " below its header" if file.format == "delimited" else ""
        raise DataError(f"{file.origin} has no rows{below}; at least one was expected.")
    return Table(
        texts=texts,
        missing=np.concatenate(missing),
        labels=None if label_column is None else labels,
        numbers=np.concatenate(numbers),
        empty=empty,
    )


def _texts(name: str, values: Sequence[Any] | pa.Array, file: TableFile, numbers: Sequence[int]) -> pa.Array:
    try:
        return values if isinstance(values, pa.Array) else text_array(values)
    except UnusableValue as found:
        raise DataError(
            f"{file.origin}, {file.unit} {numbers[found.place]}: the column {brief(name)} holds {found}; a text was "
            f"expected."
        ) from None


def _labels(
    values: Sequence[Any] | pa.Array, file: TableFile, name: str, numbers: Sequence[int]
) -> Sequence[RawLabel | None]:
    try:
        return label_list(values.to_pylist() if isinstance(values, pa.Array) else values)
    except UnusableValue as found:
        raise DataError(
            f"{file.origin}, {file.unit} {numbers[found.place]}: the label column {brief(name)} holds {found}; a name, a "
            f"number or a list of names was expected."
        ) from None
