"""The scores of predicted splits, and the figures of a run as one result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from isinglass.backends.process_group import ProcessGroup, SingleProcess, largest
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.data.tokenization import TokenizedTexts
from isinglass.metrics import Metric, scores
from isinglass.results import RunResult, Score, installed_versions, source_commit
from isinglass.tasks import Task
from isinglass.training.preparation import PreparedSplit


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
