"""The records of a bench: finished runs, and lines that are damaged."""

from pathlib import Path
from typing import Final

from isinglass.results import RESULTS, DamagedLine, RunResult, read_records
from isinglass.storage import replacing

DAMAGED: Final = "results.damaged.jsonl"


def finished_runs(directory: Path) -> list[RunResult]:
    """Return the results of the finished runs; none if there is no file of them."""
    return read_records(directory).results if (directory / RESULTS).exists() else []


def set_damaged_aside(directory: Path) -> list[DamagedLine]:
    """Move the damaged lines of `results.jsonl` to `results.damaged.jsonl`, so that their runs are performed again.

    A line that a kill cut off is damaged, or lacks only its line feed, which is added.
    """
    path = directory / RESULTS
    if not path.exists():
        return []
    damaged = read_records(directory).damaged
    numbers = {line.number for line in damaged}
    content = path.read_bytes()
    lines = [(number, line + b"\n") for number, line in enumerate(content.split(b"\n"), start=1) if line]
    if damaged:
        with open(directory / DAMAGED, "ab") as aside:
            aside.writelines(line for number, line in lines if number in numbers)
    rest = b"".join(line for number, line in lines if number not in numbers)
    if rest != content:
        with replacing(path) as partial:
            partial.write_bytes(rest)
    return damaged
