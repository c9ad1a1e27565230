"""Turn the values of a table or a list into texts and labels."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import singledispatch
from typing import Any, Final, TypeVar

import numpy as np

Label = str | tuple[str, ...]  # one label, or all labels of an example
_Converted = TypeVar("_Converted")

MOST_DIGITS: Final = 10_000  # bits of a whole number; Python spells longer ones slowly or not at all
_NAMES_OF_TYPES: Final = {
    type(None): "null",
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


class UnusableValue(Exception):  # noqa: N818 - raised again as a DataError that names the row
    """A value that is neither text nor label; the message says what it is, `index` which of the values."""

    def __init__(self, index: int, description: str) -> None:
        super().__init__(description)
        self.index = index


def text_list(values: Sequence[Any]) -> list[str | None]:
    """Return N values as texts: None for None and NaN, numbers and booleans as `as_text` spells them.

    Raises:
        UnusableValue: a value is something else, or holds half of a surrogate pair.
    """
    with suppress(TypeError, UnicodeEncodeError):
        "".join(values).encode()  # every value is a text
        return [*values]
    return _convert_all(_as_encodable_text, values)


def label_list(values: Sequence[Any]) -> list[Label | None]:
    """Return N labels: a name for each value, a tuple of names for a list, None for None and NaN.

    Raises:
        UnusableValue: a value is something else.
    """
    return _convert_all(_as_label, values)


def _convert_all(convert: Callable[[Any], _Converted], values: Sequence[Any]) -> list[_Converted]:
    converted: list[_Converted] = []
    try:
        for value in values:
            converted.append(convert(value))
    except TypeError as error:
        raise UnusableValue(len(converted), str(error)) from None
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


@singledispatch
def as_text(value: Any) -> str | None:
    """Return a value as a CSV file spells it: `true`, `1` (also for 1.0), `0.5`; None for None and NaN.

    Raises:
        TypeError: the value is neither text, number nor boolean; the message says what it is.
    """
    raise TypeError(describe_type(value))


@as_text.register(type(None))
def _(value: None) -> None:
    return value


@as_text.register
def _(value: str) -> str:
    return str(value)


@as_text.register
def _(value: bool) -> str:
    return str(value).lower()


@as_text.register
def _(value: int) -> str:
    if value.bit_length() >= MOST_DIGITS:
        raise TypeError(describe_type(value))
    return str(value)


@as_text.register
def _(value: float) -> str | None:
    if math.isnan(value):
        return None
    is_exact_integer = value.is_integer() and abs(value) < 2**53
    return str(int(value)) if is_exact_integer else repr(value)


@as_text.register
def _(value: Decimal) -> str:
    return f"{value:f}"


@as_text.register
def _(value: np.floating) -> str | None:
    return as_text(float(str(value)))  # 0.1 of 32 bits is not 0.10000000149


def describe_type(value: Any) -> str:
    """Return what a value is, for a message: `a list`, `a number`, `a value of the type date`."""
    return _NAMES_OF_TYPES.get(type(value), f"a value of the type {type(value).__name__}")
