"""The scores of predicted splits, and the figures of a run as one result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.metrics import Metric, scores
from isinglass.models.checkpoint import Weights
from isinglass.results import RunResult, Score, installed_versions, source_commit
from isinglass.tasks import Task
from isinglass.training.checkpoints import TrainingState
from isinglass.training.preparation import PreparedSplit

_PREFIX: Final = "best."  # of the names of the best epoch's weights in a checkpoint


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One split with the model's outputs.

    Attributes:
        outputs: float32 (N, num_outputs), logits or the value, in the order of the file.
        label_order: name of each output; None for regression.
        seconds: that the prediction took.
    """

    split: PreparedSplit
    outputs: Float32[np.ndarray, "N outputs"]
    label_order: tuple[str, ...] | None
    seconds: float


def score(task: Task, scored: Scored) -> dict[Metric, Score]:
    """Score the outputs of a split, and the baseline of its task."""
    assert scored.split.labels is not None
    order = scored.label_order or ()
    positive = order.index(task.positive_label) if task.positive_label in order else 0
    truth = task.kind.truth(scored.split.labels)
    found = scores(task.metrics, truth, task.kind.decide(scored.outputs), positive)
    baseline = scores(task.metrics, truth, task.kind.constant(truth), positive)
    return {metric: Score.of(found[metric], baseline[metric]) for metric in task.metrics}


class BestEpoch:
    """The score after each epoch so far, and the weights of the best epoch: of equal ones the first.

    Args:
        metric: what is compared.
        patience: number of epochs without a better one after which training ends; None: it never ends early.
    """

    def __init__(self, metric: Metric, patience: int | None = None) -> None:
        self.metric = metric
        self.scores: list[float | None] = []
        self.weights: Weights = {}
        self._patience = patience

    def add(self, score: float | None, weights: Weights) -> None:
        """Add one epoch: its score, averaged over the dev sets (None for NaN), and the weights after it."""
        self.scores.append(score)
        if self.best == len(self.scores) - 1:
            self.weights = weights

    @property
    def best(self) -> int:
        """The best epoch, counted from 0. None is worse than any number."""
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
        """Take over the scores and weights of a checkpoint."""
        self.scores = [*scores]
        self.weights = {name.removeprefix(_PREFIX): a for name, a in arrays.items() if name.startswith(_PREFIX)}

    def notes(self, epochs: int) -> list[str]:
        """Return what a reader of the result must know."""
        if not self.scores:
            return []
        scores = ", ".join("NaN" if score is None else f"{score:.4f}" for score in self.scores)
        stopped = f", stopped early of {epochs}" if len(self.scores) < epochs else ""
        return [
            f"The weights of epoch {self.best + 1} of {len(self.scores)}{stopped} are kept: the best by {self.metric} on "
            f"dev ({scores}). Scores on the set that chose are optimistic."
        ]


def make_result(
    config: TrainConfig,
    task: Task,
    backend: Backend,
    scored: Sequence[Scored],
    splits: Sequence[PreparedSplit],
    notes: Sequence[str],
    state: TrainingState,
    group: ProcessGroup = ProcessGroup(),
) -> RunResult:
    """Score the outputs, and put a run's figures together.

    Args:
        splits: all that were read, after training the training set first.
        state: after the last step; without training, that of its beginning.
    """
    train_seconds = sum(state.epoch_seconds)
    trained = bool(state.epoch_seconds)
    texts = [split.tokens for split in (splits[:1] if trained else splits)]
    lengths = np.concatenate([tokens.lengths for tokens in texts])
    return RunResult(
        task=task.name,
        backend=config.backend,
        precision=backend.precision,
        compile=config.compile,
        xla=config.xla or config.backend == "jax",
        model=config.model,
        seed=config.seed,
        recipe=config.recipe,
        scores={each.split.name: score(task, each) for each in scored},
        collapsed=any(task.kind.is_collapsed(task.kind.decide(each.outputs)) for each in scored),
        examples={split.name: len(split) for split in splits},
        train_seconds=train_seconds,
        epoch_seconds=state.epoch_seconds,
        compile_seconds=backend.compile_seconds,
        compilations=backend.compilations,
        evaluation_seconds=sum(each.seconds for each in scored),
        examples_per_second=len(splits[0]) * len(state.epoch_seconds) / train_seconds if trained else 0.0,
        tokens_per_second=state.tokens / train_seconds if trained else 0.0,
        truncated_share=sum(tokens.truncated for tokens in texts) / len(lengths),
        padding_avoided=1 - float(lengths.sum()) / (len(lengths) * config.max_length),
        train_lengths=np.bincount(lengths).tolist() if trained else [],
        peak_memory_bytes=group.largest(backend.peak_memory_bytes())[0],
        device=backend.device if group.size == 1 else f"{group.size} processes, each on {backend.device}",
        versions=installed_versions(),
        git_commit=source_commit(),
        config=as_dict(config),
        start_from=None,
        predictions={},
        notes=[*notes, *backend.notes, *([task.warning] if task.warning else [])],
        epoch_scores=state.epoch_scores,
        processes=group.size,
        parts=state.parts,
        resumed_at=state.resumed_at,
    )
