"""What a run reports, as one JSON object, and files of many such: one object a line.

A directory of many runs, which `bench` fills and `report` and `submit` read:

DIR/
  results.jsonl               one RunResult or FailedRun a line, in the order in which they ended
  runs/NAME/                  what a run leaves; `model/` only where another run starts from it, or if asked for
  examples/TASK-SPLIT.jsonl   texts and label of each scored example, in the order of its file
"""

import dataclasses
import json
import math
import os
import platform
import subprocess
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from isinglass.config import resolve
from isinglass.errors import DataError

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
        compile, xla: whether torch.compile, or XLA, compiled the training step.
        compile_seconds: of `train_seconds`, the first step of each shape when tracing or compiling; else 0.
        compilations: how many training programs were traced or compiled.
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
            values = json.loads(path.read_text(encoding="utf-8"))
            return RunResult(**values)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist; a run directory holds one.") from None
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is not a result of this version of isinglass: {error}.") from None


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


def read_records(directory: Path) -> Records:
    """Read `directory/results.jsonl`. Of several results of one run the last counts.

    Raises:
        DataError: there is no such file.
    """
    path = directory / RESULTS
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: `isinglass bench --output {directory}` writes one.") from None
    results: dict[str, RunResult] = {}
    failed: dict[str, FailedRun] = {}
    damaged: list[DamagedLine] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _record(line)
            key = run_key(record.config, record.start_from)
        except (ValueError, TypeError, KeyError) as error:
            damaged.append(DamagedLine(number=number, reason=" ".join(str(error).split())))
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
            f"{directory / RESULTS} names the file {named!r}; relative paths of files below {directory} were expected, and "
            f"no other file is read."
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
    settings = {name: value for name, value in config.items() if name != "data_dir"}
    return json.dumps([settings, start_from], sort_keys=True)


def _record(line: bytes) -> RunResult | FailedRun:
    values = json.loads(line.decode("utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it is JSON, but no object")
    record = FailedRun(**values["failed"]) if "failed" in values else RunResult(**values)
    _check_kinds(record)
    return record


def _check_kinds(record: RunResult | FailedRun) -> None:
    """Refuse a record whose fields are not of their kind: what it says comes from a file.

    Raises:
        TypeError, ConfigError: with the field's name.
    """
    for name, kind in typing.get_type_hints(type(record)).items():
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        plain = tuple({typing.get_origin(option) or option for option in options})
        value = getattr(record, name)
        if not isinstance(value, (*plain, int) if float in plain else plain):
            raise TypeError(f"{name} is {type(value).__name__}")
    resolve(task=str(record.config.get("task")), flags={k: v for k, v in record.config.items() if k != "task"})
    texts = record.predictions.values() if isinstance(record, RunResult) else ()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("predictions has something other than file names")


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
