"""What a run reports, as one JSON object."""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

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
        peak_memory_bytes: of the process (CPU) or the device's tensors (GPU).
        config: all settings.
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
    peak_memory_bytes: int
    device: str
    versions: dict[str, str]
    config: dict[str, Any]
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


def installed_versions() -> dict[str, str]:
    """Version of Python and of each installed package that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
