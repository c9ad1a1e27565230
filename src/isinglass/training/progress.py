"""What a run tells while it goes on."""

from dataclasses import dataclass
from typing import Final

PROGRESS_SECONDS: Final = 0.2  # the least time between two reports: reading a loss waits for the device


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands. `stage` is `train` or `evaluate NAME`; `done` of `total` units; `steps`: the new ones."""

    stage: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float | None
    tokens_per_second: float
    steps: "tuple[StepRecord, ...]" = ()


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One training step: `epoch` and `step` count from 0, `loss` is the mean over its examples."""

    epoch: int
    step: int
    learning_rate: float
    loss: float
