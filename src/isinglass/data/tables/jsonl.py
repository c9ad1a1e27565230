"""JSON Lines: one object in each line."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from isinglass.data.files import LONGEST_VALUE, DataFile
from isinglass.data.tables.table import Chunk, Table
from isinglass.data.tables.values import describe_type
from isinglass.errors import DataError


@dataclass(frozen=True, kw_only=True)
class JsonTable(Table):
    """A file of JSON Lines; its columns are the keys of the first block of lines."""

    unit: ClassVar[str] = "line"

    @classmethod
    def open(cls, file: DataFile) -> "JsonTable":
        """Read the keys of the first few hundred lines.

        Raises:
            DataError: the file is empty or damaged.
        """
        for objects in _read_objects(file):
            if objects:
                keys = dict.fromkeys(key for values in objects.values() for key in values)
                return cls(file=file, columns=tuple(keys))
        raise DataError(f"{file.origin} is empty; a JSON object in each line was expected.")

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the values of the named keys, None where an object lacks one; see `Table.chunks`."""
        for objects in _read_objects(self.file):
            columns = [[values.get(name) for values in objects.values()] for name in names]
            yield Chunk(columns=columns, numbers=[*objects])


def _read_objects(file: DataFile) -> Iterator[dict[int, dict[str, Any]]]:
    """Yield a few hundred objects at a time by their line numbers; blank lines are left out."""
    for first, lines in file.lines(LONGEST_VALUE):
        yield {number: _parse_object(file, number, line) for number, line in enumerate(lines, first) if line.strip()}


def _parse_object(file: DataFile, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        description = f"not JSON ({error.msg}, column {error.colno})"
    except ValueError:
        description = "a number of too many digits"
    except RecursionError:
        description = "JSON nested too deeply"
    else:
        if isinstance(values, dict):
            return values
        description = describe_type(values)
    if number == 1 and line.lstrip().startswith("["):
        raise DataError(f"{file.origin} holds one JSON array; JSON Lines were expected: each object in a line of its own.")
    raise DataError(f"{file.origin}, line {number}: {description}; a JSON object in each line was expected.")
