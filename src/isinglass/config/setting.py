"""Declare a setting once: type, default, limits, meaning and flag stand in the field of a dataclass.

Command line, config files, validation, documents and estimators all read the same declaration:

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Example(Settings):
    ...     epochs: int = setting(3, "Passes over the training set.", limits=AT_LEAST_1, panel=Panel.TRAINING)
    >>> settings_of(Example)["epochs"].parse("5")
    5
    >>> Example(epochs=0)
    Traceback (most recent call last):
    isinglass.errors.ConfigError: epochs is 0; it must be at least 1.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final, Literal, TypeVar

from isinglass.errors import ConfigError
from isinglass.names import brief, did_you_mean

Default = TypeVar("Default")


class Panel(StrEnum):
    """The panels in which `isinglass train --help` shows its options, in this order."""

    MOST_USED = "Most used"
    DATA = "Data"
    MODEL = "Model"
    TRAINING = "Training"
    SPEED = "Speed"
    OUTPUT = "Output"


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting may take, and how a message says so: "it must be <text>"."""

    text: str
    contain: Callable[[float], bool]


AT_LEAST_1: Final = Limits("at least 1", lambda value: value >= 1)
NOT_NEGATIVE: Final = Limits("0 or above", lambda value: 0 <= value < math.inf)
POSITIVE: Final = Limits("above 0", lambda value: 0 < value < math.inf)
ZERO_TO_BELOW_1: Final = Limits("from 0 to below 1", lambda value: 0 <= value < 1)
BETWEEN_0_AND_1: Final = Limits("between 0 and 1", lambda value: 0 < value < 1)
ABOVE_0_TO_1: Final = Limits("above 0, and at most 1", lambda value: 0 < value <= 1)
UNSIGNED_63_BITS: Final = Limits("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)


@dataclass(frozen=True)
class Switch:
    """An environment variable that stands for a value of the setting, where the backend is tensorflow."""

    variable: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A declared setting.

    Attributes:
        name: the name of the field.
        type: `bool`, `int`, `float`, `str`, or `tuple` for several names.
        choices: the only values, where they are few.
        is_optional: whether the value may be None.
        default: the value without a recipe.
        unset: what the value None means.
        meaning: one or two sentences, shown by `--help` and in the reference.
        limits: the range of a number.
        panel: where `--help` shows the option; None: it has no flag, only config files and `--set` reach it.
        metavar: what `--help` writes for the value.
        is_path_of_data: whether it says where the data lie, which does not make two runs different.
        switch: the environment variable that stands for a value.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    is_optional: bool
    default: Any
    meaning: str
    unset: str | None
    limits: Limits | None
    panel: Panel | None
    metavar: str | None
    is_path_of_data: bool
    switch: Switch | None

    @classmethod
    def of(cls, field: "dataclasses.Field[Any]", hint: Any) -> "Setting":
        """Read the declaration of a field with the resolved type `hint`."""
        alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = next(kind for kind in alternatives if kind is not types.NoneType)
        is_choice = typing.get_origin(plain) is Literal
        return cls(
            name=field.name,
            type=str if is_choice else typing.get_origin(plain) or plain,
            choices=typing.get_args(plain) if is_choice else (),
            is_optional=types.NoneType in alternatives,
            default=field.default,
            **field.metadata,
        )

    @property
    def flag(self) -> str:
        """Return how the command line spells the setting, `--learning-rate`."""
        return f"--{self.name.replace('_', '-')}"

    def parse(self, value: Any) -> Any:
        """Return `value`, from a flag, a file or `--set` text, in the type of the setting.

        Raises:
            ConfigError: it cannot be read as that type.
        """
        if self.is_optional and (value is None or (value == "none" and self.type is not str)):  # a file may be called none
            return None
        if self.choices:
            return value
        convert, expected = _CONVERSIONS[self.type]
        try:
            return convert(value)
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ConfigError(f"{self.name} is {brief(value)}; {expected} was expected.") from None

    def check(self, value: Any) -> None:
        """Raise a ConfigError where `value` is not among the choices or not within the limits."""
        if value is None and self.is_optional:
            return
        if self.choices and value not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            raise ConfigError(f"{self.name} is {brief(value)}{hint}; it must be one of {', '.join(self.choices)}.")
        if self.limits and not self.limits.contain(value):
            raise ConfigError(f"{self.name} is {value}; it must be {self.limits.text}.")


def setting(
    default: Default,
    meaning: str,
    *,
    unset: str | None = None,
    limits: Limits | None = None,
    panel: Panel | None = None,
    metavar: str | None = None,
    is_path_of_data: bool = False,
    switch: Switch | None = None,
) -> Default:
    """Declare a setting as the field of a dataclass; `Setting` explains the arguments."""
    declaration = {
        "meaning": meaning,
        "unset": unset,
        "limits": limits,
        "panel": panel,
        "metavar": metavar,
        "is_path_of_data": is_path_of_data,
        "switch": switch,
    }
    return dataclasses.field(default=default, metadata=declaration)


class Settings:
    """A group of settings, checked when an instance is created."""

    def __post_init__(self) -> None:
        for declared in settings_of(type(self)).values():  # type: ignore[arg-type]  # mypy: a class is hashable
            declared.check(getattr(self, declared.name))


@cache
def settings_of(group: type[Any]) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares or inherits: name -> declaration."""
    hints = typing.get_type_hints(group)
    return {field.name: Setting.of(field, hints[field.name]) for field in dataclasses.fields(group)}


def _boolean(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


def _whole_number(value: Any) -> int:
    if not isinstance(value, str) and value != int(value):
        raise ValueError
    return int(value)


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(names)


_CONVERSIONS: Final[Mapping[type, tuple[Callable[[Any], Any], str]]] = {
    bool: (_boolean, "true or false"),
    int: (_whole_number, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
    tuple: (_names, "a name or a list of names"),
}
