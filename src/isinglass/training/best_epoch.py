"""Which epoch of a run was the best on the dev sets, and its weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from isinglass.config import TrainConfig
from isinglass.errors import ConfigError
from isinglass.metrics import LOWER_IS_BETTER, Scores
from isinglass.models.checkpoint import Weights
from isinglass.names import did_you_mean
from isinglass.tasks import Task

_PREFIX: Final = "best."  # of its arrays in a checkpoint


class BestEpoch:
    """The score of each epoch so far, and the weights of the best one: of equal ones the first."""

    def __init__(self, config: TrainConfig, task: Task) -> None:
        """Choose the metric.

        Raises:
            ConfigError: the task does not have it, or has no dev set.
        """
        self.metric: str = config.best_metric or task.metrics[0]
        if self.metric not in task.metrics:
            hint = did_you_mean(self.metric, task.metrics)
            raise ConfigError(f"best_metric is {self.metric!r}{hint}; {task.title} has {', '.join(task.metrics)}.")
        if config.picks_best and not task.dev:
            raise ConfigError(f"{task.title} has no dev set that could tell which epoch is the best.")
        self.scores: list[float] = []
        self.weights: Weights = {}
        self._patience = config.early_stopping

    def add(self, scores: Sequence[Scores], weights: Weights) -> None:
        """Take in one more epoch: its scores on each dev set, and the weights after it."""
        self.scores.append(sum(one[self.metric] for one in scores) / len(scores))
        if self.best == len(self.scores) - 1:
            self.weights = weights

    @property
    def best(self) -> int:
        """The best epoch, counted from 0. NaN is worse than any number."""
        sign = -1.0 if self.metric in LOWER_IS_BETTER else 1.0
        worth = [-math.inf if math.isnan(score) else sign * score for score in self.scores]
        return worth.index(max(worth))

    @property
    def is_over(self) -> bool:
        """Whether so many epochs in a row brought nothing better that training is to stop."""
        return self._patience is not None and bool(self.scores) and len(self.scores) - 1 - self.best >= self._patience

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The weights, under names for a checkpoint."""
        return {f"{_PREFIX}{name}": array for name, array in self.weights.items()}

    def restore(self, scores: Sequence[float | None], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take what a checkpoint holds; its None stands for NaN."""
        self.scores = [float("nan") if score is None else score for score in scores]
        self.weights = {name.removeprefix(_PREFIX): a for name, a in arrays.items() if name.startswith(_PREFIX)}

    def plain_scores(self) -> list[float | None]:
        """The scores for JSON, which has no NaN."""
        return [None if math.isnan(score) else score for score in self.scores]

    def notes(self, epochs: int) -> list[str]:
        """What a reader of the result must know."""
        if not self.scores:
            return []
        seen = ", ".join("NaN" if math.isnan(score) else f"{score:.4f}" for score in self.scores)
        stopped = f", stopped early of {epochs}" if len(self.scores) < epochs else ""
        return [
            f"The weights of epoch {self.best + 1} of {len(self.scores)}{stopped} are kept: the best by {self.metric} on "
            f"dev ({seen}). Scores on the set that chose are optimistic."
        ]
