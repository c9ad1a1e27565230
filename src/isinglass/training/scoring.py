"""The scores of predicted splits, and the figures of a run as one result."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup, SingleProcess, largest
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.data.tokenization import TokenizedTexts
from isinglass.metrics import Metric, scores
from isinglass.models.checkpoint import Weights
from isinglass.results import RunResult, Score, installed_versions, source_commit
from isinglass.tasks import Task
from isinglass.training.preparation import PreparedSplit

_PREFIX: Final = "best."  # of the names of the best epoch's weights in a checkpoint


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One split with the model's outputs.

    Attributes:
        outputs: float32 (N, num_outputs), logits or the value, in the order of the file.
        label_order: name of each output; None for regression.
    """

    split: PreparedSplit
    outputs: Float32[np.ndarray, "N outputs"]
    label_order: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one split, and whether all its examples got the same label."""

    by_metric: dict[Metric, Score]
    collapsed: bool


def score(task: Task, scored: Scored) -> Scores:
    """Score the outputs of a split, and the baseline of its task."""
    assert scored.split.labels is not None
    order = scored.label_order or ()
    positive = order.index(task.positive_label) if task.positive_label in order else 0
    truth, predicted = task.kind.truth(scored.split.labels), task.kind.decide(scored.outputs)
    found = scores(task.metrics, truth, predicted, positive)
    baseline = scores(task.metrics, truth, task.kind.constant(truth), positive)
    return Scores(
        by_metric={metric: Score.of(found[metric], baseline[metric]) for metric in task.metrics},
        collapsed=task.kind.is_collapsed(predicted),
    )


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


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was counted and timed.

    Attributes:
        examples: name of each split -> number of its examples.
        tokens: the training texts, or without training those that were scored.
        epoch_seconds: of each epoch of training.
        trained_tokens: real tokens, over all epochs.
        epoch_scores: after each epoch, where the best one is picked; None for NaN.
        model_commit: of the first weights' repository on the hub, if they come from there.
        parts: number of micro-batches into which steps were cut in the end.
        resumed_at: the steps after which the run was resumed.
    """

    examples: dict[str, int]
    tokens: Sequence[TokenizedTexts]
    evaluation_seconds: float
    epoch_seconds: list[float] = field(default_factory=list)
    trained_tokens: int = 0
    epoch_scores: list[float | None] = field(default_factory=list)
    model_commit: str | None = None
    parts: int = 1
    resumed_at: list[int] = field(default_factory=list)


def make_result(
    config: TrainConfig,
    task: Task,
    scored: Sequence[Scored],
    backend: Backend,
    figures: Figures,
    notes: Sequence[str],
    group: ProcessGroup | None = None,
) -> RunResult:
    """Score the outputs, and put a run's figures together."""
    group = group or SingleProcess()
    by_split = {one.split.name: score(task, one) for one in scored}
    lengths = np.concatenate([texts.lengths for texts in figures.tokens])
    trained = bool(figures.epoch_seconds)
    train_seconds = sum(figures.epoch_seconds)
    examples_trained = figures.examples.get("train", 0) * len(figures.epoch_seconds)
    return RunResult(
        task=task.name,
        backend=config.backend,
        precision=backend.precision,
        compile=config.compile,
        xla=config.xla or config.backend == "jax",
        model=config.model,
        seed=config.seed,
        recipe=config.recipe,
        scores={split: found.by_metric for split, found in by_split.items()},
        collapsed=any(found.collapsed for found in by_split.values()),
        examples=figures.examples,
        train_seconds=train_seconds,
        epoch_seconds=figures.epoch_seconds,
        compile_seconds=backend.compile_seconds,
        compilations=backend.compilations,
        evaluation_seconds=figures.evaluation_seconds,
        examples_per_second=examples_trained / train_seconds if trained else 0.0,
        tokens_per_second=figures.trained_tokens / train_seconds if trained else 0.0,
        truncated_share=sum(texts.truncated for texts in figures.tokens) / len(lengths),
        padding_avoided=1 - float(lengths.sum()) / (len(lengths) * config.max_length),
        train_lengths=np.bincount(lengths).tolist() if trained else [],
        peak_memory_bytes=largest(group, backend.peak_memory_bytes())[0],
        device=backend.device if group.size == 1 else f"{group.size} processes, each on {backend.device}",
        versions=installed_versions(),
        git_commit=source_commit(),
        config=as_dict(config),
        start_from=None,
        predictions={},
        notes=[*notes, *backend.notes, *([task.warning] if task.warning else [])],
        epoch_scores=figures.epoch_scores,
        model_commit=figures.model_commit,
        processes=group.size,
        parts=figures.parts,
        resumed_at=figures.resumed_at,
    )
