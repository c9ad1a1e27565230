"""The evaluation of a finished model."""

import time
from collections.abc import Sequence

from isinglass.backends.objective import Objective
from isinglass.backends.registry import check_installed, create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.source import Source
from isinglass.errors import ConfigError
from isinglass.models.checkpoint import Checkpoint
from isinglass.results import RunResult
from isinglass.tasks import Split, Task
from isinglass.training.labels import label_order
from isinglass.training.observers import Observers
from isinglass.training.packer import Packer
from isinglass.training.prediction import predict
from isinglass.training.preparation import prepare_split
from isinglass.training.result import Figures, make_result
from isinglass.training.scoring import Scored


def evaluate(
    config: TrainConfig,
    model: Checkpoint,
    split_names: Sequence[str] | None = None,
    observers: Observers = (),
    *,
    data: Source | None = None,
) -> tuple[RunResult, list[Scored]]:
    """Score a finished model on labelled splits of its task. Labels are matched by name, through the model's `id2label`.

    Args:
        split_names: None: the dev sets.
        data: the task and its examples; None: what `config` names.

    Raises:
        ConfigError: there is no such split, or its labels are hidden.
        CheckpointError: the model's labels are not the task's.
    """
    check_installed(config.backend)
    data = data or open_data(config)
    task = data.task
    order = label_order(model, task)
    splits = [prepare_split(data, split, config, model, order) for split in _labelled_splits(task, split_names)]
    for split in splits:
        if split.labels is None:
            raise ConfigError(f"{split.examples.origin} has no labels to score by: use `isinglass predict`.")
    backend = create_backend(config, model, Objective.of(task))
    packer = Packer.of(config, model)
    started = time.perf_counter()
    scored = []
    for split in splits:
        outputs = predict(backend, packer, split.tokens, split.name, observers)
        scored.append(Scored(split=split, outputs=outputs, label_order=order))
    figures = Figures(
        examples={split.name: len(split) for split in splits},
        tokens=[split.tokens for split in splits],
        evaluation_seconds=time.perf_counter() - started,
    )
    notes = [*data.notes, *(note for split in splits for note in split.notes)]
    return make_result(config, task, scored, backend, figures, notes), scored


def _labelled_splits(task: Task, names: Sequence[str] | None) -> Sequence[Split]:
    splits = task.dev if names is None else [task.split(name) for name in names]
    for split in splits:
        if split.label_column is None:
            raise ConfigError(f"{task.title}'s {split.name} set hides its labels: use `isinglass predict`.")
    if not splits:
        raise ConfigError(f"{task.title} has no labelled set: use `isinglass predict`.")
    return splits
