"""A run's figures as one result."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from isinglass.backends.process_group import ProcessGroup, largest
from isinglass.backends.protocol import Backend
from isinglass.config import TrainConfig, as_dict
from isinglass.results import RunResult, installed_versions, per_split, source_commit
from isinglass.tasks import Task
from isinglass.training.scoring import Scored, score


def make_result(
    config: TrainConfig,
    task: Task,
    scored: Sequence[Scored],
    backend: Backend,
    *,
    examples: dict[str, int],
    epoch_seconds: list[float],
    evaluation_seconds: float,
    trained_tokens: int,
    truncated: int,
    lengths: Int64[np.ndarray, " N"],
    notes: list[str],
    epoch_scores: list[float | None] | None = None,
    group: ProcessGroup | None = None,
) -> RunResult:
    """Put a run's figures together.

    Args:
        truncated, lengths: of the training examples, or without training of those that were scored.
    """
    scores = {one.split.name: score(task, one) for one in scored}
    train_seconds = sum(epoch_seconds)
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
        examples=examples,
        train_seconds=train_seconds,
        epoch_seconds=epoch_seconds,
        compile_seconds=backend.compile_seconds,
        compilations=backend.compilations,
        evaluation_seconds=evaluation_seconds,
        examples_per_second=examples.get("train", 0) * len(epoch_seconds) / train_seconds if epoch_seconds else 0.0,
        tokens_per_second=trained_tokens / train_seconds if epoch_seconds else 0.0,
        truncated_share=truncated / len(lengths),
        padding_avoided=1 - float(lengths.sum()) / (len(lengths) * config.max_length),
        train_lengths=np.bincount(lengths).tolist() if epoch_seconds else [],
        peak_memory_bytes=backend.peak_memory_bytes() if group is None else largest(group, backend.peak_memory_bytes())[0],
        device=backend.device if group is None or group.size == 1 else f"{group.size} processes, each on {backend.device}",
        versions=installed_versions(),
        git_commit=source_commit(),
        config=as_dict(config),
        start_from=None,
        predictions={},
        notes=[*notes, *backend.notes, *([task.warning] if task.warning else [])],
        epoch_scores=epoch_scores or [],
    )
