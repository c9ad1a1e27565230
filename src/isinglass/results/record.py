"""What a run reports: its scores, times, provenance and settings, as one JSON object."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isinglass.metrics import Metric

SCHEMA_VERSION: Final = 2  # 1 had no field of that name, and `split`, `metrics` and `majority` in place of `scores`
# Of one split: name -> score. Of several (MNLI): split -> name -> score. None stands for NaN, which JSON lacks.
FlatScores = dict[str, float | None] | dict[str, dict[str, float | None]]
VERSION_1_KEYS: Final = ("split", "metrics", "majority")
# what the clock covers: one definition, for every figure in seconds or per second
CLOCK: Final = (
    "Training time is the wall clock of all training steps with their input, the device synchronised before each reading; "
    "tokenizing, evaluation and writing are not in it. Compile time falls in the first epoch and is part of it."
)


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
        processes: number of processes that shared each step.
        parts: number of micro-batches into which steps were cut in the end, because memory was short; else 1.
        resumed_at: the steps after which the run was resumed.
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
    processes: int = 1
    parts: int = 1
    resumed_at: list[int] = field(default_factory=list)

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

    def to_json(self) -> str:
        """Return one line of JSON, in which scripts find the keys of schema version 1 too."""
        version_1 = {name: getattr(self, name) for name in VERSION_1_KEYS}
        values = {"schema_version": SCHEMA_VERSION} | dataclasses.asdict(self) | version_1
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def read(path: Path) -> "RunResult":
        """Read a run's `result.json`, as `results.files.read_result` does."""
        from isinglass.results.files import read_result  # which imports this file

        return read_result(path)


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that ended with an error: `config` and `start_from` as in RunResult, `error` in one sentence."""

    config: dict[str, Any]
    start_from: str | None
    error: str

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({"failed": dataclasses.asdict(self)}, ensure_ascii=False, allow_nan=False)
