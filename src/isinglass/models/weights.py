"""Weights at rest: the safetensors format, read by a reader that believes no number in the file.

    bytes 0 to 8     length of the header, unsigned, little endian
    header           JSON: name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    data             the arrays end to end, without gaps, in any order; offsets count from here

The header is judged against the true size of the file before anything is allocated, and each array is read by itself:
loading takes the memory of the arrays that are asked for, whatever else the file holds or claims to hold.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Float32

from isinglass.errors import CheckpointError
from isinglass.models.files import check_regular, parse_json
from isinglass.names import brief

Weights = dict[str, Float32[np.ndarray, "..."]]

MAX_HEADER: Final = 1_000_000  # bytes; an encoder of 48 layers has 800 weights and a header of 0.1 MB
MAX_AXES: Final = 8  # no weight here has more than two
READ: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy has no bfloat16: the upper half of a float32
BUFFERS: Final = ("I64", "I32", "U8", "BOOL")  # position_ids and the like: nothing learned
SIZES: Final = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}  # bytes of a number


class Stored(NamedTuple):
    """Where an array lies: `kind` is a key of READ, `start` counts from the beginning of the file."""

    kind: str
    shape: tuple[int, ...]
    start: int


def read_header(path: Path) -> dict[str, Stored]:
    """What a safetensors file holds, integers left out, once it is certain that the file holds it.

    Raises:
        CheckpointError: the header does not describe this file, or an array is of another kind.
    """

    def wrong(what: str) -> CheckpointError:
        return CheckpointError(f"{path} is not a readable safetensors file: {what}.")

    check_regular(path)
    size = path.stat().st_size
    with open(path, "rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise wrong(f"its header would have {length:,} bytes, and the file has {size:,}")
        if length > MAX_HEADER:
            raise wrong(f"its header has {length:,} bytes; at most {MAX_HEADER:,} were expected")
        header = stream.read(length)
    try:
        text = header.decode()
    except UnicodeDecodeError:
        raise wrong("its header is not UTF-8 text") from None
    entries = parse_json(text, f"{path} is not a readable safetensors file: its header")
    entries.pop("__metadata__", None)

    start, data = 8 + length, size - 8 - length
    stored: dict[str, Stored] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in entries.items():
        values = entry if isinstance(entry, dict) else {}
        kind, shape, span = (values.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(kind, str) or kind not in SIZES:
            raise CheckpointError(f"{path}: {brief(name)} is of kind {brief(kind)}; F32, F16 or BF16 was expected.")
        if not _are_whole(shape, data) or len(shape) > MAX_AXES or not _are_whole(span, data) or len(span) != 2:
            raise wrong(f"{brief(name)} has shape {brief(shape)} and bytes {brief(span)}; there are {data:,} bytes of data")
        needed, (begin, end) = math.prod(shape) * SIZES[kind], span
        if needed != end - begin:
            raise wrong(f"{brief(name)} of shape {shape} takes {needed:,} bytes, and has those from {begin:,} to {end:,}")
        spans.append((begin, end))
        if kind not in BUFFERS:
            stored[name] = Stored(kind, tuple(shape), start + begin)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise wrong(f"its arrays {'overlap' if begin < reached else 'leave a gap'} at byte {min(begin, reached):,}")
        reached = end
    if reached != data:
        raise wrong(f"its arrays end at byte {reached:,} of {data:,}")
    return stored


def read_safetensors(path: Path, header: Mapping[str, Stored] | None = None) -> Weights:
    """Arrays of a safetensors file as float32; bfloat16 and float16 are widened, integers left out.

    Args:
        header: which to read, of `read_header`; None: all of them.

    Raises:
        CheckpointError: as `read_header`, or an array holds NaN or infinity, or does not fit into memory.
    """
    weights: Weights = {}
    header = read_header(path) if header is None else header
    with open(path, "rb") as stream:
        for name, (kind, shape, start) in header.items():
            stream.seek(start)
            try:
                array: np.ndarray[Any, Any] = np.fromfile(stream, READ[kind], math.prod(shape))
                if kind == "BF16":
                    array = (array.astype(np.uint32) << 16).view(np.float32)
                array = array.astype(np.float32, copy=False)
            except MemoryError:
                raise CheckpointError(f"{path}: {brief(name)} of shape {shape} does not fit into memory.") from None
            if array.size != math.prod(shape):
                raise CheckpointError(f"{path} was cut short while it was read: try again when nothing writes to it.")
            if not np.isfinite(array).all():
                raise CheckpointError(f"{path}: {name} holds NaN or infinity; the file is damaged or its training diverged.")
            weights[name] = array.reshape(shape)
    return weights


def _are_whole(values: Any, most: int) -> TypeGuard[list[int]]:
    """Whether `values` is a list of whole numbers from 0 to `most`."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= most for value in values)
