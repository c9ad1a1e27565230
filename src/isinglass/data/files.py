"""Open data files and decode their lines, compressed or not, with one sentence for whatever is wrong.

A line ends at LF only: a stray carriage return or a Unicode line separator inside a sentence does not end it.
"""

import codecs
import glob
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from isinglass.errors import DataError
from isinglass.hub import reason
from isinglass.names import brief, printable, shortened

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLOCK_BYTES: Final = 1 << 16  # a few hundred lines: more at once wake the garbage collector (docs/experiments.md)
LONGEST_LINE: Final = 1 << 20  # bytes; GLUE's longest line has a few thousand
LONGEST_VALUE: Final = 1 << 26  # bytes of a line of a user's table: ten million words
MOSTLY_LATIN: Final = 0.3  # of the bytes of a line: with more above 127 it is not in Latin script, with more 0 it is UTF-16
COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file, compressed or not.

    Attributes:
        origin: its name in messages.
        encoding: the codec of a user's file, as the setting `encoding`; None: UTF-8, because the format is defined so.
    """

    path: Path
    origin: str
    encoding: str | None = None

    @classmethod
    def at(cls, path: Path, encoding: str | None = None) -> "DataFile":
        """Return the regular file at `path`, named after it.

        Raises:
            DataError: the file is missing, a directory, a pipe or a device.
        """
        file = cls(path=path, origin=printable(str(path)), encoding=encoding)
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
        return self.path == STANDARD_INPUT.path or not os.path.isfile(self.path)  # noqa: PTH113 - Path's raises errors

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield a stream of the decompressed bytes.

        Raises:
            DataError: the file cannot be read or decompressed.
        """
        if self.path == STANDARD_INPUT.path:
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
            DataError: the file cannot be read, is empty or of another encoding, or a line is too long or holds a NUL byte.
        """
        first = 1
        with self._open_utf8() as stream:
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

    @property
    def _codec(self) -> str:
        return codecs.lookup(self.encoding or "utf-8").name

    @contextmanager
    def _open_utf8(self) -> Iterator[BinaryIO]:
        """Yield a stream of the text in UTF-8, whatever its encoding."""
        with self.open() as stream:
            if self._codec in ("utf-8", "utf-8-sig"):
                yield stream
            else:
                yield io.BufferedReader(_Utf8Stream(self._decoded(stream)))

    def texts(self) -> Iterator[str]:
        """Yield the text in pieces of about 64 KiB that end anywhere, without a byte order mark.

        Raises:
            DataError: the file cannot be read, or is of another encoding.
        """
        with self.open() as stream:
            is_start = True
            for text in self._decoded(stream):
                yield text.removeprefix("\ufeff") if is_start else text
                is_start = is_start and not text

    def doubt(self) -> str | None:
        """Return a sentence where the text is read in another encoding, but is valid UTF-8, which is rarely by chance."""
        if self._codec in ("utf-8", "utf-8-sig") or self.is_stream:
            return None
        with self.open() as stream:
            start = stream.read(BLOCK_BYTES)
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            return None
        if text.isascii():
            return None
        return f"{self.origin} is valid UTF-8, but is read as {self._codec}, as --encoding says: look at the texts."

    def _decoded(self, stream: Any) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self._codec)()
        lines, characters = 1, 0  # line of the next character, and characters of that line before it
        while True:
            block = stream.read1(BLOCK_BYTES)
            state = decoder.getstate()
            try:
                text = decoder.decode(block, final=not block)
                text.encode()  # some codecs make half a surrogate pair
            except UnicodeError as error:
                before = _decode_before(error, decoder, state, block)
                lines += before.count("\n")
                characters = len(before) - before.rfind("\n") + ("\n" not in before) * characters
                found = f"0x{error.object[error.start]:02x} is" if isinstance(error, UnicodeDecodeError) else "the text is"
                place = f"{self.origin}, line {lines}, character {characters}"
                raise DataError(f"{place}: {found} not {self._codec.upper()}; {self._remedy(block)}.") from None
            if not block and not text:
                return
            yield text
            lines += text.count("\n")
            characters = len(text) - text.rfind("\n") - 1 + ("\n" not in text) * characters

    def _decode(self, block: bytes, first: int) -> str:
        """Return the text of a block of UTF-8 whose first line has the number `first`."""
        if b"\0" in block:
            number = first + block.count(b"\n", 0, block.index(b"\0"))
            problem = f"a NUL byte; the file is damaged or perhaps UTF-16: {self._remedy(block)}"
            raise DataError(f"{self.origin}, line {number}: {problem}.")
        try:
            return block.decode("utf-8")
        except UnicodeDecodeError as error:
            start = error.start
            begin, end = block.rfind(b"\n", 0, start), block.find(b"\n", start)
            number, column = first + block.count(b"\n", 0, start), start - begin
            line = block[begin + 1 :] if end < 0 else block[begin + 1 : end]
            problem = f"0x{block[start]:02x} is not UTF-8; {self._remedy(line)}"
            raise DataError(f"{self.origin}, line {number}, byte {column}: {problem}.") from None

    def _remedy(self, content: bytes) -> str:
        """Return what to do about a file of another encoding, in which `content` stands."""
        remedy = "save the file as UTF-8"
        likely = "" if self.encoding is None else _likely_encoding(content)
        return f"{remedy}, or name its encoding: {likely}" if likely else remedy


class _Utf8Stream(io.RawIOBase):
    """Texts as a stream of UTF-8."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with the bytes of one text at most; return how many, 0 at the end."""
        while not self._rest:
            text = next(self._texts, None)
            if text is None:
                return 0
            self._rest = text.encode()
        count = min(len(self._rest), len(buffer))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _decode_before(error: UnicodeError, decoder: codecs.IncrementalDecoder, state: Any, block: bytes) -> str:
    """Return the text of a block before the byte that cannot be decoded."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    pending = len(error.object) - len(block)  # bytes that the decoder had kept from the block before
    with suppress(UnicodeError):
        decoder.setstate(state)
        return decoder.decode(block[: max(0, error.start - pending)])
    return ""


def _likely_encoding(content: bytes) -> str:
    """Return the option for the encoding that bytes that are not UTF-8 are likely to have; empty if they are no text."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "--encoding utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "--encoding utf-16"
    if b"\0" in content:
        first, second = content[::2].count(0), content[1::2].count(0)
        likely = "--encoding utf-16-le" if second > first else "--encoding utf-16-be"
        return likely if max(first, second) > MOSTLY_LATIN * len(content) / 2 else ""
    if sum(byte >= 0x80 for byte in content) > MOSTLY_LATIN * len(content):
        return "--encoding cp1251, gb18030 or shift_jis, say"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "perhaps --encoding latin-1"
    return "perhaps --encoding cp1252"


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
