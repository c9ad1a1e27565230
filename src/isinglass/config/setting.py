"""Declare a setting once: a field of a dataclass has its type, default, limits and flag, and the text below it its meaning.

Command line, config files, validation and documents all read the same declaration:

    >>> class Example(Settings):
    ...     epochs: int = setting(3, Limits("at least 1", lambda value: value >= 1))
    >>> Example.declared()["epochs"].parse("5")
    5
    >>> Example(epochs=0)
    Traceback (most recent call last):
    isinglass.errors.ConfigError: epochs is 0; it must be at least 1.
"""

import ast
import dataclasses
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar

from isinglass.errors import ConfigError
from isinglass.names import brief, did_you_mean

Default = TypeVar("Default")
PANELS: Final = ("Most used", "Data", "Model", "Training", "Speed", "Output")
"""The panels in which `isinglass train --help` shows the options of settings, in this order."""


class Limits(NamedTuple):
    """The values that a setting may take, and how a message says so: "it must be <text>"."""

    text: str
    contain: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A declared setting.

    Attributes:
        name: the name of the field.
        type: `bool`, `int`, `float`, `str`, `Path`, or `tuple` for several names.
        choices: the only values, where they are few.
        is_optional: whether the value may be None.
        default: the value without a recipe.
        meaning: one or two sentences, shown by `--help` and in the reference.
        unset: what the value None, or no name, means.
        limits: the range of a number, or what texts are allowed.
        panel: where `isinglass train --help` shows the option; None: only config files and `--set` reach the setting.
        metavar: what `--help` writes for the value; None: it is a flag without value.
        is_path_of_data: whether it says where the data lie, which does not make two runs different.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    is_optional: bool
    default: Any
    meaning: str
    unset: str | None = None
    limits: Limits | None = None
    panel: str | None = None
    metavar: str | None = None
    is_path_of_data: bool = False

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
        convert, expected, _ = _TYPES[self.type]
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
            found = brief(value) if isinstance(value, str) else value
            raise ConfigError(f"{self.name} is {found}; it must be {self.limits.text}.")


def setting(default: Default, limits: Limits | None = None, **declaration: Any) -> Default:
    """Declare a setting as the field of a dataclass; `Setting` explains the arguments."""
    return dataclasses.field(default=default, metadata={"limits": limits, **declaration})


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
    """A group of settings: a frozen dataclass with keywords only, checked when an instance is created."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for name, setting in self.declared().items():
            setting.check(getattr(self, name))

    @classmethod
    @cache
    def declared(cls) -> Mapping[str, Setting]:
        """Return the settings of the group, inherited ones too: name -> declaration."""
        hints = typing.get_type_hints(cls)
        meanings: dict[str, str] = {}
        for base in cls.__mro__:
            meanings |= _meanings(base.__module__).get(base.__name__, {})
        fields = dataclasses.fields(cls)
        return {field.name: _read(field, hints[field.name], meanings) for field in fields if field.metadata}


def _read(field: "dataclasses.Field[Any]", hint: Any, meanings: Mapping[str, str]) -> Setting:
    is_optional = NoneType in typing.get_args(hint)
    plain = next(kind for kind in typing.get_args(hint) if kind is not NoneType) if is_optional else hint
    choices = typing.get_args(plain) if typing.get_origin(plain) is Literal else ()
    kind = str if choices else typing.get_origin(plain) or plain
    inferred = {"type": kind, "choices": choices, "is_optional": is_optional, "metavar": _TYPES[kind][2]}
    declared = {"name": field.name, "default": field.default, "meaning": meanings.get(field.name, "")}
    return Setting(**declared | inferred | field.metadata)


@cache
def _meanings(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return the text below each field of each class of a module: class -> field -> text. Only the source has it."""
    if not module.startswith("isinglass."):
        return {}
    loader: Any = sys.modules[module].__loader__
    body = ast.parse(loader.get_source(module) or "").body  # empty where only byte code is installed
    groups: list[Any] = [node for node in body if isinstance(node, ast.ClassDef)]
    meanings = {}
    for group in groups:
        texts = [pair for pair in pairwise(group.body) if tuple(map(type, pair)) == (ast.AnnAssign, ast.Expr)]
        meanings[group.name] = {field.target.id: " ".join(text.value.value.split()) for field, text in texts}
    return meanings


def _whole_number(value: Any) -> int:
    if not isinstance(value, str) and value != int(value):
        raise ValueError
    return int(value)


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(names)


# type -> how a value is read, what a message expects, and what `--help` writes for it
_TYPES: Final[Mapping[type, tuple[Callable[[Any], Any], str, str | None]]] = {
    bool: (lambda value: {"true": True, "false": False}[str(value).lower()], "true or false", None),
    int: (_whole_number, "a whole number", "N"),
    float: (float, "a number", "NUMBER"),
    str: (str, "text", "TEXT"),
    tuple: (_names, "a name or a list of names", "NAME"),
    Path: (Path, "a path", "PATH"),
}
