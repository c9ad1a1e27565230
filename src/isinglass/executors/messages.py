"""What travels between an executor and its workers: a request, and the messages that answer it, one line of JSON each.

    executor -> worker    {"TrialRequest": {"runs": [{"config": {...}, ...}], ...}}
    worker -> executor    {"Progressed": {"progress": {"stage": "train", "done": 40, ...}}}
                          {"EpochScored": {"scores": [0.81]}}
                          {"TrialFinished": {"scores": [0.81, 0.84], "error": null}}

A worker gets one request. It sends any number of updates, and last of all one answer.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict

from isinglass.config import TrainConfig, resolve
from isinglass.results import RunResult
from isinglass.training.observers import Progress


class Message(BaseModel):
    """Base class of all that travels. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---- requests ----------------------------------------------------------


class RunInputs(Message):
    """The settings of a run, and where its worker finds the files that they name.

    Attributes:
        config: all settings, as `config.as_dict` returns them. The result repeats them.
        relocated: the settings of data files that lie elsewhere for the worker, with their values there.
        first_weights: directory of the model to start from; None: the model that the settings name.
    """

    config: dict[str, Any]
    relocated: dict[str, Any] = {}
    first_weights: str | None = None

    def resolve(self) -> TrainConfig:
        """Return the settings to train by, with the paths that hold for the worker."""
        settings = self.config | self.relocated
        return resolve(task=settings.pop("task"), recipe=settings.pop("recipe"), flags=settings)


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


class TrialRequest(Request):
    """Train one trial of a search, and score it after each epoch."""

    handler: ClassVar[str] = "isinglass.tuning.harness:perform_trial"


class CalibrationRequest(Request):
    """Time a few steps of the first run, and count the tokens of all runs' tasks."""

    handler: ClassVar[str] = "isinglass.bench.worker:calibrate"


# ---- updates -----------------------------------------------------------


class Started(Message):
    """The worker's process was started."""


class Progressed(Message):
    """How far the run is."""

    progress: Progress


class EpochScored(Message):
    """The scores of a trial on its dev set after each epoch so far."""

    scores: tuple[float, ...]


# ---- answers -----------------------------------------------------------


class Answer(Message):
    """The last message of a worker."""


class RunFinished(Answer):
    """The result of a run of a bench. Its prediction files are named relative to the bench's directory."""

    result: RunResult


class TrialFinished(Answer):
    """The scores of a trial after each epoch; `error` is the message of a loss that diverged."""

    scores: tuple[float, ...]
    error: str | None


class Calibration(Answer):
    """What a few timed steps tell of an engine.

    Attributes:
        tokens_per_second: real tokens, in training.
        compile_seconds: the time of tracing and compiling.
        train_tokens, dev_tokens: name of a task -> number of tokens of its train set, and of its dev sets.
        epochs: name of a task -> number of epochs, where the recipe chooses it by the data.
    """

    tokens_per_second: float
    compile_seconds: float
    train_tokens: dict[str, int]
    dev_tokens: dict[str, int]
    epochs: dict[str, int] = {}


class Failed(Answer):
    """The run failed: `error` says why. `signal` is the number of the signal that ended the worker, if one did."""

    error: str
    signal: int | None = None


# ---- JSON --------------------------------------------------------------


_REQUESTS: Final = (RunRequest, TrialRequest, CalibrationRequest)
_UPDATES: Final = (Started, Progressed, EpochScored)
_ANSWERS: Final = (RunFinished, TrialFinished, Calibration, Failed)
_KINDS: Final[Mapping[str, type[Message]]] = {kind.__name__: kind for kind in (*_REQUESTS, *_UPDATES, *_ANSWERS)}


def to_line(message: Message) -> bytes:
    """Return a message as one line of JSON. It is ASCII, because a path need not be UTF-8."""
    return json.dumps({type(message).__name__: message.model_dump()}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Return the message of one line.

    Raises:
        ValueError: it is not JSON, there is no such message, or its fields are of other types.
    """
    ((name, fields),) = json.loads(line).items()
    if name not in _KINDS:
        raise ValueError(f"there is no message {name!r}")
    return _KINDS[name].model_validate(fields)
