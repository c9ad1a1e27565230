"""The figures of a run as one result."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from isinglass.backends.process_group import ProcessGroup, SingleProcess, largest
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.data.tokenization import TokenizedTexts
from isinglass.results import RunResult, installed_versions, per_split, source_commit
from isinglass.tasks import Task
from isinglass.training.scoring import Scored, score


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
