"""Validate what a file says of a run: all fields and no others, each of its type, of any schema version."""

import dataclasses
import functools
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from isinglass.config import as_dict, resolve
from isinglass.metrics import Metric
from isinglass.names import brief
from isinglass.results.record import SCHEMA_VERSION, VERSION_1_KEYS, FailedRun, RunResult, Score

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST_RECORD: Final = 1 << 20  # bytes; one has about 3 kB
LARGEST_LENGTH: Final = 1 << 20  # tokens: the report draws an axis of that length
_FROM_HUB: Final = re.compile(r"The model (\S+) is the hub's at commit (\w+)\.", re.ASCII)  # a note of schema version 1


def validated_record(line: bytes) -> RunResult | FailedRun:
    """Return the record of one line of JSON, its settings completed.

    Raises:
        TypeError, ValueError: it is not such a record; the message says what is wrong with it.
    """
    values = parsed(line)
    if not isinstance(values, dict):
        raise ValueError("it is JSON, but no object")
    record = validated(FailedRun, values["failed"]) if "failed" in values else validated(RunResult, values)
    return dataclasses.replace(record, config=_checked_settings(record))


def parsed(line: bytes) -> Any:
    """Return the value of one line of JSON, whose numbers lie between -2^63 and 2^63.

    Raises:
        ValueError: it is not JSON, longer than LONGEST_RECORD, or nested too deeply.
    """
    if len(line) > LONGEST_RECORD:
        raise ValueError(f"it has more than {LONGEST_RECORD >> 20} MiB")
    try:
        return json.loads(line.decode("utf-8"), parse_int=_bounded(int), parse_float=_bounded(float))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


Number = TypeVar("Number", int, float)
Record = TypeVar("Record", RunResult, FailedRun)


def _bounded(number: type[Number]) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        value = number(text)
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"the number {brief(text)} is too large")
        return value

    return parse


def validated(record: type[Record], values: Any) -> Record:
    """Return the record of what a file says, which must have all of its fields and no others, each of its type.

    Raises:
        TypeError, ValueError: with the field's name.
    """
    from pydantic import ValidationError

    if not isinstance(values, dict):
        raise TypeError(f"it is {type(values).__name__}, not a mapping of fields")
    if record is RunResult:
        values = _upgraded(values)
    try:
        fields = _model_of(record)(**values).model_dump(exclude_unset=True)  # type: ignore[arg-type]  # a class has a hash
    except ValidationError as error:
        raise TypeError(_sentence(error.errors()[0])) from None
    if record is RunResult:
        fields["scores"] = {
            split: {Metric(metric): Score(**score) for metric, score in scores.items()}
            for split, scores in fields["scores"].items()
        }
    return record(**fields)


@functools.cache
def _model_of(record: type[Any]) -> "type[BaseModel]":
    """Return the fields of a record as a model that validates them strictly."""
    from pydantic import ConfigDict, create_model

    types = typing.get_type_hints(record)
    types["config"] = dict[str, str | int | float | bool | list[str] | None]
    if record is RunResult:
        types["scores"] = dict[str, dict[str, dict[Literal["value", "majority"], float | None]]]
    fields: dict[str, Any] = {}
    for one in dataclasses.fields(record):
        is_required = one.default is one.default_factory is dataclasses.MISSING
        fields[one.name] = (types[one.name], ... if is_required else None)
    return create_model(record.__name__, __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False), **fields)


def _sentence(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a field, from an error of pydantic."""
    field, *inner = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"there is no field {brief(field)}"
    if error["type"] == "missing":
        return f"the field {field} is missing"
    found = type(error["input"]).__name__
    if field == "config" and inner:
        return f"{brief(inner[0])} in config is {found}; texts, true, false, null or a number were expected"
    place = "".join(f"[{brief(part)}]" for part in inner)
    return f"{field}{place} is {found}; {error['msg'].removeprefix('Input should be ')} was expected"


def _upgraded(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a result of any schema version as those of the newest.

    Raises:
        TypeError, ValueError: the version is unknown, or the scores are not those of the splits.
    """
    others = {name: value for name, value in values.items() if name not in ("schema_version", *VERSION_1_KEYS)}
    version = values.get("schema_version", 1)
    if version == SCHEMA_VERSION:
        return others
    if version != 1:
        raise ValueError(f"schema_version is {brief(version)}; {SCHEMA_VERSION} is the newest known: update isinglass")
    for name in VERSION_1_KEYS:
        if name not in values:
            raise TypeError(f"the field {name} is missing")
    notes = [note for note in values.get("notes") or () if isinstance(note, str)]
    found = [match for match in map(_FROM_HUB.fullmatch, notes) if match and match[1] == values.get("model")]
    return others | {"scores": _scores_of_version_1(values), "model_commit": found[0][2] if found else None}


def _scores_of_version_1(values: Mapping[str, Any]) -> dict[str, Any]:
    message = f"metrics and majority have not the same scores of {brief(values['split'])}"
    try:
        splits = values["split"].split("+")
        metrics, majority = (
            values[name] if len(splits) > 1 else {splits[0]: values[name]} for name in ("metrics", "majority")
        )
        if not {*metrics} == {*majority} == {*splits} or any({*metrics[one]} != {*majority[one]} for one in splits):
            raise ValueError(message)
        return {
            split: {name: {"value": value, "majority": majority[split][name]} for name, value in metrics[split].items()}
            for split in filter(None, splits)  # the model of an estimator may have been scored on nothing
        }
    except (AttributeError, KeyError, TypeError):
        raise ValueError(message) from None


def _checked_settings(record: RunResult | FailedRun) -> dict[str, Any]:
    """Return the settings, completed by the defaults of those that an earlier version did not have.

    Raises:
        TypeError, ConfigError: with the setting's name.
    """
    if "task" not in record.config:
        raise TypeError("the setting task is missing in config")
    given = {name: value for name, value in record.config.items() if name != "task"}
    settings = as_dict(resolve(task=str(record.config["task"]), recipe=record.config.get("recipe"), flags=given))
    config = settings | record.config
    for name in config:
        if name not in settings or settings[name] != config[name]:
            raise TypeError(f"{name} in config is {brief(config[name])}; {brief(settings.get(name))} was expected")
    if config["max_length"] > LARGEST_LENGTH:
        raise TypeError(f"max_length in config is {config['max_length']}")
    for name in ("task", "backend", "model", "seed", "recipe", "compile") if isinstance(record, RunResult) else ():
        if getattr(record, name) != config[name]:
            raise TypeError(f"{name} is {brief(getattr(record, name))}, but {brief(config[name])} in config")
    return config
