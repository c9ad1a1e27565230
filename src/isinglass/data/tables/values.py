"""Values of a table as texts and labels."""

import decimal
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from isinglass.data.tables.file import RawLabel


class UnusableValue(Exception):  # noqa: N818 - told by row as a DataError
    """A value that is no text or label: what it is, in words, and its place among the values."""

    def __init__(self, place: int, found: str) -> None:
        super().__init__(found)
        self.place = place


def text_array(values: Sequence[Any]) -> pa.Array:
    """Values as a large_string array, null where there is none (None, NaN); numbers and booleans as `as_text` spells them.

    Raises:
        UnusableValue: one is something else.
    """
    with suppress(pa.ArrowException, UnicodeEncodeError):
        array = pa.array(values, pa.large_string())
        array.validate(full=True)
        return array
    texts = [_placed(as_text, place, value) for place, value in enumerate(values)]
    for place, text in enumerate(texts):
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise UnusableValue(place, "half of a surrogate pair, which is no character") from None
    return pa.array(texts, pa.large_string())


def label_list(values: Sequence[Any]) -> list[RawLabel | None]:
    """Labels as names, or tuples of names where a value is a list; None where there is none.

    Raises:
        UnusableValue: one is something else.
    """
    return [value if type(value) is str else _placed(_as_label, place, value) for place, value in enumerate(values)]


def _placed(convert: Callable[[Any], Any], place: int, value: Any) -> Any:
    try:
        return convert(value)
    except TypeError as error:
        raise UnusableValue(place, str(error)) from None


def _as_label(value: Any) -> RawLabel | None:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset):
        return as_text(value)
    names = [as_text(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if not all(name and not name.isspace() for name in names):
        raise TypeError("a list with an empty label")
    return tuple(name for name in names if name)


def as_text(value: Any) -> str | None:
    """A value as a CSV file would have it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: it is neither text, number nor boolean; the message says what it is.
    """
    if isinstance(value, np.generic):  # 0.1 of 32 bits is not 0.10000000149
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, int) and value.bit_length() < 10_000:
        return str(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    raise TypeError(kind_of(value))


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    words = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else words.get(type(value), f"a value of the type {type(value).__name__}")
