"""Open data files and decode their lines: UTF-8, compressed or not, with one sentence for whatever is wrong.

A line ends at LF only: a stray carriage return or a Unicode line separator inside a sentence does not end it.
"""

import glob
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from isinglass.errors import DataError
from isinglass.hub import reason
from isinglass.names import brief, printable, shortened

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLOCK_BYTES: Final = 1 << 16  # a few hundred lines: more at once wake the garbage collector (docs/experiments.md)
LONGEST_LINE: Final = 1 << 20  # bytes; GLUE's longest line has a few thousand
LONGEST_VALUE: Final = 1 << 26  # bytes of a line of a user's table: ten million words
COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file, compressed or not.

    Attributes:
        origin: its name in messages.
    """

    path: Path
    origin: str

    @classmethod
    def at(cls, path: Path) -> "DataFile":
        """Return the regular file at `path`, named after it.

        Raises:
            DataError: the file is missing, a directory, a pipe or a device.
        """
        file = cls(path=path, origin=printable(str(path)))
        with file._explained():
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise DataError(f"{file.origin} is a pipe or a device, which may never end; a file was expected.")
        return file

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

    @property
    def is_stream(self) -> bool:
        """Whether it is standard input, a pipe or a device: read once, as its bytes arrive."""
        return self is STANDARD_INPUT or not os.path.isfile(self.path)  # noqa: PTH113 - Path's raises errors

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield a stream of the decompressed bytes.

        Raises:
            DataError: the file cannot be read or decompressed.
        """
        if self is STANDARD_INPUT:
            yield sys.stdin.buffer
            return
        with self._explained(), open(self.path, "rb") as raw, self._decompressed(raw) as stream:
            yield stream

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            folder = self.path.parent
            names = names_in(folder) if folder.is_dir() else ""
            found = f"{folder} holds {names}" if names else f"{folder} is missing or empty"
            raise DataError(f"{self.origin} does not exist: {found}.") from None
        except IsADirectoryError:
            raise DataError(f"{self.origin} is a directory; a file was expected.") from None
        except PermissionError:
            raise DataError(f"{self.origin} may not be read: check its permissions.") from None
        except OSError as error:  # links that form a circle, a disk that fails
            raise DataError(f"{self.origin} cannot be read: {error.strerror or short_reason(error)}.") from None

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

    def blocks(self, longest: int = LONGEST_LINE) -> Iterator[tuple[int, str]]:
        """Yield the text a few hundred lines at a time, without a byte order mark; of a stream the lines that have arrived.

        Args:
            longest: the most bytes that a line may have.

        Yields:
            The number of the first line, counted from 1, and the lines with their ends.

        Raises:
            DataError: the file cannot be read, is empty, not UTF-8, or holds a NUL byte or a line that is too long.
        """
        first = 1
        with self.open() as stream:
            read: Callable[[int], bytes] = stream.read1 if self.is_stream else stream.read  # type: ignore[attr-defined]
            while block := read(BLOCK_BYTES):
                rest = b"" if block.endswith(b"\n") else stream.readline(longest)
                block += rest
                text = self._decode(block.removeprefix(BYTE_ORDER_MARK) if first == 1 else block, first)
                if len(rest) == longest and not rest.endswith(b"\n"):
                    number = first + text.count("\n")
                    problem = f"more than {longest >> 20} MiB without a line end; rows of text were expected"
                    raise DataError(f"{self.origin}, line {number}: {problem}.")
                yield first, text
                first += text.removesuffix("\n").count("\n") + 1
        if first == 1:
            raise DataError(f"{self.origin} is empty; rows of text were expected.")

    def lines(self, longest: int = LONGEST_LINE) -> Iterator[tuple[int, list[str]]]:
        """Yield lines without their ends; a carriage return before LF belongs to the end. See `blocks`."""
        for first, text in self.blocks(longest):
            lines = text.removesuffix("\n").split("\n")
            yield first, [line.removesuffix("\r") for line in lines] if "\r" in text else lines

    def _decode(self, block: bytes, first: int) -> str:
        """Return the text of a block whose first line has the number `first`."""
        if b"\0" in block:
            number = first + block.count(b"\n", 0, block.index(b"\0"))
            problem = "a NUL byte; the file is damaged or perhaps UTF-16: save it as UTF-8"
            raise DataError(f"{self.origin}, line {number}: {problem}.")
        try:
            return block.decode("utf-8")
        except UnicodeDecodeError as error:
            start = error.start
            number, column = first + block.count(b"\n", 0, start), start - block.rfind(b"\n", 0, start)
            problem = f"0x{block[start]:02x} is not UTF-8; save the file as UTF-8"
            raise DataError(f"{self.origin}, line {number}, byte {column}: {problem}.") from None


STANDARD_INPUT: Final = DataFile(path=Path("/dev/stdin"), origin="standard input")


def names_in(directory: Path) -> str:
    """Return the first names in a directory for a message; empty if there are none."""
    names = sorted(entry.name for entry in directory.iterdir())
    return shortened(printable(", ".join(names[:12])), 150)


def short_reason(error: Exception) -> str:
    """Return the first line of an error's text, cut short for a message."""
    return shortened(printable(reason(error)), 150)


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
