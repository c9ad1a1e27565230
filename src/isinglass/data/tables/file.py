"""A table on disk: its format, its header, its bytes."""

import glob
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NoReturn

import pyarrow as pa

from isinglass.data.lines import decode_lines, read_lines
from isinglass.errors import DataError
from isinglass.hub import reason
from isinglass.names import brief, did_you_mean, listed, printable, shortened

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
    return endings(path)[0] in FORMATS


def endings(path: Path) -> tuple[str, str]:
    """Those of the format and of the compression, lower case; either may be empty."""
    name = path.name.lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    return Path(name.removesuffix(compression)).suffix, compression


def check_regular(path: Path) -> None:
    """Refuse what is missing, a directory, a pipe or a device."""
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0
    if not mode or stat.S_ISDIR(mode):
        next(read_lines(path))  # says what is wrong
    if not stat.S_ISREG(mode):
        raise DataError(f"{printable(str(path))} is a pipe or a device, which may never end; a file was expected.")


@contextmanager
def opened(file: TableFile) -> Iterator[BinaryIO]:
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
        tell_damage(file)
    except (pa.ArrowException, OSError) as error:
        what = f"is not a readable {compression} file" if compression else "cannot be read"
        raise DataError(f"{file.origin} {what}: {short_reason(error)}.") from None


def tell_damage(file: TableFile) -> NoReturn:
    """Read the file again, line by line, for the place of a byte that is no text."""
    with opened(file) as stream:
        for _ in decode_lines(stream, file.origin, LONGEST_VALUE):
            pass
    raise DataError(f"{file.origin} is not UTF-8; save the file as UTF-8.")


def short_reason(error: Exception) -> str:
    """Return the first line of an error's text, cut short for a message."""
    return shortened(printable(reason(error)), 150)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows: for each column that was asked for its values, as the file has them."""

    columns: list[Sequence[Any] | pa.Array]
    numbers: Sequence[int]
    empty: int = 0
