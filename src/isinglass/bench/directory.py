"""The directory of a bench: its lock, its records, and lines of it that are damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isinglass.errors import OutputExistsError
from isinglass.results import RESULTS, DamagedLine, RunResult, read_records
from isinglass.storage import held, replacing

LOCK: Final = ".lock"
LOCK_SECONDS: Final = 10.0  # the worker of a killed bench ends within this time
DAMAGED: Final = "results.damaged.jsonl"


@dataclass(frozen=True)
class Bench:
    """The directory of a bench, locked by this process. `lock` is the descriptor of the lock, which workers inherit."""

    directory: Path
    lock: int

    def results(self) -> list[RunResult]:
        """Return the results of the finished runs."""
        if not (self.directory / RESULTS).exists():
            return []
        return read_records(self.directory).results


@contextmanager
def locked_bench(directory: Path) -> Iterator[Bench]:
    """Lock the directory of a bench, which is made if it does not exist. The lock ends with the last process that has it.

    Raises:
        OutputExistsError: another process holds the lock, or `directory` holds something that is no bench.
    """
    is_other = directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not _is_bench(directory))
    if is_other:
        raise OutputExistsError(f"{directory} holds something other than a bench: name a new directory by --output.")
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / LOCK, f"The bench in {directory}", wait_seconds=LOCK_SECONDS) as descriptor:
        yield Bench(directory, descriptor)


def _is_bench(directory: Path) -> bool:
    return (directory / RESULTS).is_file() or (directory / LOCK).is_file()


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
