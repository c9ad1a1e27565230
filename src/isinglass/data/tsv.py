"""GLUE's TSV files and the user's plain text files.

GLUE quotes nothing: `"` is an ordinary character, so no CSV reader may touch these files. Lines end at LF only: a stray
carriage return or a Unicode line separator inside a sentence does not end it.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from isinglass.data.examples import Examples
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.names import did_you_mean, printable
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)

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


def shortened(text: str, most: int) -> str:
    """A text for a message: what a file holds may be of any length."""
    return text if len(text) <= most else f"{text[:most]}..."


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


def read_split(task: Task, split: Split, data_dir: Path) -> Examples:
    """Read one split of a task from a directory in GLUE's layout (`DATA_DIR/MRPC/train.tsv`).

    Raises:
        DataError: the file or a column is missing, a row has another number of fields than the header (or than the
            first row), or nothing follows the header.
    """
    path = data_dir / task.folder / split.file
    if not data_dir.is_dir():
        raise DataError(f"{data_dir} is not a directory; --data-dir is the folder that holds {task.folder}/.")
    if not (data_dir / task.folder).is_dir():
        raise DataError(
            f"{data_dir} has no folder {task.folder}; it holds {held_names(data_dir) or 'nothing'}. --data-dir is the "
            f"folder above."
        )
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is a pipe or a device, which may never end; a file was expected.")
    blocks = read_lines(path)
    first, lines = next(blocks)
    columns, expected, source = _columns(split, lines[0], path)
    texts = tuple(StoredTexts() for _ in split.text_columns)
    labels: list[str] = []
    known: dict[str, str] = {}  # one object for each label, not for each row
    skipped: list[int] = []
    if split.has_header:
        first, lines = first + 1, lines[1:]
    end = first
    for start, block in chain([(first, lines)], blocks):
        rows = [line.split("\t") for line in block]
        end = start + len(rows)
        if any(len(row) != expected for row in rows):
            numbered = list(enumerate(rows, start))
            for place, row in numbered:
                if len(row) > expected or (len(row) < expected and not task.skips_short_rows):
                    raise DataError(f"{path}, line {place}: {len(row)} tab-separated fields; {source} has {expected}.")
            skipped += [place for place, row in numbered if len(row) < expected]
            rows = [row for row in rows if len(row) == expected]
        for column, text in zip(columns, texts, strict=False):
            text.extend([row[column] for row in rows])
        if split.label_column is not None:
            labels += [known.setdefault(row[columns[-1]], row[columns[-1]]) for row in rows]
    if not len(texts[0]):
        raise DataError(f"{path} has no rows below its header; {task.title}'s {split.name} set was expected.")
    notes: tuple[str, ...] = ()
    if skipped:
        notes = (f"{path}: {len(skipped)} rows with missing columns left out, the first in line {skipped[0]}.",)
        logger.warning(notes[0])
    return Examples(
        texts=texts,
        labels=labels if split.label_column is not None else None,
        origin=str(path),
        line_numbers=np.delete(np.arange(first, end), np.array(skipped) - first) if skipped else range(first, end),
        notes=notes,
    )


def _columns(split: Split, line: str, path: Path) -> tuple[list[int], int, str]:
    """Positions of the text columns and then the label column, the number of fields, and what tells it: the first line."""
    wanted: Sequence[str | int] = [*split.text_columns]
    if split.label_column is not None:
        wanted = [*wanted, split.label_column]
    fields = line.split("\t")
    if not split.has_header:
        positions = [int(column) for column in wanted]
        if max(positions) >= len(fields):
            raise DataError(
                f"{path}, line 1: {len(fields)} tab-separated fields; at least {max(positions) + 1} were expected."
            )
        return positions, len(fields), "line 1"
    for name in wanted:
        if fields.count(str(name)) != 1:
            problem = f"twice the column {name!r}" if name in fields else f"no column {name!r}"
            found = shortened(", ".join(map(repr, fields[:100])), 200)
            raise DataError(f"{path}, line 1: {problem}{did_you_mean(str(name), fields[:100])}; found {found}.")
    return [fields.index(str(name)) for name in wanted], len(fields), "the header"


def read_user_texts(path: Path | None, *, is_pair: bool) -> Examples:
    """Read the user's own sentences, one example a line; the two texts of a pair are separated by one tab.

    Raises:
        DataError: as `read_lines`, or a line has a tab too many or too few.
    """
    origin = "standard input" if path is None else str(path)
    expected = 2 if is_pair else 1
    texts = tuple(StoredTexts() for _ in range(expected))
    for first, lines in read_lines(path):
        rows = [line.split("\t") for line in lines]
        for number, fields in enumerate(rows, first):
            if len(fields) != expected:
                form = "two texts separated by one tab" if is_pair else "one text without tabs"
                raise DataError(f"{origin}, line {number}: {len(fields)} tab-separated fields; {form} expected.")
        for text, column in zip(texts, zip(*rows, strict=True), strict=True):
            text.extend(column)
    return Examples(texts=texts, labels=None, origin=origin, line_numbers=range(1, len(texts[0]) + 1))
