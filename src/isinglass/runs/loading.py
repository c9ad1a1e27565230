"""A finished run, or a model directory, loaded for use."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isinglass.config import TrainConfig, resolve
from isinglass.errors import ConfigError, DataError
from isinglass.models.checkpoint import CONFIG, Checkpoint, load_checkpoint
from isinglass.models.files import read_json
from isinglass.results import RunResult
from isinglass.runs.directory import MODEL, RESULT, TASK
from isinglass.tasks import Task, custom, get_task

TASK_BYTES: Final = 10_000_000  # the largest task.json that is read


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """A trained model and the settings under which to use it."""

    checkpoint: Checkpoint
    config: TrainConfig
    task: Task


def load_run(directory: Path, *, task: str | None = None) -> FinishedModel:
    """Load a run directory, or any model directory together with the name of its task.

    Raises:
        ConfigError: a model directory without `task`.
        DataError: it is neither, or the run's settings are not in its `result.json`.
    """
    if (directory / RESULT).is_file() and (directory / MODEL).is_dir():
        return _load_run_directory(directory, task)
    if (directory / CONFIG).is_file():
        return _load_model_directory(directory, task)
    raise DataError(f"{directory} is neither a run directory ({RESULT} and {MODEL}/) nor a checkpoint ({CONFIG}).")


def _load_run_directory(directory: Path, task: str | None) -> FinishedModel:
    saved = RunResult.read(directory / RESULT).config
    if not isinstance(saved, dict) or "task" not in saved:
        raise DataError(f"{directory / RESULT} does not name its task under 'config': it is not what a run writes.")
    name = task or str(saved["task"])
    config = resolve(task=name, flags={key: value for key, value in saved.items() if key != "task"})
    own_task = _own_task(directory / MODEL) if task is None else None
    if own_task is None:
        config = replace(config, train_file=(), validation_file=(), test_file=())
    return FinishedModel(checkpoint=load_checkpoint(directory / MODEL), config=config, task=own_task or get_task(name))


def _load_model_directory(directory: Path, task_name: str | None) -> FinishedModel:
    task = _own_task(directory) if task_name is None else get_task(task_name)
    if task is None:
        raise ConfigError(f"{directory} is a checkpoint without a run's settings: name its task with --task.")
    model = load_checkpoint(directory)
    length = min(TrainConfig.max_length, model.blueprint.max_length)
    config = resolve(task=task.name, flags={"model": str(directory), "max_length": length})
    return FinishedModel(checkpoint=model, config=config, task=task)


def _own_task(model: Path) -> Task | None:
    """Return the user's own task that a model was trained on; None if it was a published one."""
    path = model / TASK
    if not os.path.lexists(path):
        return None
    return custom.from_json(read_json(path, limit=TASK_BYTES), str(path))
