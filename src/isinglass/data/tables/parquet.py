"""Parquet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isinglass.data.tables.file import Chunk, TableFile, short_reason
from isinglass.data.texts import CHUNK
from isinglass.errors import DataError
from isinglass.names import brief, printable, shortened


@contextmanager
def _parquet(file: TableFile) -> Iterator[pq.ParquetFile]:
    try:
        with open(file.path, "rb") as raw, pq.ParquetFile(raw) as opened:
            yield opened
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise DataError(f"{file.origin} is not a readable Parquet file: {short_reason(error)}.") from None


def read_columns(file: TableFile) -> tuple[str, ...]:
    """Return the names of the columns."""
    with _parquet(file) as opened:
        return tuple(opened.schema_arrow.names)


def read_chunks(file: TableFile, names: Sequence[str]) -> Iterator[Chunk]:
    """Yield the named columns, `CHUNK` rows at a time."""
    first = 1
    with _parquet(file) as opened:
        schema = opened.schema_arrow
        for name in names:
            _check_type(schema.field(name).type, file, name)
        for batch in opened.iter_batches(batch_size=CHUNK, columns=list(names)):
            columns = [_parquet_values(batch.column(name)) for name in names]
            yield Chunk(columns=columns, numbers=range(first, first + len(batch)))
            first += len(batch)


def _check_type(kind: Any, file: TableFile, name: str) -> None:
    inner = kind
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_decimal,
        pa.types.is_null,
    )
    if not any(test(inner) for test in tests):
        raise DataError(
            f"{file.origin}: the column {brief(name)} holds {shortened(printable(str(kind)), 60)}; texts, numbers, booleans "
            f"or lists of such were expected."
        )


def _parquet_values(column: pa.Array) -> pa.Array | list[Any]:
    """Strings as Arrow has them, checked to be UTF-8; other values as Python has them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):  # as old writers store texts
        column = column.cast(pa.large_string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_string())
    column.validate(full=True)
    if pa.types.is_large_string(column.type):
        return column
    if pa.types.is_floating(kind):
        return list(column.to_numpy(zero_copy_only=False))  # NumPy's scalars know their width
    values: list[Any] = column.to_pylist()
    return values
