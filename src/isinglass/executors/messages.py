"""What travels between an executor and its workers: a request, and the messages that answer it, one line of JSON each.

    executor -> worker    {"TrialRequest": {"runs": [{"config": {...}, ...}], ...}}
    worker -> executor    {"Progressed": {"progress": {"stage": "train", "done": 40, ...}}}
                          {"EpochScored": {"scores": [0.81]}}
                          {"TrialFinished": {"scores": [0.81, 0.84], "error": null}}

A worker gets one request. It sends any number of updates, and last of all one answer.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Final, Self

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
class CheckpointLocation:
    """Where the checkpoints of a run lie, and how often one is written.

    Attributes:
        path: a directory, or a URL.
        every: an interval as `Interval.parse` takes it.
    """

    path: str
    every: str


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """What a worker is to do. `worker` names the module that does it, for `python -m`."""

    worker: ClassVar[str]

    runs: tuple[RunInputs, ...]

    def relocate(self, locate: Callable[[RunInputs], RunInputs]) -> Self:
        """Return the request with `locate` applied to the inputs of each of its runs."""
        return replace(self, runs=tuple(map(locate, self.runs)))


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(Request):
    """A request that trains one model. Without a location for checkpoints it starts from step 0 and writes none."""

    checkpoints: CheckpointLocation | None = None

    @property
    def run(self) -> RunInputs:
        """Return the inputs of its only run."""
        (run,) = self.runs
        return run


@dataclass(frozen=True, kw_only=True)
class RunRequest(TrainingRequest):
    """Train, predict and write one run of a bench, to `runs/NAME` in its directory.

    Attributes:
        start_from: name of the task on which `first_weights` were fine-tuned.
        keep_model: whether the model is written too.
        predict_test: whether the test sets are predicted.
    """

    worker: ClassVar[str] = "isinglass.bench.worker"

    name: str
    start_from: str | None
    keep_model: bool
    predict_test: bool


@dataclass(frozen=True, kw_only=True)
class TrialRequest(TrainingRequest):
    """Train one trial of a search, and score it after each epoch."""

    worker: ClassVar[str] = "isinglass.tuning.worker"


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest(Request):
    """Time a few steps of the first run, and count the tokens of all runs' tasks."""

    worker: ClassVar[str] = "isinglass.bench.worker"


# ---- updates -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Update(Message):
    """A message that is followed by others."""


@dataclass(frozen=True, kw_only=True)
class Started(Update):
    """The worker's process was started."""


@dataclass(frozen=True, kw_only=True)
class Progressed(Update):
    """How far the run is."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class EpochScored(Update):
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

_KINDS: Final[Mapping[str, type[Message]]] = {
    kind.__name__: kind
    for kind in (
        RunRequest,
        TrialRequest,
        CalibrationRequest,
        Started,
        Progressed,
        EpochScored,
        RunFinished,
        TrialFinished,
        Calibration,
        Failed,
    )
}


def to_plain(message: Message) -> dict[str, Any]:
    """Return a message as values that JSON knows: the name of its class, with its fields."""
    return {type(message).__name__: dataclasses.asdict(message)}


def from_plain(values: Mapping[str, Any]) -> Message:
    """Return the message that `to_plain` made the values of.

    Raises:
        ValueError: there is no such message, or its fields are of other types.
    """
    ((name, fields),) = values.items()
    if name not in _KINDS:
        raise ValueError(f"there is no message {name!r}")
    message: Message = _validator(name).validate_python(fields)
    return message


def to_line(message: Message) -> bytes:
    """Return a message as one line of JSON, which is ASCII: a path need not be UTF-8."""
    return json.dumps(to_plain(message)).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Return the message of one line.

    Raises:
        ValueError: as `from_plain`, or it is not JSON.
    """
    return from_plain(json.loads(line))


@cache
def _validator(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_KINDS[name])
