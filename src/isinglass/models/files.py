"""Read the files of a checkpoint, which may come from anyone: regular files only, within limits, JSON without surprises."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from isinglass.errors import CheckpointError
from isinglass.names import brief

MAX_DEPTH: Final = 32  # a tokenizer.json nests 8 deep; what nests hundreds deep can be read but not written again


def read_text(path: Path, *, limit: int) -> str:
    """Return the text of a UTF-8 file of at most `limit` bytes.

    Raises:
        CheckpointError: the file is too long, not text, or not a regular file.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > limit:
        raise CheckpointError(f"{path} has {size:,} bytes, and at most {limit:,} are read: it is not what its name says.")
    with open(path, "rb") as stream:
        content = stream.read(size)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8 text.") from None


def check_regular(path: Path) -> None:
    """Refuse what would hang or never end when it is read: a pipe, a device, a directory. A link counts as its target.

    Raises:
        CheckpointError: it is not a regular file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file: put the file itself there.")


def read_json(path: Path, *, limit: int) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        CheckpointError: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, limit=limit), str(path))


def parse_json(text: str, origin: str) -> dict[str, Any]:
    """Return a JSON object in which no name stands twice: of two values two readers may take different ones.

    Raises:
        CheckpointError: it is not JSON, not an object, nests too deep, or holds NaN or a number of thousands of digits.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            (repeated, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise CheckpointError(f"{origin} names {brief(repeated)} twice in one object: leave one of them out.")
        return values

    def refuse_constant(name: str) -> Any:
        raise CheckpointError(f"{origin} holds {name}; JSON has finite numbers only.")

    try:
        values = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except CheckpointError:
        raise
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{origin}, line {error.lineno}: not JSON ({error.msg}).") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise CheckpointError(f"{origin} holds a number of thousands of digits: it is damaged or made to harm.") from None
    except RecursionError:
        values = None
    if values is None or not _nests_within(values, MAX_DEPTH):
        raise CheckpointError(
            f"{origin} is null or nests more than {MAX_DEPTH} levels deep: a plain JSON object was expected."
        )
    if not isinstance(values, dict):
        raise CheckpointError(f"{origin}: a JSON object was expected.")
    return values


def _nests_within(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = [*value.values()]
    if not isinstance(value, list):
        return True
    return levels >= 0 and all(_nests_within(child, levels - 1) for child in value if isinstance(child, dict | list))
