"""JSON Lines: an object in each line."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from isinglass.data.lines import decode_lines
from isinglass.data.tables.file import LONGEST_VALUE, Chunk, TableFile, opened
from isinglass.data.tables.values import kind_of
from isinglass.errors import DataError


def read_columns(file: TableFile) -> tuple[str, ...]:
    """The keys of the first lines, some hundred."""
    for _, objects in _objects(file):
        if objects:
            return tuple(dict.fromkeys(key for values in objects for key in values))
    raise DataError(f"{file.origin} is empty; a JSON object in each line was expected.")


def read_chunks(file: TableFile, names: Sequence[str]) -> Iterator[Chunk]:
    """Yield the named columns, a few hundred rows at a time."""
    for numbers, objects in _objects(file):
        yield Chunk(columns=[[values.get(name) for values in objects] for name in names], numbers=numbers)


def _objects(file: TableFile) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Some hundred lines that are not empty, with their numbers."""
    with opened(file) as stream:
        for first, lines in decode_lines(stream, file.origin, LONGEST_VALUE):
            numbered = [(number, line) for number, line in enumerate(lines, first) if line and not line.isspace()]
            yield [number for number, _ in numbered], [_object(file, number, line) for number, line in numbered]


def _object(file: TableFile, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        found = f"not JSON ({error.msg}, column {error.colno})"
    except ValueError:
        found = "a number of too many digits"
    except RecursionError:
        found = "JSON nested too deeply"
    else:
        if isinstance(values, dict):
            return values
        found = kind_of(values)
    if number == 1 and line.lstrip().startswith("["):
        raise DataError(f"{file.origin} holds one JSON array; JSON Lines were expected: each object in a line of its own.")
    raise DataError(f"{file.origin}, line {number}: {found}; a JSON object in each line was expected.")
