"""Which epoch of a run is the best on the dev sets, and the weights after it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from isinglass.config import TrainConfig
from isinglass.errors import ConfigError
from isinglass.metrics import Metric
from isinglass.models.checkpoint import Weights
from isinglass.names import did_you_mean
from isinglass.tasks import Task

_PREFIX: Final = "best."  # of the names of its arrays in a checkpoint


def selection_metric(config: TrainConfig, task: Task) -> Metric:
    """Return the metric by which epochs, and trials of a search, are compared.

    Raises:
        ConfigError: the task does not have it, or has no dev set although the best epoch is to be picked.
    """
    metric = config.best_metric or task.metrics[0]
    if metric not in task.metrics:
        hint = did_you_mean(metric, task.metrics)
        raise ConfigError(f"best_metric is {metric!r}{hint}; {task.title} has {', '.join(task.metrics)}.")
    if config.picks_best and not task.dev:
        raise ConfigError(f"{task.title} has no dev set that could tell which epoch is the best.")
    return Metric(metric)


class BestEpoch:
    """The score after each epoch so far, and the weights of the best epoch: of equal ones the first.

    Args:
        metric: what is compared.
        patience: number of epochs without a better one after which training ends; None: it never ends early.
    """

    def __init__(self, metric: Metric, patience: int | None = None) -> None:
        self.metric = metric
        self.scores: list[float] = []
        self.weights: Weights = {}
        self._patience = patience

    def add(self, score: float, weights: Weights) -> None:
        """Add one epoch: its score, averaged over the dev sets, and the weights after it."""
        self.scores.append(score)
        if self.best == len(self.scores) - 1:
            self.weights = weights

    @property
    def best(self) -> int:
        """The best epoch, counted from 0. NaN is worse than any number."""
        ranks = [*map(self.metric.rank, self.scores)]
        return ranks.index(max(ranks))

    @property
    def is_over(self) -> bool:
        """Whether training is to stop, because the last epochs brought nothing better."""
        if self._patience is None or not self.scores:
            return False
        return len(self.scores) - 1 - self.best >= self._patience

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights, under names for a checkpoint."""
        return {f"{_PREFIX}{name}": array for name, array in self.weights.items()}

    def restore(self, scores: Sequence[float | None], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the scores and weights of a checkpoint, where None stands for NaN."""
        self.scores = [float("nan") if score is None else score for score in scores]
        self.weights = {name.removeprefix(_PREFIX): a for name, a in arrays.items() if name.startswith(_PREFIX)}

    def plain_scores(self) -> list[float | None]:
        """Return the scores for JSON, which has no NaN."""
        return [None if math.isnan(score) else score for score in self.scores]

    def notes(self, epochs: int) -> list[str]:
        """Return what a reader of the result must know."""
        if not self.scores:
            return []
        scores = ", ".join("NaN" if math.isnan(score) else f"{score:.4f}" for score in self.scores)
        stopped = f", stopped early of {epochs}" if len(self.scores) < epochs else ""
        return [
            f"The weights of epoch {self.best + 1} of {len(self.scores)}{stopped} are kept: the best by {self.metric} on "
            f"dev ({scores}). Scores on the set that chose are optimistic."
        ]
