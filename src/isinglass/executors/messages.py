"""What travels between an executor and its workers: a request, and the messages that answer it, one line of JSON each.

    executor -> worker    {"TrialRequest": {"runs": [{"config": {...}, ...}], ...}}
    worker -> executor    {"Progressed": {"progress": {"stage": "train", "done": 40, ...}}}
                          {"EpochScored": {"scores": [0.81]}}
                          {"TrialFinished": {"scores": [0.81, 0.84], "error": null}}

A worker gets one request. It sends any number of updates, and last of all one answer.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from isinglass.config import TrainConfig, resolve
from isinglass.results import RunResult
from isinglass.training.observers import Progress


@dataclass(frozen=True, kw_only=True)
class Message:
    """Base class of all that travels. Unknown fields are refused."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


# ---- requests ----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """The settings of a run, and where its worker finds the files that they name.

    Attributes:
        config: all settings, as `config.as_dict` returns them. The result repeats them.
        relocated: the settings of data files that lie elsewhere for the worker, with their values there.
        first_weights: directory of the model to start from; None: the model that the settings name.
    """

    config: dict[str, Any]
    relocated: dict[str, Any] = field(default_factory=dict)
    first_weights: str | None = None

    def resolve(self) -> TrainConfig:
        """Return the settings to train by, with the paths that hold for the worker."""
        settings = self.config | self.relocated
        return resolve(task=settings.pop("task"), recipe=settings.pop("recipe"), flags=settings)


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """What a worker is to do.

    Attributes:
        handler: the function that does it, as `MODULE:NAME`: see `executors.worker`.
        runs: the only run, but for a calibration.
        checkpoints: a directory or a URL for the run's checkpoints; None: it has none, and starts from step 0.
        checkpoint_every: an interval as `Interval.parse` takes it.
    """

    handler: ClassVar[str]

    runs: tuple[RunInputs, ...]
    checkpoints: str | None = None
    checkpoint_every: str = "never"


@dataclass(frozen=True, kw_only=True)
class RunRequest(Request):
    """Train, predict and write one run of a bench, to `runs/NAME` in its directory.

    Attributes:
        start_from: name of the task on which `first_weights` were fine-tuned.
        keep_model: whether the model is written too.
        predict_test: whether the test sets are predicted.
    """

    handler: ClassVar[str] = "isinglass.bench.worker:perform_run"

    name: str
    start_from: str | None
    keep_model: bool
    predict_test: bool


@dataclass(frozen=True, kw_only=True)
class TrialRequest(Request):
    """Train one trial of a search, and score it after each epoch."""

    handler: ClassVar[str] = "isinglass.tuning.harness:perform_trial"


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest(Request):
    """Time a few steps of the first run, and count the tokens of all runs' tasks."""

    handler: ClassVar[str] = "isinglass.bench.worker:calibrate"


# ---- updates -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Started(Message):
    """The worker's process was started."""


@dataclass(frozen=True, kw_only=True)
class Progressed(Message):
    """How far the run is."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class EpochScored(Message):
    """The scores of a trial on its dev set after each epoch so far."""

    scores: tuple[float, ...]


# ---- answers -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answer(Message):
    """The last message of a worker."""


@dataclass(frozen=True, kw_only=True)
class RunFinished(Answer):
    """The result of a run of a bench. Its prediction files are named relative to the bench's directory."""

    result: RunResult


@dataclass(frozen=True, kw_only=True)
class TrialFinished(Answer):
    """The scores of a trial after each epoch; `error` is the message of a loss that diverged."""

    scores: tuple[float, ...]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Calibration(Answer):
    """What a few timed steps tell of an engine.

    Attributes:
        tokens_per_second: real tokens, in training.
        compile_seconds: the time of tracing and compiling.
        train_tokens, dev_tokens: name of a task -> number of tokens of its train set, and of its dev sets.
    """

    tokens_per_second: float
    compile_seconds: float
    train_tokens: dict[str, int]
    dev_tokens: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Failed(Answer):
    """The run failed: `error` says why. `signal` is the number of the signal that ended the worker, if one did."""

    error: str
    signal: int | None = None


# ---- JSON --------------------------------------------------------------


def to_line(message: Message) -> bytes:
    """Return a message as one line of JSON. It is ASCII, because a path need not be UTF-8."""
    return json.dumps({type(message).__name__: dataclasses.asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Return the message of one line.

    Raises:
        ValueError: it is not JSON, there is no such message, or its fields are of other types.
    """
    ((name, fields),) = json.loads(line).items()
    validators = _validators()
    if name not in validators:
        raise ValueError(f"there is no message {name!r}")
    message: Message = validators[name].validate_python(fields)
    return message


@cache
def _validators() -> dict[str, Any]:
    from pydantic import TypeAdapter

    requests = (RunRequest, TrialRequest, CalibrationRequest)
    answers = (Started, Progressed, EpochScored, RunFinished, TrialFinished, Calibration, Failed)
    return {kind.__name__: TypeAdapter(kind) for kind in (*requests, *answers)}
