"""Predictions as columns, and files of them in the format that their ending names.

A file of predictions has a row for each example. Its first columns are `index`, counted from 0, and `prediction`; the
probabilities come last.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.data.columns import as_text
from isinglass.data.examples import Examples
from isinglass.data.files import short_reason
from isinglass.errors import ConfigError, DataError, IsinglassError, OutputExistsError, StorageError
from isinglass.names import brief
from isinglass.storage import check_parent, replacing
from isinglass.tasks import Task
from isinglass.tasks.kinds import EVEN

Column = Sequence[Any] | NDArray[np.float64]
"""n values. Probabilities and other numbers of the model are an array, float64 (n,)."""
Predictions = Mapping[str, Column]
"""n predictions: name of a column -> n values."""

PROBABILITY: Final = "probability:"
FORMATS: Final = (".csv", ".tsv", ".jsonl", ".parquet")
_TSV_ENDINGS: Final = ("", ".txt", ".tsv")


def prediction_columns(
    outputs: Float32[np.ndarray, "N outputs"],
    label_order: Sequence[str] | None,
    task: Task,
    *,
    first: int = 0,
    described: Mapping[str, Sequence[Any]] | None = None,
    top: int | None = None,
    threshold: float = EVEN,
) -> Predictions:
    """Return predictions as columns: a label, a tuple of labels or a number, what describes the examples, probabilities.

    Args:
        label_order: name of each output; None for regression.
        first: index of the first example.
        described: columns about the examples.
        top: with the likeliest labels and their probabilities only, this many; None: the probabilities of all labels.
        threshold: probability above which an example of a multi-label task has a label.
    """
    shares = task.kind.probabilities(outputs)
    index = range(first, first + len(shares))
    if label_order is None:
        return {"index": index, "prediction": shares[:, 0], **(described or {})}
    predicted = [task.kind.parse(task.kind.names(row, label_order, threshold)) for row in shares]
    columns: dict[str, Column] = {"index": index, "prediction": predicted, **(described or {})}
    if top is None:
        return columns | {PROBABILITY + name: shares[:, i] for i, name in enumerate(label_order)}
    ranked = np.argsort(-shares, axis=1, kind="stable")
    for rank in range(min(top, len(label_order))):
        columns[f"top{rank + 1}"] = [label_order[i] for i in ranked[:, rank]]
        columns[f"probability{rank + 1}"] = np.take_along_axis(shares, ranked[:, rank : rank + 1], 1)[:, 0]
    return columns


def described_by_source(examples: Examples) -> dict[str, Sequence[Any]]:
    """Return the label of each example, the file and row (or line) that it stands in, and its texts.

    There is a column for the label unless labels are hidden, and one for the file where there are several.
    """
    columns: dict[str, Sequence[Any]] = {} if examples.labels is None else {"label": examples.labels}
    if examples.origins:
        columns["file"] = examples.origins
    rows = [int(number) for number in examples.line_numbers]
    return {**columns, "row": rows, **dict(zip(("text", "text2"), examples.texts, strict=False))}


class Writer(Protocol):
    """Writes predictions as they come. All calls have the same columns."""

    def write(self, predictions: Predictions) -> None:
        """Append predictions."""

    def close(self) -> None:
        """Write what is buffered."""


class DelimitedWriter:
    """Writes CSV or TSV with a header, as spreadsheets read it: a value with delimiters, quotes or line ends is quoted.

    The labels of a multi-label example are joined by `|`.
    """

    def __init__(self, file: IO[str], delimiter: str = "\t") -> None:
        self._file = file
        self._rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        self._has_header = False

    def write(self, predictions: Predictions) -> None:
        """Append a line for each prediction, the header before the first."""
        if not self._has_header:
            self._rows.writerow(predictions)
            self._has_header = True
        self._rows.writerows(zip(*map(_cells, predictions.values()), strict=True))
        self._file.flush()

    def close(self) -> None:
        """Nothing is buffered here."""


def _cells(values: Column) -> Iterator[str]:
    if isinstance(values, np.ndarray):
        return (f"{value:.6g}" for value in values)
    return map(_cell, values)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "|".join(value)
    try:
        return as_text(value) or ""
    except TypeError:  # a list, an object, a date
        return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


class JsonLinesWriter:
    """Writes an object for each prediction, one a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, predictions: Predictions) -> None:
        """Append a line for each prediction."""
        columns = [_json_values(values) for values in predictions.values()]
        for row in zip(*columns, strict=True):
            self._file.write(json.dumps(dict(zip(predictions, row, strict=True)), ensure_ascii=False, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing is buffered here."""


def _json_values(values: Column) -> list[Any]:
    """Return values that JSON has: no NumPy scalars, and null for what is not finite."""
    if isinstance(values, np.ndarray):
        return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
    return [*map(_json_value, values)]


def _json_value(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(str(value)) if math.isfinite(value) else None  # 0.1 of 32 bits is not 0.10000000149
    return value


class ParquetWriter:
    """Writes Parquet by Arrow. The types of columns are those of the first predictions, if they are not given.

    Args:
        types: column -> its type.
    """

    def __init__(self, path: Path, types: Mapping[str, Any], origin: str) -> None:
        self._path = path
        self._types = {**types}
        self._origin = origin
        self._file: Any = None

    def write(self, predictions: Predictions) -> None:
        """Append predictions, as a row group.

        Raises:
            DataError: the values of a column have several types.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = {name: self._array(name, values) for name, values in predictions.items()}
        table = pa.table(arrays)
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def _array(self, name: str, values: Column) -> Any:
        import pyarrow as pa

        given = [*values] if not isinstance(values, np.ndarray) else values
        has_label_lists = isinstance(given[0], tuple)  # all of them may be empty
        kind = pa.list_(pa.string()) if has_label_lists else self._types.get(name)
        try:
            array = pa.array(given, kind, from_pandas=True)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            problem = f"the values of the column {brief(name)} are of several types ({short_reason(error)})"
            raise DataError(f"{self._origin}: {problem}: write .jsonl or .csv, or do not keep this column.") from None
        if pa.types.is_null(array.type):
            array = array.cast(pa.string())
        self._types[name] = array.type
        return array

    def close(self) -> None:
        """Write the end of the file."""
        if self._file is not None:
            self._file.close()


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a file of tab-separated predictions of a run, under a name that nothing reads yet."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        DelimitedWriter(file).write(predictions)


def check_predictions(path: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, a path that the predictions cannot or must not be written to.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false, or is a directory or a device.
        ConfigError: `path` cannot be made, or its ending names no format.
    """
    if path.exists() and not path.is_file():
        raise OutputExistsError(f"{path} is a directory or a device; --output names a file.")
    if path.suffix.lower() not in (*FORMATS, *_TSV_ENDINGS):
        raise ConfigError(
            f"{path} has the ending {brief(path.suffix)}, which is no format of predictions: choose one of "
            f"{', '.join(FORMATS)} (.txt, or no ending, is TSV)."
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another --output, or replace it with --overwrite.")
    check_parent(path, option="--output")


@contextmanager
def predictions_file(path: Path, *, overwrite: bool, types: Mapping[str, Any] | None = None) -> Iterator[Writer]:
    """Yield what writes a file of predictions in the format of its ending. After the block it is complete, or absent.

    Args:
        types: Arrow's types of columns, for Parquet; the others follow from the first values.

    Raises:
        OutputExistsError, ConfigError: as `check_predictions`.
        StorageError: the disk is full, say. Nothing is left of the predictions.
    """
    check_predictions(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, _writer(path, partial, types or {}) as writer:
            yield writer
    except OSError as error:
        if isinstance(error, IsinglassError):  # of what is predicted
            raise
        reason = error.strerror or short_reason(error)
        raise StorageError(f"{path} could not be written and nothing is left of it: {reason}.") from error


@contextmanager
def _writer(path: Path, partial: Path, types: Mapping[str, Any]) -> Iterator[Writer]:
    """Yield a writer of the format of `path` on the file `partial`."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        parquet = ParquetWriter(partial, types, str(path))
        yield parquet
        parquet.close()
        return
    # half of a surrogate pair is written as JSON's \udcff
    with open(partial, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        yield JsonLinesWriter(file) if ending == ".jsonl" else DelimitedWriter(file, "," if ending == ".csv" else "\t")
