"""Read the files of a checkpoint, which may come from anyone: regular files only, within limits, trusting no number in them.

JSON is read without surprises. Weights are in the safetensors format:

    bytes 0 to 8     length of the header, unsigned, little endian
    header           JSON: name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    data             the arrays end to end, without gaps, in any order; offsets count from here

The header is checked against the true size of the file before anything is allocated, and each array is read by itself:
loading takes the memory of the requested arrays, whatever else the file holds or claims to hold.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeGuard

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.errors import CheckpointError
from isinglass.names import brief

Weights = dict[str, Float32[np.ndarray, "..."]]

MAX_DEPTH: Final = 32  # a tokenizer.json nests 8 deep; what nests hundreds deep can be read but not written again
MAX_HEADER: Final = 1_000_000  # bytes; an encoder of 48 layers has 800 weights and a header of 0.1 MB
MAX_AXES: Final = 8  # no weight here has more than two
# Kind -> how its numbers are read. NumPy has no bfloat16: the upper half of a float32.
FLOATS: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
DTYPES: Final = FLOATS | {"I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
_PREFIX: Final = 8  # bytes


def read_text(path: Path, *, limit: int) -> str:
    """Return the text of a UTF-8 file of at most `limit` bytes.

    Raises:
        CheckpointError: the file is too long, not text, or not a regular file.
    """
    size = _size(path)
    if size > limit:
        raise CheckpointError(f"{path} has {size:,} bytes, and at most {limit:,} are read: it is not what its name says.")
    with open(path, "rb") as stream:
        content = stream.read(size)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8 text.") from None


def _size(path: Path) -> int:
    """Return the bytes of a file. What would hang or never end when it is read is refused: a pipe, a device, a directory."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file: put the file itself there.")
    return path.stat().st_size


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


@dataclass(frozen=True)
class Stored:
    """Where an array lies: `kind` is a key of DTYPES, `start` counts bytes from the beginning of the file."""

    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        """The byte behind the array."""
        return self.start + math.prod(self.shape) * np.dtype(DTYPES[self.kind]).itemsize


def read_header(path: Path) -> dict[str, Stored]:
    """Return where the arrays of a safetensors file lie, once it is certain that the file holds them.

    Arrays of integers, as `position_ids`, are left out: nothing in them is learned.

    Raises:
        CheckpointError: the header does not describe this file, or an array is of another kind.
    """
    size = _size(path)
    with open(path, "rb") as stream:
        prefix = stream.read(_PREFIX)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < _PREFIX or length > size - _PREFIX:
            raise _unreadable(path, f"its header would have {length:,} bytes, and the file has {size:,}")
        if length > MAX_HEADER:
            raise _unreadable(path, f"its header has {length:,} bytes; at most {MAX_HEADER:,} were expected")
        header = stream.read(length)
    try:
        entries = parse_json(header.decode(), f"{path} is not a readable safetensors file: its header")
    except UnicodeDecodeError:
        raise _unreadable(path, "its header is not UTF-8 text") from None
    entries.pop("__metadata__", None)
    start = _PREFIX + length
    arrays = {name: _parse_entry(path, name, entry, start, size) for name, entry in entries.items()}
    _check_end_to_end(path, arrays.values(), start, size)
    return {name: array for name, array in arrays.items() if array.kind in FLOATS}


def read_safetensors(path: Path, header: Mapping[str, Stored]) -> Weights:
    """Read arrays of a safetensors file as float32: bfloat16 and float16 are widened.

    Args:
        header: the arrays to read, of those that `read_header` returns.

    Raises:
        CheckpointError: an array holds NaN or infinity, or does not fit into memory.
    """
    with open(path, "rb") as stream:
        return {name: _read_array(stream, path, name, stored) for name, stored in header.items()}


def _read_array(stream: BinaryIO, path: Path, name: str, stored: Stored) -> Float32[np.ndarray, "..."]:
    stream.seek(stored.start)
    count = math.prod(stored.shape)
    try:
        array: NDArray[Any] = np.fromfile(stream, FLOATS[stored.kind], count)
        if stored.kind == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        array = array.astype(np.float32, copy=False)
    except MemoryError:
        raise CheckpointError(f"{path}: {brief(name)} of shape {stored.shape} does not fit into memory.") from None
    if array.size != count:
        raise CheckpointError(f"{path} was cut short while it was read: try again when nothing writes to it.")
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity; the file is damaged or its training diverged.")
    return array.reshape(stored.shape)


def _unreadable(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a readable safetensors file: {problem}.")


def _parse_entry(path: Path, name: str, entry: Any, start: int, size: int) -> Stored:
    """Return where an array lies, according to the header of a file of `size` bytes whose data begin at `start`."""
    values = entry if isinstance(entry, dict) else {}
    kind, shape, span = (values.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(f"{path}: {brief(name)} is of kind {brief(kind)}; F32, F16 or BF16 was expected.")
    data = size - start
    if not _are_counts(shape, data, MAX_AXES) or not _are_counts(span, data, 2) or len(span) != 2:
        described = f"{brief(name)} has shape {brief(shape)} and bytes {brief(span)}"
        raise _unreadable(path, f"{described}; there are {data:,} bytes of data")
    stored = Stored(kind, tuple(shape), start + span[0])
    if stored.end != start + span[1]:
        needed = f"takes {stored.end - stored.start:,} bytes"
        raise _unreadable(path, f"{brief(name)} of shape {shape} {needed}, and has those from {span[0]:,} to {span[1]:,}")
    return stored


def _are_counts(values: Any, largest: int, most: int) -> TypeGuard[list[int]]:
    """Return whether `values` is a list of at most `most` integers from 0 to `largest`."""
    is_short_list = isinstance(values, list) and len(values) <= most
    return is_short_list and all(type(value) is int and 0 <= value <= largest for value in values)


def _check_end_to_end(path: Path, arrays: Iterable[Stored], start: int, size: int) -> None:
    reached = start
    for array in sorted(arrays, key=lambda array: (array.start, array.end)):
        if array.start != reached:
            problem = "overlap" if array.start < reached else "leave a gap"
            raise _unreadable(path, f"its arrays {problem} at byte {min(array.start, reached) - start:,}")
        reached = array.end
    if reached != size:
        raise _unreadable(path, f"its arrays end at byte {reached - start:,} of {size - start:,}")
