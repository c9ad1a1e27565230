"""Turn the values of a table or a list into texts and labels."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, TypeVar

import numpy as np

from isinglass.names import brief

Label = str | tuple[str, ...]  # one label, or all labels of an example
_Converted = TypeVar("_Converted")

MOST_BITS: Final = 10_000  # of an integer; Python spells longer ones slowly or not at all
_NAMES: Final = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}


class UnusableValue(Exception):  # noqa: N818 - raised again as a DataError that names the row
    """A value of a column that is neither text nor label; `index` says which."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def text_list(column: str, values: Sequence[Any]) -> list[str | None]:
    """Return the N values of a column as texts: None for None and NaN, numbers and booleans as `as_text` spells them.

    Raises:
        UnusableValue: a value is something else, or holds half of a surrogate pair.
    """
    with suppress(TypeError, UnicodeEncodeError):
        "".join(values).encode()  # every value is a text
        return [*values]
    return _convert_all(_as_encodable_text, values, f"the column {brief(column)}", "a text")


def label_list(column: str, values: Sequence[Any]) -> list[Label | None]:
    """Return the N values of a column as labels: a name for each value, a tuple of names for a list, None for None and NaN.

    Raises:
        UnusableValue: a value is something else.
    """
    return _convert_all(_as_label, values, f"the label column {brief(column)}", "a name, a number or a list of names")


def _convert_all(
    convert: Callable[[Any], _Converted], values: Sequence[Any], column: str, expected: str
) -> list[_Converted]:
    converted: list[_Converted] = []
    try:
        for value in values:
            converted.append(convert(value))
    except TypeError as error:
        raise UnusableValue(len(converted), f"{column} holds {error}; {expected} was expected.") from None
    return converted


def _as_encodable_text(value: Any) -> str | None:
    text = as_text(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise TypeError("half of a surrogate pair, which is no character") from None
    return text


def _as_label(value: Any) -> Label | None:
    if type(value) is str:
        return value
    if not isinstance(value, list):
        return as_text(value)
    names = [as_text(member) or "" for member in value]
    if not all(map(str.strip, names)):
        raise TypeError("a list with an empty label")
    return tuple(names)


def as_text(value: Any) -> str | None:
    """Return a value as a CSV file spells it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: the value is neither text, number nor boolean; the message says what it is.
    """
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.1 of 32 bits is not 0.10000000149
    if type(value) not in _SPELLINGS:
        raise TypeError(describe_type(value))
    return _SPELLINGS[type(value)](value)


def _spell_integer(value: int) -> str:
    if value.bit_length() >= MOST_BITS:
        raise TypeError(describe_type(value))
    return str(value)


def _spell_float(value: float) -> str | None:
    if math.isnan(value):
        return None
    is_exact_integer = value.is_integer() and abs(value) < 2**53
    return str(int(value)) if is_exact_integer else repr(value)


_SPELLINGS: Final[dict[type, Callable[[Any], str | None]]] = {
    type(None): lambda _: None,
    str: str,
    bool: lambda value: str(value).lower(),
    int: _spell_integer,
    float: _spell_float,
    Decimal: "{:f}".format,
}


def describe_type(value: Any) -> str:
    """Return what a value is, for a message: `a list`, `a number`, `a value of the type date`."""
    return "null" if value is None else _NAMES.get(type(value), f"a value of the type {type(value).__name__}")
