"""Open data files: names and patterns, decompression, and one sentence for whatever is wrong with the bytes."""

import glob
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from isinglass.data.lines import decode_lines, read_lines
from isinglass.errors import DataError
from isinglass.hub import reason
from isinglass.names import brief, printable, shortened

COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
LONGEST_VALUE: Final = 1 << 26  # characters or bytes of a line: ten million words


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A regular file, compressed or not.

    Attributes:
        origin: its name in messages.
    """

    path: Path
    origin: str

    @classmethod
    def at(cls, path: Path) -> "DataFile":
        """Return the file at `path`, named after it.

        Raises:
            DataError: the file is missing, a directory, a pipe or a device.
        """
        file = cls(path=path, origin=printable(str(path)))
        file._check_regular()
        return file

    def _check_regular(self) -> None:
        try:
            mode = self.path.stat().st_mode
        except OSError:
            mode = 0
        if not mode or stat.S_ISDIR(mode):
            next(read_lines(self.path))  # raises the error that fits
        if not stat.S_ISREG(mode):
            raise DataError(f"{self.origin} is a pipe or a device, which may never end; a file was expected.")

    @property
    def location(self) -> str:
        """The origin, and the path where it differs: what to delete or replace when the file is damaged."""
        path = printable(str(self.path))
        return path if path == self.origin else f"{self.origin} (at {path})"

    @property
    def compression(self) -> str | None:
        """Arrow's name of the compression; None for a file that is not compressed."""
        return COMPRESSIONS.get(self.path.suffix.lower())

    @property
    def ending(self) -> str:
        """The ending that names the format, in lower case and without that of the compression: `.csv` of `A.CSV.gz`."""
        name = self.path.stem if self.compression else self.path.name
        return Path(name).suffix.lower()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield a stream of the decompressed bytes.

        Raises:
            DataError: the file cannot be read or decompressed, or the reader of the stream met a byte that is not UTF-8.
        """
        try:
            with open(self.path, "rb") as raw, self._decompressed(raw) as stream:
                yield stream
        except UnicodeDecodeError:
            self.raise_damage()
        except OSError as error:
            raise DataError(f"{self.origin} cannot be read: {short_reason(error)}.") from None

    @contextmanager
    def _decompressed(self, raw: BinaryIO) -> Iterator[BinaryIO]:
        if self.compression is None:
            yield raw
            return
        import pyarrow as pa  # imported where used: most files are not compressed

        try:
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), self.compression) as stream:
                yield io.BufferedReader(stream)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.origin} is not a readable {self.compression} file: {short_reason(error)}.") from None

    def raise_damage(self) -> NoReturn:
        """Read the file again line by line, and raise a DataError with the place of the first byte that is not text."""
        with self.open() as stream:
            for _ in decode_lines(stream, self.origin, LONGEST_VALUE):
                pass
        raise DataError(f"{self.origin} is not UTF-8; save the file as UTF-8.")


STANDARD_INPUT: Final = DataFile(path=Path("/dev/stdin"), origin="standard input")


def expand(patterns: Sequence[str]) -> list[Path]:
    """Return the named files, with each pattern (`data/*.csv`, `**`) replaced by the files that it matches, sorted.

    Raises:
        DataError: a pattern matches nothing, or a file is named twice.
    """
    paths = [path for pattern in patterns for path in _matches(pattern)]
    real_paths = set()
    for path in paths:
        real_path = os.path.realpath(path)
        if real_path in real_paths:
            raise DataError(f"{printable(str(path))} is named twice: its rows would count double.")
        real_paths.add(real_path)
    return paths


def _matches(pattern: str) -> list[Path]:
    if "\0" in pattern:
        raise DataError(f"{brief(pattern)} is not the name of a file.")
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [Path(pattern)]
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not names:
        raise DataError(f"No file matches the pattern {brief(pattern)}: check its folder and its ending.")
    return [*map(Path, names)]


def short_reason(error: Exception) -> str:
    """Return the first line of an error's text, cut short for a message."""
    return shortened(printable(reason(error)), 150)
