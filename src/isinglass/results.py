"""What a run reports, as one JSON object, and files of many such: one object a line.

A directory of many runs, which `bench` fills and `report` and `submit` read:

DIR/
  results.jsonl               one RunResult or FailedRun a line, in the order in which they ended
  runs/NAME/                  what a run leaves; `model/` only where another run starts from it, or if asked for
  examples/TASK-SPLIT.jsonl   texts and label of each scored example, in the order of its file
  tasks/TASK.json             a task of the user's own, and digests of its sets
"""

import dataclasses
import json
import math
import os
import platform
import subprocess
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from isinglass.config import as_dict, resolve, without_places
from isinglass.errors import DataError
from isinglass.names import brief, printable

# One dev set: name -> score. Several (MNLI): split -> name -> score. None stands for NaN, which JSON lacks.
Metrics = dict[str, float | None] | dict[str, dict[str, float | None]]

_REPORTED: Final = (
    "isinglass",
    "numpy",
    "tokenizers",
    "torch",
    "tensorflow",
    "tensorflow_cpu",
    "keras",
    "jax",
    "scikit-learn",
    "scipy",
)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One finished run.

    Attributes:
        split: what was scored; MNLI's two dev sets joined by `+`.
        precision: what ran.
        metrics, majority: keyed `accuracy f1 matthews pearson spearman`, those that the task has; where several splits
            were scored, one such object for each. `majority` is what always answering the most frequent label scores.
        collapsed: whether every example of a split got the same label (always false for regression).
        examples: split -> rows.
        train_seconds: wall clock of all training steps with their input; tokenizing and evaluation are not in it.
        epoch_seconds: the same of each epoch.
        epoch_scores: of each epoch on the dev sets, the score that chose the best one, where that was asked for.
        compile, xla: whether torch.compile, or XLA, compiled the training step.
        compile_seconds: of `train_seconds`, the first step of each shape when tracing or compiling; else 0.
        compilations: how many training programs were traced, compiled or recorded.
        evaluation_seconds: wall clock of predicting all scored splits.
        examples_per_second, tokens_per_second: in training; tokens are real ones, never padding.
        truncated_share: of the training examples, those cut to `max_length`.
        padding_avoided: of the tokens that padding every training example to `max_length` would make, the share that
            was not computed.
        train_lengths: how many training examples have 0, 1, 2, ... tokens.
        peak_memory_bytes: of the process (CPU) or the device's tensors (GPU).
        git_commit: of the source tree that isinglass ran from; None when installed from a package.
        config: all settings.
        start_from: the task on which the run's first weights had been fine-tuned before (MNLI for RTE, say), else None.
        predictions: split -> file of the model's answers (`ax`: the diagnostic set's), relative to the file that holds
            this result.
        notes: what else a reader must know, and every slower path taken.
    """

    task: str
    split: str
    backend: str
    precision: str
    compile: bool
    xla: bool
    model: str
    seed: int
    recipe: str
    metrics: Metrics
    majority: Metrics
    collapsed: bool
    examples: dict[str, int]
    train_seconds: float
    epoch_seconds: list[float]
    compile_seconds: float
    compilations: int
    evaluation_seconds: float
    examples_per_second: float
    tokens_per_second: float
    truncated_share: float
    padding_avoided: float
    train_lengths: list[int]
    peak_memory_bytes: int
    device: str
    versions: dict[str, str]
    git_commit: str | None
    config: dict[str, Any]
    start_from: str | None
    predictions: dict[str, str]
    notes: list[str]
    epoch_scores: list[float | None] = field(default_factory=list)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @staticmethod
    def read(path: Path) -> "RunResult":
        """Read a run's `result.json`.

        Raises:
            DataError: it is missing, not JSON, or not of this version's fields.
        """
        try:
            with _opened(path) as stream:
                return _made(RunResult, _parsed(stream.read(LONGEST_RECORD + 1)))
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; a run directory holds one.") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is not a result of this version of isinglass: {_reason(error)}.") from None


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that ended with an error: `config` and `start_from` as in RunResult, `error` in one sentence."""

    config: dict[str, Any]
    start_from: str | None
    error: str

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"failed": dataclasses.asdict(self)}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class DamagedLine:
    """A line of `results.jsonl` that is no record: `number` from 1, `reason` in words."""

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Records:
    """All of a `results.jsonl`: finished runs, those that failed and have not been finished since, and what is damaged."""

    results: list[RunResult]
    failed: list[FailedRun]
    damaged: list[DamagedLine]


RESULTS: Final = "results.jsonl"
LONGEST_RECORD: Final = 1 << 20  # bytes; one has some 3 kB
LARGEST_RESULTS: Final = 256 << 20  # bytes; enough for 80,000 runs
LARGEST_LENGTH: Final = 1 << 20  # tokens: the report draws an axis of that length
MOST_DAMAGED: Final = 1000  # lines: a file with more of them is another program's


def read_records(directory: Path) -> Records:
    """Read `directory/results.jsonl`. Of several results of one run the last counts.

    Raises:
        DataError: there is no such file, it cannot be read, or it is too large or too damaged to be one.
    """
    path = directory / RESULTS
    results: dict[str, RunResult] = {}
    failed: dict[str, FailedRun] = {}
    damaged: list[DamagedLine] = []
    for number, line in _numbered_lines(path, f"`isinglass bench --output {directory}` writes one"):
        try:
            record = _record(line)
            key = run_key(record.config, record.start_from)
        except (ValueError, TypeError) as error:
            damaged.append(DamagedLine(number=number, reason=_reason(error)))
            if len(damaged) > MOST_DAMAGED:
                raise DataError(
                    f"{path}: more than {MOST_DAMAGED:,} lines are no records, the first of them line {damaged[0].number}; "
                    f"the file is not what `isinglass bench` writes."
                ) from None
            continue
        if isinstance(record, FailedRun):
            failed[key] = record
        else:
            results[key] = record
    return Records(
        results=list(results.values()),
        failed=[record for key, record in failed.items() if key not in results],
        damaged=damaged,
    )


def _numbered_lines(path: Path, advice: str) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, counted from 1; of a line that is too long to be a record, its beginning."""
    try:
        with _opened(path) as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST_RESULTS:
                raise DataError(f"{path} has more than {LARGEST_RESULTS >> 20} MiB; records of some kB each were expected.")
            number = 0
            while line := stream.readline(LONGEST_RECORD + 1):
                number += 1
                if line.strip():
                    yield number, line.removesuffix(b"\n")
                while len(line) > LONGEST_RECORD and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_RECORD + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: {advice}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _opened(path: Path) -> BinaryIO:
    """The file, to be read: a pipe or a device would never end."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a directory, a pipe or a device; a file was expected.")
    return open(path, "rb")


def file_below(directory: Path, named: str) -> Path:
    """The file that a result names. The result may come from a stranger: the file must lie there once links are followed.

    Raises:
        DataError: it is absolute, or leaves the directory.
    """
    try:
        path = Path(os.path.realpath(directory / named))
        leaves = Path(named).is_absolute() or not path.is_relative_to(os.path.realpath(directory))
    except ValueError:  # a NUL character, say
        leaves = True
    if leaves:
        raise DataError(
            f"{directory / RESULTS} names the file {brief(named)}; relative paths of files below {directory} were expected, "
            f"and no other file is read."
        )
    return path


def append_record(directory: Path, record: RunResult | FailedRun) -> None:
    """Append one line to `directory/results.jsonl`; it is on the disk when this returns."""
    with open(directory / RESULTS, "ab") as lines:
        lines.write(record.to_json().encode("utf-8", "backslashreplace") + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def run_key(config: Mapping[str, Any], start_from: str | None) -> str:
    """What makes two runs the same: all settings but where the data lie, and what the weights had seen before."""
    return json.dumps([without_places(config), start_from], sort_keys=True)


def _record(line: bytes) -> RunResult | FailedRun:
    values = _parsed(line)
    if not isinstance(values, dict):
        raise ValueError("it is JSON, but no object")
    record = _made(FailedRun, values["failed"]) if "failed" in values else _made(RunResult, values)
    return dataclasses.replace(record, config=_checked_settings(record))


def _parsed(line: bytes) -> object:
    if len(line) > LONGEST_RECORD:
        raise ValueError(f"it has more than {LONGEST_RECORD >> 20} MiB")
    try:
        return json.loads(line.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


Record = TypeVar("Record", RunResult, FailedRun)


def _made(record: type[Record], values: object) -> Record:
    """A record of what a file says: all of its fields and no others, each of its kind.

    Raises:
        TypeError, ValueError: with the field's name.
    """
    kinds = _KINDS[record]
    if not isinstance(values, dict):
        raise TypeError(f"it is {type(values).__name__}, not a mapping of fields")
    for one in dataclasses.fields(record):
        if one.name not in values and one.default_factory is dataclasses.MISSING:
            raise TypeError(f"the field {one.name} is missing")
    for name, value in values.items():
        if name not in kinds:
            raise TypeError(f"there is no field {brief(name)}")
        if not _fits(value, kinds[name]):
            expected = kinds[name].__name__ if isinstance(kinds[name], type) else kinds[name]
            raise TypeError(f"{name} is {type(value).__name__}; {expected} was expected")
    for name, value in values["config"].items():
        if not _fits(value, str | int | float | bool | list[str] | None):
            raise TypeError(
                f"{name} in config is {type(value).__name__}; texts, true, false, null or a number were expected"
            )
    made = record(**values)
    if isinstance(made, RunResult):
        _check_scores(made)
    return made


_KINDS: Final[Mapping[type[Any], Mapping[str, Any]]] = {one: typing.get_type_hints(one) for one in (RunResult, FailedRun)}


def _fits(value: object, kind: Any) -> bool:
    """Whether a value that JSON gave is of that kind, with all that it holds. Numbers are finite, and below 2^63."""
    if kind is Any:
        return True
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    inner = typing.get_args(kind)
    if isinstance(value, dict):
        return typing.get_origin(kind) is dict and all(_fits(one, inner[1]) for one in value.values())
    if isinstance(value, list):
        return typing.get_origin(kind) is list and all(_fits(one, inner[0]) for one in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return kind in (float, type(value)) and -(2**63) <= value < 2**63
    return kind is type(value)


def _check_scores(result: RunResult) -> None:
    """Each scored split has its metrics, and its majority's: who reads them looks them up by these names.

    Raises:
        ValueError: it is not so.
    """
    splits = result.split.split("+")
    several = len(splits) > 1
    if any(isinstance(found, dict) != several for one in (result.metrics, result.majority) for found in one.values()):
        raise ValueError(f"metrics or majority have not the form that {len(splits)} splits need")
    scores, majority = (by_split(one, splits) for one in (result.metrics, result.majority))
    if {*scores} != {*splits} or {*majority} != {*splits} or any({*scores[name]} != {*majority[name]} for name in splits):
        raise ValueError(f"metrics and majority have not the same scores of {brief(result.split)}")


def _checked_settings(record: RunResult | FailedRun) -> dict[str, Any]:
    """Settings that a run of this version can have had, a setting that an earlier version did not know at its default.

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


def _reason(error: Exception) -> str:
    """What an error says, on one line and not longer than a reader wants it: it may quote a whole file."""
    text = printable(" ".join(str(error)[:1000].split()))
    return text if len(text) <= 200 else f"{text[:200]}..."


def per_split(scores: Mapping[str, Mapping[str, float]]) -> Metrics:
    """Split -> metric -> score as `Metrics`: NaN becomes None, and a single split stands alone."""
    clean = {
        split: {name: None if math.isnan(value) else value for name, value in found.items()}
        for split, found in scores.items()
    }
    return next(iter(clean.values())) if len(clean) == 1 else clean


def by_split(metrics: Metrics, splits: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """The inverse of `per_split`."""
    return {splits[0]: metrics} if len(splits) == 1 else metrics  # type: ignore[dict-item, return-value]


def source_commit() -> str | None:
    """The commit of the source tree that this package runs from, `+` behind it if files differ from it; else None."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = [
            subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{found[0]}+" if found[1] else found[0]


def installed_versions() -> dict[str, str]:
    """Version of Python and of each installed package that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
