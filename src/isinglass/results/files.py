"""Files of results: `result.json` of one run, and `results.jsonl` of many, one object a line.

A directory of many runs, which `bench` fills and `report` and `submit` read:

DIR/
  results.jsonl               one RunResult or FailedRun a line, in the order in which they ended
  runs/NAME/                  what a run leaves; `model/` only where another run starts from it, or if asked for
  examples/TASK-SPLIT.jsonl   texts and label of each scored example, in the order of its file
  tasks/TASK.json             a task of the user's own, and digests of its sets
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from isinglass.config import without_places
from isinglass.errors import DataError
from isinglass.names import brief, printable
from isinglass.results.record import FailedRun, RunResult
from isinglass.results.validation import LONGEST_RECORD, parsed, validated, validated_record

RESULTS: Final = "results.jsonl"
LARGEST_RESULTS: Final = 256 << 20  # bytes; enough for 80,000 runs
MOST_DAMAGED: Final = 1000  # lines: a file with more of them is another program's


@dataclass(frozen=True, kw_only=True)
class DamagedLine:
    """A line of `results.jsonl` that is no record: `number` from 1, `reason` in words."""

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Records:
    """All of a `results.jsonl`: finished runs, those that failed and have not been finished since, and what is damaged."""

    results: list[RunResult]
    failed: list[FailedRun]
    damaged: list[DamagedLine]


def read_result(path: Path) -> RunResult:
    """Read a run's `result.json`.

    Raises:
        DataError: it is missing, not JSON, or not of this version's fields.
    """
    try:
        with _opened(path) as stream:
            return validated(RunResult, parsed(stream.read(LONGEST_RECORD + 1)))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; a run directory holds one.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a result of this version of isinglass: {_reason(error)}.") from None


def read_records(directory: Path) -> Records:
    """Read `directory/results.jsonl`. Of several results of one run the last counts.

    Raises:
        DataError: there is no such file, it cannot be read, or it is too large or too damaged to be one.
    """
    path = directory / RESULTS
    results: dict[str, RunResult] = {}
    failed: dict[str, FailedRun] = {}
    damaged: list[DamagedLine] = []
    for number, line in _numbered_lines(path, f"`isinglass bench --output {directory}` writes one"):
        try:
            record = validated_record(line)
            key = run_key(record.config, record.start_from)
        except (ValueError, TypeError) as error:
            damaged.append(DamagedLine(number=number, reason=_reason(error)))
            if len(damaged) > MOST_DAMAGED:
                raise DataError(
                    f"{path}: more than {MOST_DAMAGED:,} lines are no records, the first of them line {damaged[0].number}; "
                    f"the file is not what `isinglass bench` writes."
                ) from None
            continue
        if isinstance(record, FailedRun):
            failed[key] = record
        else:
            results[key] = record
    return Records(
        results=list(results.values()),
        failed=[record for key, record in failed.items() if key not in results],
        damaged=damaged,
    )


def _numbered_lines(path: Path, advice: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, counted from 1; of a line that is too long to be a record, its beginning."""
    try:
        with _opened(path) as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST_RESULTS:
                raise DataError(f"{path} has more than {LARGEST_RESULTS >> 20} MiB; records of some kB each were expected.")
            number = 0
            while line := stream.readline(LONGEST_RECORD + 1):
                number += 1
                if line.strip():
                    yield number, line.removesuffix(b"\n")
                while len(line) > LONGEST_RECORD and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_RECORD + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: {advice}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _opened(path: Path) -> BinaryIO:
    """Open a file for reading; refuse a pipe or a device, which might never end."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a directory, a pipe or a device; a file was expected.")
    return open(path, "rb")


def file_below(directory: Path, named: str) -> Path:
    """Return the file that a result names. A result may come from a stranger: with links followed, the file must lie there.

    Raises:
        DataError: it is absolute, or leaves the directory.
    """
    try:
        path = Path(os.path.realpath(directory / named))
        leaves = Path(named).is_absolute() or not path.is_relative_to(os.path.realpath(directory))
    except ValueError:  # a NUL character, say
        leaves = True
    if leaves:
        raise DataError(
            f"{directory / RESULTS} names the file {brief(named)}; relative paths of files below {directory} were expected, "
            f"and no other file is read."
        )
    return path


def append_record(directory: Path, record: RunResult | FailedRun) -> None:
    """Append one line to `directory/results.jsonl`; it is on the disk when this returns."""
    with open(directory / RESULTS, "ab") as lines:
        lines.write(record.to_json().encode("utf-8", "backslashreplace") + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def run_key(config: Mapping[str, Any], start_from: str | None) -> str:
    """Return what identifies a run: all settings but the paths of the data, and the task of its first weights."""
    return json.dumps([without_places(config), start_from], sort_keys=True)


def _reason(error: Exception) -> str:
    """Return the message of an error on one short line: it may quote a complete file."""
    text = printable(" ".join(str(error)[:1000].split()))
    return text if len(text) <= 200 else f"{text[:200]}..."
