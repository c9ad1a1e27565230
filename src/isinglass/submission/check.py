"""Check a submission: any zip, and each of the eleven files."""

import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from isinglass.data.files import BYTE_ORDER_MARK, short_reason
from isinglass.errors import DataError
from isinglass.names import shortened
from isinglass.tasks import TASKS, Task

HEADER: Final = b"index\tprediction"
LARGEST_FILE: Final = 16 << 20  # bytes; the largest of the eleven, QQP.tsv, has 3.4 MB
LARGEST_ZIP: Final = 32 << 20  # bytes, packed and unpacked; all eleven have less than 5 MB
MOST_PROBLEMS: Final = 20  # told of one file
SPARE_LINES: Final = 10_000  # read of a file that has more than twice its rows: the rest says nothing new, and takes long
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
_INDEX: Final = re.compile(rb"[0-9]{1,9}")
NUMBER: Final = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class GlueFile:
    """One of the eleven: the `task` whose runs answer it and the `key` of their predictions; what its test set is like."""

    name: str
    task: Task
    key: str
    majority: str

    @property
    def rows(self) -> int:
        """The rows of the published test set."""
        split = TASKS["ax"].split("test") if self.key == "ax" else self.task.split(self.key)
        return split.rows


FILES: Final = (  # the last column is the most frequent label of the published dev set
    GlueFile("CoLA.tsv", TASKS["cola"], "test", "1"),  # 721 of 1043
    GlueFile("SST-2.tsv", TASKS["sst2"], "test", "1"),  # 444 of 872
    GlueFile("MRPC.tsv", TASKS["mrpc"], "test", "1"),  # 279 of 408
    GlueFile("STS-B.tsv", TASKS["stsb"], "test", "2.500"),  # the middle of 0 to 5
    GlueFile("QQP.tsv", TASKS["qqp"], "test", "0"),  # 25545 of 40430
    GlueFile("MNLI-m.tsv", TASKS["mnli"], "test_matched", "entailment"),  # 3479 of 9815
    GlueFile("MNLI-mm.tsv", TASKS["mnli"], "test_mismatched", "entailment"),  # 3463 of 9832
    GlueFile("QNLI.tsv", TASKS["qnli"], "test", "not_entailment"),  # 2761 of 5463
    GlueFile("RTE.tsv", TASKS["rte"], "test", "entailment"),  # 146 of 277
    GlueFile("WNLI.tsv", TASKS["wnli"], "test", "0"),  # 40 of 71
    GlueFile("AX.tsv", TASKS["mnli"], "ax", "entailment"),  # as MNLI
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What GLUE's server would stumble over; `str` makes one sentence of it.

    Attributes:
        file: one of the eleven names, or the zip's own.
        line: counted from 1; None where the whole file is meant.
        found, expected: in words; what stands in the zip is quoted, control characters escaped.
    """

    file: str
    line: int | None = None
    found: str
    expected: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.found}; expected {self.expected}."


def check_submission(path: Path, *, rows: Mapping[str, int] | None = None) -> list[Problem]:
    """Check any zip: return all that GLUE would not take about it; an empty list means that it is good.

    Nothing is unpacked to disk, and no more than `LARGEST_FILE` bytes at a time to memory. Line ends of Windows, blank
    lines and a last line without its end are taken: no reader of tables stumbles over them. A byte order mark is not: some
    read it as part of the header.

    Args:
        path: the zip.
        rows: file name -> rows, where other than the published test sets'.

    Returns:
        At most `MOST_PROBLEMS` for each file and for the zip itself, then one that counts the rest.

    Raises:
        DataError: there is no file, or it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST_ZIP + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); a zip file was expected.") from None
    size = f"more than {LARGEST_ZIP >> 20} MiB, packed or unpacked"
    too_large = Problem(file=path.name, found=size, expected="less than 5")
    if len(data) > LARGEST_ZIP:
        return [too_large]
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGED as error:
        return [Problem(file=path.name, found=f"no zip, or a damaged one ({short_reason(error)})", expected="a zip")]
    entries = archive.infolist()
    problems = _first(_misplaced([entry.orig_filename for entry in entries], path.name), path.name)
    if sum(entry.file_size for entry in entries) > LARGEST_ZIP:
        return [*problems, too_large]
    by_name = {entry.orig_filename: entry for entry in entries}
    for file in FILES:
        if file.name in by_name:
            expected = (rows or {}).get(file.name, file.rows)
            problems += _first(_problems_of_entry(archive, by_name[file.name], file, expected), file.name)
    return problems


def _misplaced(names: Sequence[str], archive: str) -> Iterator[Problem]:
    """Yield each entry that is not one of the eleven at the root, and each of the eleven that is missing."""
    eleven = [file.name for file in FILES]
    for name, times in Counter(names).items():
        if name not in eleven:
            only = "only the eleven files, at the root of the zip"
            yield Problem(file=archive, found=f"the entry {_shown(name)}", expected=only)
        elif times > 1:
            yield Problem(file=archive, found=f"{name} {times} times", expected="each file once")
    somewhere = {re.split(r"[/\\]", name)[-1] for name in names}
    for name in eleven:
        if name not in somewhere:
            yield Problem(file=archive, found=f"no {name}", expected="all eleven files")


def _problems_of_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: GlueFile, rows: int) -> Iterator[Problem]:
    """Check one of the eleven as it lies in a zip."""
    content, flaw = b"", None
    if entry.flag_bits & 0x1:
        flaw = "it is encrypted"
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        flaw = "it is a symbolic link or another special file"
    elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks the others without bounds
        flaw = f"it is compressed by method {entry.compress_type}, neither stored nor deflated"
    else:
        try:
            with archive.open(entry) as stream:
                content = stream.read(LARGEST_FILE + 1)  # whatever size the zip declares
        except _DAMAGED as error:
            flaw = f"it cannot be unpacked ({short_reason(error)})"
        if len(content) > LARGEST_FILE:
            flaw = f"it has more than {LARGEST_FILE >> 20} MiB"
    if flaw is not None:
        yield Problem(file=file.name, found=flaw, expected=f"a plain file of {rows} short rows")
    else:
        yield from problems_of_file(file, content, rows)


def problems_of_file(file: GlueFile, content: bytes, rows: int) -> Iterator[Problem]:
    """Check one file. Indices are counted on from a wrong one: one row left out is one problem, not thousands."""
    count = index = 0
    for number, raw in enumerate(io.BytesIO(content), start=1):
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            if line.startswith(BYTE_ORDER_MARK):
                yield Problem(file=file.name, line=1, found="a byte order mark", expected="the header without one")
            elif line != HEADER:
                yield Problem(file=file.name, line=1, found=f"the header {_shown(line)}", expected=_shown(HEADER))
            continue
        if number > 2 * rows + SPARE_LINES:
            expected = f"{rows} rows, as many as the test set has"
            yield Problem(file=file.name, found=f"more than {number - 1} lines", expected=expected)
            return
        count += bool(line)
        if line and count <= rows:
            fields = line.split(b"\t")
            yield from _problems_of_row(file, number, fields, index)
            index = 1 + (int(fields[0]) if _INDEX.fullmatch(fields[0]) else index)
    if count != rows:
        yield Problem(file=file.name, found=f"{count} rows", expected=f"{rows}, as many as the test set has")


def _problems_of_row(file: GlueFile, number: int, fields: Sequence[bytes], index: int) -> Iterator[Problem]:
    if fields[0] != str(index).encode():
        yield Problem(file=file.name, line=number, found=f"the index {_shown(fields[0])}", expected=_shown(str(index)))
    if len(fields) != 2:
        yield Problem(file=file.name, line=number, found=f"{len(fields)} tab-separated fields", expected="2")
    elif expected := _expected(file.task, fields[1].decode("utf-8", "replace")):
        yield Problem(file=file.name, line=number, found=f"the prediction {_shown(fields[1])}", expected=expected)


def _expected(task: Task, prediction: str) -> str | None:
    """Return what the task takes, in words; None if the prediction is that."""
    if task.labels is not None:
        return None if prediction in task.labels else " or ".join(task.labels)
    low, high = task.score_range
    is_score = NUMBER.fullmatch(prediction) and low <= float(prediction) <= high
    return None if is_score else f"a number from {low:g} to {high:g}"


def _shown(text: str | bytes) -> str:
    """Return a text quoted, on one line, cut when long, and marked if its bytes are not UTF-8."""
    if isinstance(text, str):
        return shortened(repr(shortened(text, 60)), 120)  # what does not print gets longer
    try:
        return _shown(text.decode("utf-8"))
    except UnicodeDecodeError:
        return f"{shortened(repr(text[:60]), 120)}, which is not UTF-8"


def _first(problems: Iterator[Problem], file: str) -> list[Problem]:
    """Return the first problems, and one more that counts the rest."""
    told = list(islice(problems, MOST_PROBLEMS))
    if rest := sum(1 for _ in problems):
        told.append(Problem(file=file, found=f"{rest} more problems", expected="none"))
    return told
