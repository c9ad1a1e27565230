"""Lines of UTF-8 text.

Lines end at LF only: a stray carriage return or a Unicode line separator inside a sentence does not end it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from isinglass.errors import DataError
from isinglass.names import printable, shortened

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLOCK_BYTES: Final = 1 << 16  # some hundred lines: more at once wake the garbage collector (docs/experiments.md)
LONGEST_LINE: Final = 1 << 20  # bytes; GLUE's longest line has some thousand


def read_lines(path: Path | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a UTF-8 file, or of standard input if `path` is None, some hundred at a time.

    A byte order mark is dropped; a carriage return before LF belongs to the line end.

    Yields:
        The number of the first line, counted from 1, and the lines without their ends.

    Raises:
        DataError: the file is missing, a directory, empty, not UTF-8, or holds a NUL byte.
    """
    if path is None:
        yield from decode_lines(sys.stdin.buffer, "standard input")
        return
    try:
        if path.is_dir():
            raise DataError(f"{path} is a directory; a file was expected.")
        with open(path, "rb") as stream:
            yield from decode_lines(stream, str(path))
    except FileNotFoundError:
        beside = held_names(path.parent) if path.parent.is_dir() else ""
        found = f"{path.parent} holds {beside}" if beside else f"{path.parent} is missing or empty"
        raise DataError(f"{path} does not exist: {found}.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read: check its permissions.") from None
    except OSError as error:  # links that go round in a circle, a disk that fails
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def held_names(directory: Path) -> str:
    """The first names in a directory, for a message; empty if there are none."""
    return shortened(printable(", ".join(sorted(entry.name for entry in directory.iterdir())[:12])), 150)


def decode_lines(stream: BinaryIO, origin: str, longest: int = LONGEST_LINE) -> Iterator[tuple[int, list[str]]]:
    """The lines of a stream of UTF-8, as `read_lines` yields them.

    Args:
        longest: bytes of a line.

    Raises:
        DataError: the stream is empty, not UTF-8, or holds a NUL byte or a line that is too long.
    """
    first = 1
    while block := stream.read(BLOCK_BYTES):
        rest = b"" if block.endswith(b"\n") else stream.readline(longest)
        whole = block + rest
        if first == 1:
            whole = whole.removeprefix(BYTE_ORDER_MARK)
        if b"\0" in whole:
            number = first + whole.count(b"\n", 0, whole.index(b"\0"))
            raise DataError(f"{origin}, line {number}: a NUL byte; the file is damaged or UTF-16, say: save it as UTF-8.")
        try:
            text = whole.decode("utf-8")
        except UnicodeDecodeError as error:
            number = first + whole.count(b"\n", 0, error.start)
            byte = error.start - whole.rfind(b"\n", 0, error.start)
            raise DataError(
                f"{origin}, line {number}, byte {byte}: 0x{whole[error.start]:02x} is not UTF-8; save the file as UTF-8."
            ) from None
        lines = text.removesuffix("\n").split("\n")
        if len(rest) == longest and not rest.endswith(b"\n"):
            number = first + len(lines) - 1
            raise DataError(
                f"{origin}, line {number}: more than {longest >> 20} MiB without a line end; rows of text were expected."
            )
        yield first, [line.removesuffix("\r") for line in lines] if "\r" in text else lines
        first += len(lines)
    if first == 1:
        raise DataError(f"{origin} is empty; rows of text were expected.")
