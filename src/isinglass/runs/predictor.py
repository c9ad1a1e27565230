"""Answers of a finished model to a split without labels, or to the user's own sentences."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from isinglass.backends.objective import Objective
from isinglass.backends.protocol import Backend
from isinglass.backends.registry import check_installed, create_backend
from isinglass.data import open_data
from isinglass.data.examples import Examples
from isinglass.data.unlabelled import read_texts
from isinglass.errors import ConfigError
from isinglass.runs.loading import FinishedModel
from isinglass.runs.prediction_files import Rows, prediction_rows
from isinglass.training.labels import label_order
from isinglass.training.observers import Observers
from isinglass.training.packer import Packer
from isinglass.training.prediction import predict
from isinglass.training.preparation import prepare_texts

logger = logging.getLogger(__name__)


class Predictor:
    """A finished model that answers again and again: it is put on its device once, when first asked.

    Pickled, it is the model alone: the weights as arrays.
    """

    def __init__(self, model: FinishedModel) -> None:
        self.model = model
        self._backend: Backend | None = None

    def outputs(
        self,
        examples: Examples,
        name: str = "input",
        observers: Observers = (),
        *,
        keep: bool = True,
    ) -> Float32[np.ndarray, "N outputs"]:
        """Logits of each example (regression: the value), in the order of `label_order`.

        Args:
            keep: the tokens, in the cache.
        """
        config, checkpoint = self.model.config, self.model.checkpoint
        check_installed(config.backend)
        tokens = prepare_texts(examples, config, checkpoint, keep=keep)
        if self._backend is None:
            self._backend = create_backend(config, checkpoint, Objective.of(self.model.task))
        return predict(self._backend, Packer.of(config, checkpoint), tokens, name, observers)

    def __getstate__(self) -> dict[str, object]:
        return {"model": self.model, "_backend": None}


def predict_split(model: FinishedModel, split_name: str | None = None, observers: Observers = ()) -> Rows:
    """Predict a split of the model's task: its test set, or the one named. The first row is the header.

    Raises:
        ConfigError: there are several test sets and none was named.
    """
    task = model.task
    if split_name is None and not task.test:
        raise ConfigError(f"{task.title} has no test set: name a file of your own with --input.")
    if split_name is None and len(task.test) != 1:
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
