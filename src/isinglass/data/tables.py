"""The user's own tables: CSV, TSV, JSON Lines and Parquet, compressed or not, read some thousand rows at a time.

CSV is read by Python's own module, in its strict mode: it is slower than Arrow's reader (4 s instead of 0.3 s for a million
rows), but it knows the row of each mistake and notices a quote that is never closed, which otherwise makes one text of all
the rows that follow. Texts go to disk at once; labels are few, and stay Python's.
"""

import csv
import decimal
import glob
import io
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from isinglass.data.hub import reason
from isinglass.data.texts import CHUNK, StoredTexts
from isinglass.data.tsv import decode_lines, read_lines, shortened
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed, printable

Format = Literal["delimited", "json", "parquet"]
RawLabel = str | tuple[str, ...]  # one label, or all those of one example

FORMATS: Final[dict[str, Format]] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
DELIMITERS: Final = (",", "\t", ";", "|")  # what a header is looked through for
LONGEST_VALUE: Final = 1 << 26  # characters or bytes of a line: ten million words
EXTENSIONS: Final = f"{', '.join(FORMATS)}, and those of text with {', '.join(COMPRESSIONS)} behind"


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A table whose header has been read.

    Attributes:
        columns: names in the order of the file; of JSON Lines: the keys of the first lines.
        delimiter: between the columns of CSV and TSV.
        notes: what was guessed.
    """

    path: Path
    format: Format
    compression: str | None
    columns: tuple[str, ...]
    delimiter: str = ""
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The file, for messages."""
        return printable(str(self.path))

    @property
    def unit(self) -> str:
        """What its examples are counted by."""
        return "line" if self.format == "json" else "row"

    def require(self, names: Sequence[str]) -> None:
        """Check that each column is there, and once.

        Raises:
            DataError: with the columns that there are.
        """
        for name in names:
            if self.columns.count(name) != 1:
                problem = f"twice the column {brief(name)}" if name in self.columns else f"no column {brief(name)}"
                hint = "" if name in self.columns else did_you_mean(name, self.columns[:100])
                raise DataError(f"{self.origin} has {problem}{hint}; found {listed(self.columns)}.")


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


# ---- files -------------------------------------------------------------


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that are named, patterns (`data/*.csv`, `**`) replaced by what they match, sorted.

    Raises:
        DataError: a pattern matches nothing, or a file is named twice.
    """
    paths: list[Path] = []
    for pattern in patterns:
        if "\0" in pattern:
            raise DataError(f"{brief(pattern)} is no file's name.")
        if os.path.lexists(pattern) or not glob.has_magic(pattern):
            paths.append(Path(pattern))
            continue
        found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not found:
            raise DataError(f"No file matches the pattern {brief(pattern)}: check its folder and its ending.")
        paths += map(Path, found)
    seen: set[str] = set()
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            raise DataError(f"{printable(str(path))} is named twice: its rows would count double.")
        seen.add(real)
    return paths


def is_table(path: Path) -> bool:
    """Whether the file's ending is that of a table."""
    return _endings(path)[0] in FORMATS


def _endings(path: Path) -> tuple[str, str]:
    """Those of the format and of the compression, lower case; either may be empty."""
    name = path.name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    return Path(name.removesuffix(compression)).suffix, compression


def parse_delimiter(text: str) -> str:
    r"""A delimiter as it is typed: one character, or `\t` or `tab`.

    Raises:
        ConfigError: it is something else.
    """
    delimiter = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(delimiter) != 1 or delimiter in '"\r\n\0 ':
        raise ConfigError(f"delimiter is {brief(text)}; one character was expected, such as ',' or ';', or 'tab'.")
    return delimiter


def open_table(path: Path, delimiter: str | None = None) -> TableFile:
    """Judge a file by its ending, and read its header.

    Args:
        delimiter: of CSV and TSV; None: `,` or a tab, as the ending says, unless the header is plainly separated by another.

    Raises:
        DataError: the file is missing, empty, damaged, no regular file, or of a kind that is not read.
        ConfigError: the delimiter is not one character.
    """
    ending, compression = _endings(path)
    _check_regular(path)
    kind = FORMATS.get(ending)
    if kind is None or (kind == "parquet" and compression):
        raise DataError(f"{printable(str(path))} has the ending {brief(path.suffix)}; read are {EXTENSIONS}.")
    file = TableFile(path=path, format=kind, compression=COMPRESSIONS.get(compression), columns=())
    if kind == "delimited":
        return _with_header(file, ending, delimiter)
    return replace(file, columns=_parquet_columns(file) if kind == "parquet" else _json_columns(file))


def _check_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0
    if not mode or stat.S_ISDIR(mode):
        next(read_lines(path))  # says what is wrong
    if not stat.S_ISREG(mode):
        raise DataError(f"{printable(str(path))} is a pipe or a device, which may never end; a file was expected.")


@contextmanager
def _opened(file: TableFile) -> Iterator[BinaryIO]:
    """The bytes of the file, decompressed; its faults as one sentence.

    Raises:
        DataError: it cannot be read, or not be decompressed; or it is not UTF-8, with the line.
    """
    compression = file.compression
    try:
        with open(file.path, "rb") as raw:
            if compression is None:
                yield raw
            else:
                with pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression) as stream:
                    yield io.BufferedReader(stream)
    except UnicodeDecodeError:
        _tell_damage(file)
    except (pa.ArrowException, OSError) as error:
        what = f"is not a readable {compression} file" if compression else "cannot be read"
        raise DataError(f"{file.origin} {what}: {_reason(error)}.") from None


def _tell_damage(file: TableFile) -> NoReturn:
    """Read the file again, line by line, for the place of a byte that is no text."""
    with _opened(file) as stream:
        for _ in decode_lines(stream, file.origin, LONGEST_VALUE):
            pass
    raise DataError(f"{file.origin} is not UTF-8; save the file as UTF-8.")


def _reason(error: Exception) -> str:
    return shortened(printable(reason(error)), 150)


# ---- CSV and TSV -------------------------------------------------------


def _with_header(file: TableFile, ending: str, delimiter: str | None) -> TableFile:
    """The file with its columns and its delimiter: the usual one, or the only other one that separates the header."""
    usual = "\t" if ending == ".tsv" else ","
    chosen = usual if delimiter is None else parse_delimiter(delimiter)
    columns = _header(file, chosen)
    if len(columns) > 1 or delimiter is not None:
        return replace(file, columns=columns, delimiter=chosen)
    others = {other: _header(file, other) for other in DELIMITERS if other in columns[0]}
    others = {other: found for other, found in others.items() if len(found) > 1}
    if len(others) > 1:
        raise DataError(
            f"{file.origin}: the header {brief(columns[0])} is not separated by {usual!r}, but may be by "
            f"{' or '.join(map(repr, others))}: name the delimiter with --delimiter."
        )
    for other, found in others.items():
        note = f"Columns are separated by {other!r}, as the header of {file.origin} shows."
        return replace(file, columns=found, delimiter=other, notes=(note,))
    return replace(file, columns=columns, delimiter=chosen)


def _header(file: TableFile, delimiter: str) -> tuple[str, ...]:
    with _opened(file) as stream, _as_text(stream) as text:
        try:
            for fields in csv.reader(_lines(text, file), delimiter=delimiter):
                if any(fields):
                    return tuple(fields)
        except csv.Error as error:
            raise DataError(f"{file.origin}, row 1: the header cannot be read as CSV ({_reason(error)}).") from None
    raise DataError(f"{file.origin} is empty; a header and rows below it were expected.")


def _as_text(stream: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _lines(text: io.TextIOWrapper, file: TableFile) -> Iterator[str]:
    """The lines with their ends, each of bounded length."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))  # Python's own is 131,072 characters
    while line := text.readline(LONGEST_VALUE):
        if "\0" in line:
            _tell_damage(file)
        if len(line) == LONGEST_VALUE:
            raise DataError(f"{file.origin}: a line of more than {LONGEST_VALUE:,} characters; rows of text were expected.")
        yield line


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Some rows: for each column that was asked for its values, as the file has them."""

    columns: list[Sequence[Any] | pa.Array]
    numbers: Sequence[int]
    empty: int = 0


def _delimited_chunks(file: TableFile, names: Sequence[str]) -> Iterator[_Chunk]:
    places = [file.columns.index(name) for name in names]
    width = len(file.columns)
    at_header = True
    for first, rows in _rows(file):
        numbers: Sequence[int] = range(first, first + len(rows))
        empty = 0
        if at_header or any(len(row) != width or not any(row) for row in rows):
            kept: list[tuple[int, list[str]]] = []
            for number, row in zip(numbers, rows, strict=True):
                if at_header:
                    at_header = not any(row)
                elif len(row) not in (0, width):
                    raise DataError(
                        f"{file.origin}, row {number}: {len(row)} columns; the header has {width}: put a text that holds "
                        f"{file.delimiter!r} or a line end in quotes, or name another --delimiter."
                    )
                elif any(row) or len(row) == 1:  # the only text of a row may be empty: `""`
                    kept.append((number, row))
                else:
                    empty += bool(row)
            numbers, rows = [number for number, _ in kept], [row for _, row in kept]
        yield _Chunk(columns=[[row[place] for row in rows] for place in places], numbers=numbers, empty=empty)


def _rows(file: TableFile) -> Iterator[tuple[int, list[list[str]]]]:
    """Some thousand rows, and the number of the first."""
    first, rows = 1, []
    with _opened(file) as stream, _as_text(stream) as text:
        try:
            for row in csv.reader(_lines(text, file), delimiter=file.delimiter, strict=True):
                rows.append(row)
                if len(rows) == CHUNK:
                    yield first, rows
                    first, rows = first + len(rows), []
        except csv.Error as error:
            raise DataError(
                f"{file.origin}, row {first + len(rows)}: quotes are open or misplaced ({_reason(error)}): a text with "
                f"quotes stands in quotes, and those inside of it are doubled."
            ) from None
        yield first, rows


# ---- JSON Lines --------------------------------------------------------


def _json_columns(file: TableFile) -> tuple[str, ...]:
    """The keys of the first lines, some hundred."""
    for _, objects in _objects(file):
        if objects:
            return tuple(dict.fromkeys(key for values in objects for key in values))
    raise DataError(f"{file.origin} is empty; a JSON object in each line was expected.")


def _json_chunks(file: TableFile, names: Sequence[str]) -> Iterator[_Chunk]:
    for numbers, objects in _objects(file):
        yield _Chunk(columns=[[values.get(name) for values in objects] for name in names], numbers=numbers)


def _objects(file: TableFile) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Some hundred lines that are not empty, with their numbers."""
    with _opened(file) as stream:
        for first, lines in decode_lines(stream, file.origin, LONGEST_VALUE):
            numbered = [(number, line) for number, line in enumerate(lines, first) if line and not line.isspace()]
            yield [number for number, _ in numbered], [_object(file, number, line) for number, line in numbered]


def _object(file: TableFile, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg}, column {error.colno})"
    except ValueError:
        found = "a number of too many digits"
    except RecursionError:
        found = "JSON nested too deeply"
    else:
        if isinstance(values, dict):
            return values
        found = _kind_of(values)
    if number == 1 and line.lstrip().startswith("["):
        raise DataError(f"{file.origin} holds one JSON array; JSON Lines were expected: each object in a line of its own.")
    raise DataError(f"{file.origin}, line {number}: {found}; a JSON object in each line was expected.")


# ---- Parquet -----------------------------------------------------------


@contextmanager
def _parquet(file: TableFile) -> Iterator[pq.ParquetFile]:
    try:
        with open(file.path, "rb") as raw, pq.ParquetFile(raw) as opened:
            yield opened
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        raise DataError(f"{file.origin} is not a readable Parquet file: {_reason(error)}.") from None


def _parquet_columns(file: TableFile) -> tuple[str, ...]:
    with _parquet(file) as opened:
        return tuple(opened.schema_arrow.names)


def _parquet_chunks(file: TableFile, names: Sequence[str]) -> Iterator[_Chunk]:
    first = 1
    with _parquet(file) as opened:
        schema = opened.schema_arrow
        for name in names:
            _check_type(schema.field(name).type, file, name)
        for batch in opened.iter_batches(batch_size=CHUNK, columns=list(names)):
            columns = [_parquet_values(batch.column(name)) for name in names]
            yield _Chunk(columns=columns, numbers=range(first, first + len(batch)))
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


# ---- rows --------------------------------------------------------------

_CHUNKS: Final = {"delimited": _delimited_chunks, "json": _json_chunks, "parquet": _parquet_chunks}


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


# ---- values ------------------------------------------------------------


class UnusableValue(Exception):  # noqa: N818 - told by row as a DataError
    """A value that is no text or label: what it is, in words, and its place among the values."""

    def __init__(self, place: int, found: str) -> None:
        super().__init__(found)
        self.place = place


def text_array(values: Sequence[Any]) -> pa.Array:
    """Values as a large_string array, null where there is none (None, NaN); numbers and booleans as `as_text` spells them.

    Raises:
        UnusableValue: one is something else.
    """
    with suppress(pa.ArrowException, UnicodeEncodeError):
        array = pa.array(values, pa.large_string())
        array.validate(full=True)
        return array
    texts = [_placed(as_text, place, value) for place, value in enumerate(values)]
    for place, text in enumerate(texts):
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise UnusableValue(place, "half of a surrogate pair, which is no character") from None
    return pa.array(texts, pa.large_string())


def label_list(values: Sequence[Any]) -> list[RawLabel | None]:
    """Labels as names, or tuples of names where a value is a list; None where there is none.

    Raises:
        UnusableValue: one is something else.
    """
    return [value if type(value) is str else _placed(_as_label, place, value) for place, value in enumerate(values)]


def _placed(convert: Callable[[Any], Any], place: int, value: Any) -> Any:
    try:
        return convert(value)
    except TypeError as error:
        raise UnusableValue(place, str(error)) from None


def _as_label(value: Any) -> RawLabel | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset):
        return as_text(value)
    names = [as_text(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if not all(name and not name.isspace() for name in names):
        raise TypeError("a list with an empty label")
    return tuple(name for name in names if name)


def as_text(value: Any) -> str | None:
    """A value as a CSV file would have it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: it is neither text, number nor boolean; the message says what it is.
    """
    if isinstance(value, np.generic):  # 0.1 of 32 bits is not 0.10000000149
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, int) and value.bit_length() < 10_000:
        return str(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    raise TypeError(_kind_of(value))


def _kind_of(value: Any) -> str:
    """What a value is, in words."""
    words = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else words.get(type(value), f"a value of the type {type(value).__name__}")
