"""One run, or one calibration, in a process of its own: `python -m isinglass.bench.worker`.

The request is one JSON line on standard input, which the bench then holds open: when it closes, because the bench was
killed, this process ends at once. Answers are JSON lines on standard output: `{"progress": ...}` and at last one of
`{"result": ...}`, `{"calibration": ...}` and `{"error": ...}`. What libraries print goes to standard error.

A process a run, because Keras has one framework a process, peak memory belongs to a process, and a crash ends only it.
"""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig, resolve
from isinglass.data.source import Source
from isinglass.errors import IsinglassError
from isinglass.executors.stored_checkpoints import stored_checkpoints
from isinglass.runs.perform import Saving, perform
from isinglass.training.checkpoints import Checkpoints, Interval
from isinglass.training.observers import Observers, Progress
from isinglass.training.trainer import TrainedRun


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What there is to train, and what this process finds elsewhere than the settings say.

    Attributes:
        config: settings, as `config.as_dict` has them; the result repeats them.
        first_weights: the directory of the model to begin with; None: where the settings say.
        places: settings of data to take instead of those of `config`: where a copy lies.
        checkpoints, checkpoint_every: the directory, or URL, of checkpoints, and how often one is written; None: never.
    """

    config: dict[str, Any]
    first_weights: str | None = None
    places: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoints: str | None = None
    checkpoint_every: str = "never"

    def located(self) -> TrainConfig:
        """The settings to train by: the data from where they are."""
        return config_from(self.config | self.places)

    def train(self, config: TrainConfig, data: Source, observers: Observers) -> TrainedRun:
        """Train, from the newest checkpoint on if there is one."""
        run = perform(
            config,
            observers=observers,
            saving=Saving(checkpoints=self._saved()),
            data=data,
            first_weights=self.first_weights,
            group=SingleProcess(),
        )
        assert run.trained is not None
        return run.trained

    def _saved(self) -> Checkpoints | None:
        if self.checkpoints is None:
            return None
        every = Interval.parse(self.checkpoint_every)
        if "://" in self.checkpoints:
            return stored_checkpoints(self.checkpoints, every)
        directory = Path(self.checkpoints)
        return Checkpoints(directory=directory, every=every, resume=directory.is_dir())


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """Time a few steps of the first task, and count the tokens of all."""

    configs: list[dict[str, Any]]


def config_from(values: dict[str, Any]) -> TrainConfig:
    """The inverse of `config.as_dict`."""
    return resolve(
        task=values["task"], recipe=values["recipe"], flags={k: v for k, v in values.items() if k not in ("task", "recipe")}
    )


class Answers:
    """Lines to the bench."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def progress(self, now: Progress) -> None:
        """Where the run stands."""
        self.send(progress=dataclasses.asdict(now))

    def send(self, **message: Any) -> None:
        """One message, at once."""
        self._lines.write(json.dumps(message) + "\n")
        self._lines.flush()


def _end_with_the_bench() -> None:
    os.read(0, 1)  # not sys.stdin, whose buffer Python must be able to close when it ends
    os._exit(1)


def serve(kinds: Mapping[str, Callable[[dict[str, Any], Answers], dict[str, Any]]]) -> None:
    """Read the one request, `{KIND: ...}`, do it, and answer with what its kind gives."""
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    ((kind, values),) = json.loads(sys.stdin.readline()).items()
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    try:
        answers.send(**kinds[kind](values, answers))
    except (IsinglassError, OSError, MemoryError) as error:
        answers.send(error=str(error) or type(error).__name__)
        sys.exit(2)
