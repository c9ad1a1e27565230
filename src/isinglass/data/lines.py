"""Read lines of UTF-8 text.

A line ends at LF only: a stray carriage return or a Unicode line separator inside a sentence does not end it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from isinglass.errors import DataError
from isinglass.names import printable, shortened

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLOCK_BYTES: Final = 1 << 16  # a few hundred lines: more at once wake the garbage collector (docs/experiments.md)
LONGEST_LINE: Final = 1 << 20  # bytes; GLUE's longest line has a few thousand


def read_lines(path: Path | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a UTF-8 file, or of standard input if `path` is None, a few hundred at a time.

    A byte order mark is dropped. A carriage return before LF belongs to the line end.

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
        raise DataError(f"{path} does not exist: {_describe_folder(path.parent)}.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read: check its permissions.") from None
    except OSError as error:  # links that form a circle, a disk that fails
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def names_in(directory: Path) -> str:
    """Return the first names in a directory for a message; empty if there are none."""
    names = sorted(entry.name for entry in directory.iterdir())
    return shortened(printable(", ".join(names[:12])), 150)


def _describe_folder(directory: Path) -> str:
    names = names_in(directory) if directory.is_dir() else ""
    return f"{directory} holds {names}" if names else f"{directory} is missing or empty"


def decode_lines(stream: BinaryIO, origin: str, longest: int = LONGEST_LINE) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a stream of UTF-8, as `read_lines` does.

    Args:
        longest: the most bytes that a line may have.

    Raises:
        DataError: the stream is empty, not UTF-8, or holds a NUL byte or a line that is too long.
    """
    first = 1
    while block := stream.read(BLOCK_BYTES):
        rest = b"" if block.endswith(b"\n") else stream.readline(longest)
        block += rest
        if first == 1:
            block = block.removeprefix(BYTE_ORDER_MARK)
        text = _decode(block, origin, first)
        lines = text.removesuffix("\n").split("\n")
        if len(rest) == longest and not rest.endswith(b"\n"):
            number = first + len(lines) - 1
            raise DataError(
                f"{origin}, line {number}: more than {longest >> 20} MiB without a line end; rows of text were expected."
            )
        if "\r" in text:
            lines = [line.removesuffix("\r") for line in lines]
        yield first, lines
        first += len(lines)
    if first == 1:
        raise DataError(f"{origin} is empty; rows of text were expected.")


def _decode(block: bytes, origin: str, first: int) -> str:
    """Return the text of a block whose first line has the number `first`."""
    if b"\0" in block:
        number = first + block.count(b"\n", 0, block.index(b"\0"))
        raise DataError(f"{origin}, line {number}: a NUL byte; the file is damaged or perhaps UTF-16: save it as UTF-8.")
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        number = first + block.count(b"\n", 0, error.start)
        column = error.start - block.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{origin}, line {number}, byte {column}: 0x{block[error.start]:02x} is not UTF-8; save the file as UTF-8."
        ) from None
