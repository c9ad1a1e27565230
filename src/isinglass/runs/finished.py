"""A finished run, or a model directory: loaded, and used to predict."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32

from isinglass.backends.protocol import Backend, Objective
from isinglass.backends.registry import check_installed, create_backend
from isinglass.config import TrainConfig, resolve
from isinglass.data import open_data
from isinglass.data.custom import read_texts
from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError
from isinglass.models.checkpoint import CONFIG, Checkpoint, load_checkpoint
from isinglass.models.files import read_json
from isinglass.results import RunResult
from isinglass.runs.directory import MODEL, RESULT, TASK, Rows, prediction_rows
from isinglass.tasks import Task, custom, get_task
from isinglass.training.observers import Observers
from isinglass.training.prediction import predict
from isinglass.training.preparation import Packer, label_order, prepare_texts

logger = logging.getLogger(__name__)

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


class Predictor:
    """A finished model that predicts again and again. It is put on its device when it is first used.

    A pickle holds the model alone.
    """

    def __init__(self, model: FinishedModel) -> None:
        self.model = model
        self._backend: Backend | None = None

    def outputs(
        self, examples: Examples, name: str = "input", observers: Observers = (), *, keep: bool = True
    ) -> Float32[np.ndarray, "N outputs"]:
        """Return the logits of each example (regression: the value), in the order of `label_order`.

        Args:
            name: of the examples, for the observers.
            keep: whether to store the tokens in the cache.
        """
        config, model = self.model.config, self.model.checkpoint
        check_installed(config.backend)
        tokens = prepare_texts(examples, config, model, keep=keep)
        if self._backend is None:
            self._backend = create_backend(config, model, Objective.of(self.model.task))
        return predict(self._backend, Packer.of(config, model), tokens, name, observers)

    def __getstate__(self) -> dict[str, object]:
        return {"model": self.model, "_backend": None}


def predict_split(model: FinishedModel, split_name: str | None = None, observers: Observers = ()) -> Rows:
    """Predict a split of the model's task: its test set, or the named one. The first row is the header.

    Raises:
        ConfigError: no split is named, and there is not exactly one test set.
    """
    task = model.task
    if split_name is None and not task.test:
        raise ConfigError(f"{task.title} has no test set: name a file of your own with --input.")
    if split_name is None and len(task.test) > 1:
        names = " or ".join(split.name for split in task.test)
        raise ConfigError(f"{task.title} has {len(task.test)} test sets: name one with --split {names}.")
    split = task.test[0] if split_name is None else task.split(split_name)
    examples = open_data(model.config, task).read(split)
    return _predict(model, examples, split.name, observers)


def predict_texts(model: FinishedModel, path: Path | None, observers: Observers = ()) -> Rows:
    """Predict a table, or the lines of a text file or of standard input (`path` None). The first row is the header."""
    examples = read_texts(path, model.task, model.config.delimiter)
    for note in examples.notes:
        logger.warning(note)
    return _predict(model, examples, "input", observers)


def _predict(model: FinishedModel, examples: Examples, name: str, observers: Observers) -> Rows:
    check_installed(model.config.backend)
    order = label_order(model.checkpoint, model.task)
    outputs = Predictor(model).outputs(examples, name, observers)
    return list(prediction_rows(outputs, order, model.task))
