"""The scores of predicted splits, and the figures of a run as one result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64

from isinglass.backends.process_group import ProcessGroup, SingleProcess, largest
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.data.tokenization import TokenizedTexts
from isinglass.metrics import (
    Scores,
    classification_scores,
    constant_scores,
    majority_multilabel_scores,
    majority_scores,
    multilabel_scores,
    regression_scores,
)
from isinglass.results import RunResult, installed_versions, per_split, source_commit
from isinglass.tasks import Task
from isinglass.training.preparation import PreparedSplit


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One split with the model's answers.

    Attributes:
        outputs: float32 (N, num_outputs), logits or the value, in the order of the file.
        label_order: name of each output; None for regression.
    """

    split: PreparedSplit
    outputs: Float32[np.ndarray, "N outputs"]
    label_order: tuple[str, ...] | None


def score(task: Task, scored: Scored) -> tuple[Scores, Scores, bool]:
    """Metrics, majority baseline, and whether one label was given to every example."""
    labels = scored.split.labels
    assert labels is not None
    if scored.label_order is None:
        values = labels.astype(np.float32)
        found = regression_scores(task.metrics, values, scored.outputs[:, 0])
        return found, constant_scores(task.metrics, values), False
    if task.is_multilabel:
        sets, chosen = labels > 0, scored.outputs > 0
        found = multilabel_scores(task.metrics, sets, chosen)
        return found, majority_multilabel_scores(task.metrics, sets), len(np.unique(chosen, axis=0)) == 1
    positive = scored.label_order.index(task.positive_label) if task.positive_label in scored.label_order else 0
    truth: Int64[np.ndarray, " N"] = labels.astype(np.int64)
    answers = scored.outputs.argmax(1).astype(np.int64)
    return (
        classification_scores(task.metrics, truth, answers, positive),
        majority_scores(task.metrics, truth, positive),
        len(np.unique(answers)) == 1,
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
    """

    examples: dict[str, int]
    tokens: Sequence[TokenizedTexts]
    evaluation_seconds: float
    epoch_seconds: list[float] = field(default_factory=list)
    trained_tokens: int = 0
    epoch_scores: list[float | None] = field(default_factory=list)


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
    scores = {one.split.name: score(task, one) for one in scored}
    lengths = np.concatenate([texts.lengths for texts in figures.tokens])
    trained = bool(figures.epoch_seconds)
    train_seconds = sum(figures.epoch_seconds)
    examples_trained = figures.examples.get("train", 0) * len(figures.epoch_seconds)
    return RunResult(
        task=task.name,
        split="+".join(scores),
        backend=config.backend,
        precision=backend.precision,
        compile=config.compile,
        xla=config.xla or config.backend == "jax",
        model=config.model,
        seed=config.seed,
        recipe=config.recipe,
        metrics=per_split({name: found for name, (found, _, _) in scores.items()}),
        majority=per_split({name: baseline for name, (_, baseline, _) in scores.items()}),
        collapsed=any(collapsed for _, _, collapsed in scores.values()),
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
    )
