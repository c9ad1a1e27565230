"""GLUE's TSV files and the user's plain text files.

GLUE quotes nothing: `"` is an ordinary character, so no CSV reader may touch these files. Lines end at LF only: a stray
carriage return or a Unicode line separator inside a sentence does not end it.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from isinglass.data.examples import Examples
from isinglass.errors import DataError
from isinglass.names import did_you_mean
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path | None) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end) of a UTF-8 file, or of standard input if `path` is None.

    A byte order mark is dropped; a carriage return before LF belongs to the line end.

    Raises:
        DataError: the file is missing, a directory, empty, not UTF-8, or holds a NUL byte.
    """
    if path is None:
        yield from _decode(sys.stdin.buffer, "standard input")
        return
    if path.is_dir():
        raise DataError(f"{path} is a directory; a file was expected.")
    try:
        with open(path, "rb") as lines:
            yield from _decode(lines, str(path))
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        found = f"{path.parent} holds {', '.join(beside[:8])}" if beside else f"{path.parent} is missing or empty"
        raise DataError(f"{path} does not exist: {found}.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read: check its permissions.") from None


def _decode(lines: BinaryIO, origin: str) -> Iterator[tuple[int, str]]:
    number = 0
    for number, raw in enumerate(lines, 1):
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        if b"\0" in raw:
            raise DataError(f"{origin}, line {number}: a NUL byte; the file is damaged or is not a text file.")
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{origin}, line {number}, byte {error.start + 1}: 0x{raw[error.start]:02x} is not UTF-8; "
                f"save the file as UTF-8."
            ) from None
    if number == 0:
        raise DataError(f"{origin} is empty; rows of tab-separated text were expected.")


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
            f"{data_dir} has no folder {task.folder}; it holds "
            f"{', '.join(sorted(p.name for p in data_dir.iterdir())[:12]) or 'nothing'}. --data-dir is the folder above."
        )
    lines = read_lines(path)
    columns, expected, source = _columns(split, lines, path)
    texts: tuple[list[str], ...] = tuple([] for _ in split.text_columns)
    labels: list[str] = []
    numbers: list[int] = []
    skipped: list[int] = []
    for number, line in lines:
        fields = line.split("\t")
        if expected is None:
            expected, source = len(fields), f"line {number}"
            _check_width(columns, len(fields), path, number)
        if len(fields) != expected:
            if task.skips_short_rows and len(fields) < expected:
                skipped.append(number)
                continue
            raise DataError(f"{path}, line {number}: {len(fields)} tab-separated fields; {source} has {expected}.")
        for column, text in zip(columns, texts, strict=False):
            text.append(fields[column])
        if split.label_column is not None:
            labels.append(fields[columns[-1]])
        numbers.append(number)
    if not numbers:
        raise DataError(f"{path} has no rows below its header; {task.title}'s {split.name} set was expected.")
    notes: tuple[str, ...] = ()
    if skipped:
        notes = (f"{path}: {len(skipped)} rows with missing columns left out, the first in line {skipped[0]}.",)
        logger.warning(notes[0])
    return Examples(
        texts=texts,
        labels=labels if split.label_column is not None else None,
        origin=str(path),
        line_numbers=numbers,
        notes=notes,
    )


def _columns(split: Split, lines: Iterator[tuple[int, str]], path: Path) -> tuple[list[int], int | None, str]:
    """Positions of the text columns and then the label column, the number of fields, and what tells it."""
    wanted: Sequence[str | int] = [*split.text_columns]
    if split.label_column is not None:
        wanted = [*wanted, split.label_column]
    if not split.has_header:
        return [int(column) for column in wanted], None, ""
    header = next(lines)[1].split("\t")
    for name in wanted:
        if header.count(str(name)) != 1:
            problem = f"twice the column {name!r}" if name in header else f"no column {name!r}"
            raise DataError(
                f"{path}, line 1: {problem}{did_you_mean(str(name), header)}; found {', '.join(map(repr, header))}."
            )
    return [header.index(str(name)) for name in wanted], len(header), "the header"


def _check_width(columns: Sequence[int], found: int, path: Path, number: int) -> None:
    if max(columns) >= found:
        raise DataError(f"{path}, line {number}: {found} tab-separated fields; at least {max(columns) + 1} expected.")


def read_user_texts(path: Path | None, *, is_pair: bool) -> Examples:
    """Read the user's own sentences, one example a line; the two texts of a pair are separated by one tab.

    Raises:
        DataError: as `read_lines`, or a line has a tab too many or too few.
    """
    origin = "standard input" if path is None else str(path)
    expected = 2 if is_pair else 1
    texts: tuple[list[str], ...] = tuple([] for _ in range(expected))
    numbers: list[int] = []
    for number, line in read_lines(path):
        fields = line.split("\t")
        if len(fields) != expected:
            form = "two texts separated by one tab" if is_pair else "one text without tabs"
            raise DataError(f"{origin}, line {number}: {len(fields)} tab-separated fields; {form} expected.")
        for text, column in zip(fields, texts, strict=True):
            column.append(text)
        numbers.append(number)
    return Examples(texts=texts, labels=None, origin=origin, line_numbers=numbers)
