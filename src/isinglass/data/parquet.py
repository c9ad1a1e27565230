"""Parquet, read by Arrow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from isinglass.data.files import DataFile, short_reason
from isinglass.data.tables import Chunk, Table
from isinglass.data.texts import CHUNK
from isinglass.errors import DataError
from isinglass.names import brief, printable, shortened

_STRINGS: Final = (types.is_string, types.is_large_string, types.is_string_view)
_BINARIES: Final = (types.is_binary, types.is_large_binary)  # old writers store texts so
_OTHERS: Final = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
_CONTAINERS: Final = (types.is_dictionary, types.is_list, types.is_large_list)


@dataclass(frozen=True, kw_only=True)
class ParquetTable(Table):
    """A Parquet file."""

    @classmethod
    def open(cls, file: DataFile) -> "ParquetTable":
        """Read the schema.

        Raises:
            DataError: the file is not Parquet.
        """
        with _open_parquet(file) as opened:
            return cls(file=file, columns=tuple(opened.schema_arrow.names))

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows, `CHUNK` at a time; see `Table.chunks`."""
        first = 1
        with _open_parquet(self.file) as opened:
            for name in names:
                self._check_type(name, opened.schema_arrow.field(name).type)
            for batch in opened.iter_batches(batch_size=CHUNK, columns=[*names]):
                columns = [_read_values(batch.column(name)) for name in names]
                yield Chunk(columns=columns, numbers=range(first, first + len(batch)))
                first += len(batch)

    def _check_type(self, name: str, column_type: Any) -> None:
        value_type = column_type.value_type if _is_any(_CONTAINERS, column_type) else column_type
        if not _is_any((*_STRINGS, *_BINARIES, *_OTHERS), value_type):
            description = shortened(printable(str(column_type)), 60)
            raise DataError(
                f"{self.origin}: the column {brief(name)} holds {description}; texts, numbers, booleans or lists of such "
                f"were expected."
            )


@contextmanager
def _open_parquet(file: DataFile) -> Iterator[pq.ParquetFile]:
    try:
        with open(file.path, "rb") as raw, pq.ParquetFile(raw) as opened:
            yield opened
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise DataError(f"{file.location} is not a readable Parquet file: {short_reason(error)}.") from None


def _read_values(column: pa.Array) -> list[Any]:
    """Return strings that are valid UTF-8, floats as NumPy's scalars, and other values as Python's."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_any(_BINARIES, column.type):
        column = column.cast(pa.large_string())
    column.validate(full=True)
    if types.is_floating(column.type):
        return [*column.to_numpy(zero_copy_only=False)]  # scalars that know their width
    values: list[Any] = column.to_pylist()
    return values


def _is_any(tests: Sequence[Any], column_type: Any) -> bool:
    return any(test(column_type) for test in tests)
