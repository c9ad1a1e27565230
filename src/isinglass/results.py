"""Results of runs: as records, in files, and what they come from.

`result.json` holds the result of one run, and `results.jsonl` those of many, one object a line. A directory of many runs,
which `bench` fills and `report` and `submit` read:

DIR/
  results.jsonl               one RunResult or FailedRun a line, in the order in which they ended
  runs/NAME/                  what a run leaves; `model/` only where another run starts from it, or if asked for
  examples/TASK-SPLIT.jsonl   texts and label of each scored example, in the order of its file
  tasks/TASK.json             a task of the user's own, and digests of its sets

What a file says of a run is validated: all fields and no others, each of its type, of any schema version.
"""

import dataclasses
import json
import math
import os
import platform
import re
import subprocess
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeVar

from isinglass.baselines import Baseline, Gain
from isinglass.config import as_dict, identifying, resolve
from isinglass.errors import DataError
from isinglass.metrics import Metric
from isinglass.names import brief, printable, shortened

if TYPE_CHECKING:
    from pydantic import BaseModel

RESULTS: Final = "results.jsonl"
LARGEST_RESULTS: Final = 256 << 20  # bytes; enough for 80,000 runs
LONGEST_RECORD: Final = 1 << 20  # bytes; one has about 3 kB
MOST_DAMAGED: Final = 1000  # lines: a file with more of them is another program's
LARGEST_LENGTH: Final = 1 << 20  # tokens: the report draws an axis of that length
SCHEMA_VERSION: Final = 2  # 1 had no field of that name, and `split`, `metrics` and `majority` in place of `scores`
# Of one split: name -> score. Of several (MNLI): split -> name -> score. None stands for NaN, which JSON lacks.
FlatScores = dict[str, float | None] | dict[str, dict[str, float | None]]
REPEATED_SETTINGS: Final = ("backend", "model", "seed", "recipe", "compile")  # fields of a result that `config` holds too
VERSION_1_KEYS: Final = ("split", "metrics", "majority")
# what the clock covers: one definition, for every figure in seconds or per second
CLOCK: Final = (
    "Training time is the wall clock of all training steps with their input, the device synchronised before each reading; "
    "tokenizing, evaluation and writing are not in it. Compile time falls in the first epoch and is part of it."
)
REPORTED: Final = "isinglass numpy tokenizers torch tensorflow tensorflow_cpu keras jax scikit-learn scipy"
_FROM_HUB: Final = re.compile(r"The model (\S+) is the hub's at commit (\w+)\.", re.ASCII)  # a note of schema version 1
Record = TypeVar("Record", "RunResult", "FailedRun")


@dataclass(frozen=True)
class Score:
    """A metric on one split.

    Attributes:
        value: None where it is not defined (NaN).
        majority: that of always predicting the most frequent label, or the mean of a regression; None for NaN.
    """

    value: float | None
    majority: float | None

    @staticmethod
    def of(value: float, majority: float) -> "Score":
        """Return the score of two numbers, either of which may be NaN."""
        return Score(*(None if math.isnan(number) else number for number in (value, majority)))


@dataclass(frozen=True, kw_only=True)
class HubData:
    """A data set of the hub that a run was trained on: its repository, its subset and the commit of its files."""

    repo: str
    subset: str
    commit: str

    @property
    def pinned(self) -> str:
        """The name that stands for these files for ever, `USER/NAME@COMMIT`."""
        return f"{self.repo}@{self.commit}"


Scores = dict[str, dict[Metric, Score]]
"""Split -> metric -> score."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Attributes:
        precision: what ran.
        scores: split -> metric -> score, for each scored split and metric of the task.
        collapsed: whether every example of a split got the same label (always false for regression).
        examples: split -> rows.
        train_seconds: wall clock of all training steps with their input; tokenizing and evaluation are not in it.
        epoch_seconds: the same of each epoch.
        epoch_scores: of each epoch on the dev sets, the score that chose the best one, where that was requested.
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
        device: in words, with its threads.
        versions: of Python and of each package that a result depends on.
        git_commit: of the source tree that isinglass ran from; None when installed from a package.
        model_commit: of the model's repository on the hub; None if it did not come from there.
        dataset: of the hub, from which the data came; None for files and published tasks.
        processes: number of processes that shared each step.
        parts: number of micro-batches into which steps were cut in the end, because memory was short; else 1.
        resumed_at: the steps after which the run was resumed.
        baselines: name -> a simple model on the same rows, and how far the run is above it; empty where none was trained.
        threshold: probability above which an example of a multi-label task has a label; None for other tasks.
        config: all settings.
        start_from: the task on which the run's first weights had been fine-tuned before (MNLI for RTE, say), else None.
        predictions: split -> file of the model's predictions (`ax`: the diagnostic set's), relative to the file that holds
            this result.
        notes: what else a reader must know, and every slower path taken: prose, never parsed.
    """

    task: str
    backend: str
    precision: str
    compile: bool
    xla: bool
    model: str
    seed: int
    recipe: str
    scores: Scores
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
    model_commit: str | None = None
    dataset: HubData | None = None
    processes: int = 1
    parts: int = 1
    resumed_at: list[int] = field(default_factory=list)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    threshold: float | None = None

    @property
    def split(self) -> str:
        """The scored splits, joined by `+`, as in schema version 1."""
        return "+".join(self.scores)

    @property
    def metrics(self) -> FlatScores:
        """The values, as in schema version 1."""
        return self._flat(lambda score: score.value)

    @property
    def majority(self) -> FlatScores:
        """The values of the baseline, as in schema version 1."""
        return self._flat(lambda score: score.majority)

    def _flat(self, part: Callable[[Score], float | None]) -> FlatScores:
        flat = {split: {str(metric): part(score) for metric, score in found.items()} for split, found in self.scores.items()}
        return next(iter(flat.values())) if len(flat) == 1 else flat

    def each_score(self) -> Iterator[tuple[str, Metric, Score]]:
        """Yield each score with its split and metric."""
        for split, scores in self.scores.items():
            for metric, score in scores.items():
                yield split, metric, score

    def to_json(self) -> str:
        """Return one line of JSON, in which scripts find the keys of schema version 1 too."""
        version_1 = {name: getattr(self, name) for name in VERSION_1_KEYS}
        values = {"schema_version": SCHEMA_VERSION} | dataclasses.asdict(self) | version_1
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def read(path: Path) -> "RunResult":
        """Read a run's `result.json`.

        Raises:
            DataError: it is missing, not JSON, or not of this version's fields.
        """
        with _opened(path, "; a run directory holds one") as stream:
            content = stream.read(LONGEST_RECORD + 1)
        try:
            return _validated(RunResult, _parsed(content))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is not a result of this version of isinglass: {_reason(error)}.") from None


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that ended with an error: `config` and `start_from` as in RunResult, `error` in one sentence."""

    config: dict[str, Any]
    start_from: str | None
    error: str

    def to_json(self) -> str:
        """Return one line of JSON."""
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


def read_records(directory: Path) -> Records:
    """Read `directory/results.jsonl`. Of several results of one run the last counts.

    Raises:
        DataError: there is no such file, it cannot be read, or it is too large or too damaged to be one.
    """
    path = directory / RESULTS
    results: dict[str, RunResult] = {}
    failed: dict[str, FailedRun] = {}
    damaged: list[DamagedLine] = []
    for number, line in _numbered_lines(path):
        try:
            record = _validated_record(line)
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


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, counted from 1; of a line that is too long to be a record, its beginning."""
    with _opened(path, f": `isinglass bench --output {path.parent}` writes one") as stream:
        if os.fstat(stream.fileno()).st_size > LARGEST_RESULTS:
            raise DataError(f"{path} has more than {LARGEST_RESULTS >> 20} MiB; records of some kB each were expected.")
        number = 0
        while line := stream.readline(LONGEST_RECORD + 1):
            number += 1
            if line.strip():
                yield number, line.removesuffix(b"\n")
            while len(line) > LONGEST_RECORD and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_RECORD + 1)


@contextmanager
def _opened(path: Path, writer: str) -> Iterator[BinaryIO]:
    """Open a file for reading; refuse a pipe or a device, which might never end. `writer` says in words where it comes from.

    Raises:
        DataError: it is missing, or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a directory, a pipe or a device; a file was expected.")
    try:
        with open(path, "rb") as stream:
            yield stream
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist{writer}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def file_below(directory: Path, named: str) -> Path:
    """Return the file that a result names. A result may come from a stranger: with links followed, the file must lie there.

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
    """Return what identifies a run: all settings but the paths of the data, and the task of its first weights."""
    return json.dumps([identifying(config), start_from], sort_keys=True)


def _reason(error: Exception) -> str:
    """Return the message of an error on one short line: it may quote a complete file."""
    return shortened(printable(" ".join(str(error)[:1000].split())), 200)


def _validated_record(line: bytes) -> RunResult | FailedRun:
    """Return the record of one line of JSON, its settings completed.

    Raises:
        TypeError, ValueError: it is not such a record; the message says what is wrong with it.
    """
    values = _parsed(line)
    if not isinstance(values, dict):
        raise ValueError("it is JSON, but no object")
    record = _validated(FailedRun, values["failed"]) if "failed" in values else _validated(RunResult, values)
    return dataclasses.replace(record, config=_checked_settings(record))


def _parsed(line: bytes) -> Any:
    """Return the value of one line of JSON, whose numbers lie between -2^63 and 2^63.

    Raises:
        ValueError: it is not JSON, longer than LONGEST_RECORD, or nested too deeply.
    """
    if len(line) > LONGEST_RECORD:
        raise ValueError(f"it has more than {LONGEST_RECORD >> 20} MiB")
    try:
        return json.loads(line.decode("utf-8"), parse_int=partial(_bounded, int), parse_float=partial(_bounded, float))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _bounded(number: Callable[[str], float], text: str) -> float:
    value = number(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"the number {brief(text)} is too large")
    return value


def _validated(record: type[Record], values: Any) -> Record:
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
    for split, scores in fields.get("scores", {}).items():
        fields["scores"][split] = {Metric(name): Score(**score) for name, score in scores.items()}
    for name, baseline in fields.get("baselines", {}).items():
        differences = {split: Gain(**gain) for split, gain in baseline["differences"].items()}
        fields["baselines"][name] = Baseline(**baseline | {"differences": differences})
    if fields.get("dataset") is not None:
        fields["dataset"] = HubData(**fields["dataset"])
    return record(**fields)


@cache
def _model_of(record: type[Any]) -> "type[BaseModel]":
    """Return the fields of a record as a model that validates them strictly."""
    from pydantic import ConfigDict, create_model

    types = typing.get_type_hints(record)
    names: Any = Literal[tuple(map(str, Metric))]
    if "config" in types:
        types["config"] = dict[str, str | int | float | bool | list[str] | None]
    if record is RunResult:
        types["scores"] = dict[str, dict[str, dict[Literal["value", "majority"], float | None]]]
        types["dataset"] = dict[Literal["repo", "subset", "commit"], str] | None
        types["baselines"] = dict[str, _model_of(Baseline)]  # type: ignore[misc]  # made at run time
    if record is Baseline:
        types["differences"] = dict[str, _model_of(Gain)]  # type: ignore[misc]
        types["metrics"] = dict[str, dict[names, float | None]]
    if record is Gain:
        types["metric"] = names
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
    for name in ("task", *REPEATED_SETTINGS) if isinstance(record, RunResult) else ():
        if getattr(record, name) != config[name]:
            raise TypeError(f"{name} is {brief(getattr(record, name))}, but {brief(config[name])} in config")
    return config


def source_commit() -> str | None:
    """Return the commit of this package's source tree, followed by `+` if files differ; None if it has no such tree."""
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
    """Return the version of Python and of each installed package that a result depends on."""
    found = {"python": platform.python_version()}
    for name in REPORTED.split():
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
