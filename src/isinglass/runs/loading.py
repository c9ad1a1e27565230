"""A finished run, or a model directory, loaded for use."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from isinglass.config import TrainConfig, resolve
from isinglass.errors import ConfigError, DataError
from isinglass.models.checkpoint import CONFIG, Checkpoint, load_checkpoint
from isinglass.models.files import read_json
from isinglass.results import RunResult
from isinglass.runs.directory import MODEL, RESULT, TASK, TASK_BYTES
from isinglass.tasks import Task, custom, get_task


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """A trained model and the settings under which to use it."""

    checkpoint: Checkpoint
    config: TrainConfig
    task: Task


def load_run(directory: Path, *, task: str | None = None) -> FinishedModel:
    """Load a run directory, or any checkpoint directory together with the name of its task.

    Raises:
        ConfigError: a bare checkpoint without `task`.
        DataError: there is neither, or the run's settings are not in its `result.json`.
    """
    if (directory / RESULT).is_file() and (directory / MODEL).is_dir():
        saved = RunResult.read(directory / RESULT).config
        if not isinstance(saved, dict) or "task" not in saved:
            raise DataError(f"{directory / RESULT} does not name its task under 'config': it is not what a run writes.")
        name = task or str(saved["task"])
        config = resolve(task=name, flags={key: value for key, value in saved.items() if key != "task"})
        known = _own_task(directory / MODEL) if task is None else None
        if known is None:
            known = get_task(name)
            config = dataclasses.replace(config, train_file=(), validation_file=(), test_file=())
        return FinishedModel(checkpoint=load_checkpoint(directory / MODEL), config=config, task=known)
    if (directory / CONFIG).is_file():
        known = _own_task(directory) if task is None else get_task(task)
        if known is None:
            raise ConfigError(f"{directory} is a checkpoint without a run's settings: name its task with --task.")
        checkpoint = load_checkpoint(directory)
        length = min(TrainConfig.max_length, checkpoint.config.max_length)
        config = resolve(task=known.name, flags={"model": str(directory), "max_length": length})
        return FinishedModel(checkpoint=checkpoint, config=config, task=known)
    raise DataError(f"{directory} is neither a run directory ({RESULT} and {MODEL}/) nor a checkpoint ({CONFIG}).")


def _own_task(model: Path) -> Task | None:
    """The user's own task that a model was trained on, if it was one."""
    path = model / TASK
    return custom.from_json(read_json(path, limit=TASK_BYTES), str(path)) if os.path.lexists(path) else None
