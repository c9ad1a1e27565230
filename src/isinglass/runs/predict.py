"""Predict with a finished model: a split of its task, or any table or lines, piece by piece."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from isinglass.data import open_data
from isinglass.data.inputs import Inputs
from isinglass.errors import ConfigError
from isinglass.names import brief
from isinglass.runs.directory import FinishedModel
from isinglass.runs.predictions import Predictions, described_by_source, prediction_columns
from isinglass.tasks import TASKS
from isinglass.training.observers import Observer, Observers, Progress
from isinglass.training.preparation import label_order

logger = logging.getLogger(__name__)


def predict_split(
    model: FinishedModel, split_name: str | None = None, observers: Observers = (), *, top: int | None = None
) -> Predictions:
    """Predict a split of the model's task: its test set, or the named one. Of the user's own data, rows and texts are named.

    Args:
        top: see `prediction_columns`.

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
    order = label_order(model.checkpoint, task)
    outputs = model.outputs(examples, split.name, observers)
    described = {} if task.name in TASKS else described_by_source(examples)  # GLUE's server takes the first two columns
    threshold = model.checkpoint.threshold
    return prediction_columns(outputs, order, task, described=described, top=top, threshold=threshold)


def predict_input(
    model: FinishedModel, inputs: Inputs, observers: Observers = (), *, top: int | None = None
) -> Iterator[Predictions]:
    """Predict texts a few thousand at a time; of a stream those that have arrived. Columns are kept as the input says.

    A file is read twice: whatever is wrong with it shows before the first prediction. Notes about the rows are logged.

    Args:
        top: see `prediction_columns`.

    Raises:
        ConfigError: a kept column has the name of one of the predictions.
        DataError: a row cannot be used; the message names it.
    """
    order = label_order(model.checkpoint, model.task)
    _check_kept(inputs, prediction_columns(np.zeros((0, len(order or "1")), np.float32), order, model.task, top=top))
    wholes: list[_Whole] = []
    if not inputs.is_stream:  # of a stream nobody knows how many rows there will be
        total, notes = inputs.check()
        wholes = [_Whole(observer, total) for observer in observers]
        for note in notes:
            logger.warning(note)
    return _predict_pieces(model, inputs, wholes, order, top)


def _predict_pieces(
    model: FinishedModel, inputs: Inputs, observers: Sequence["_Whole"], order: Sequence[str] | None, top: int | None
) -> Iterator[Predictions]:
    done, threshold = 0, model.checkpoint.threshold
    for piece in inputs.pieces():
        outputs = model.outputs(piece.examples, "input", observers, keep=False)
        yield prediction_columns(outputs, order, model.task, first=done, described=piece.kept, top=top, threshold=threshold)
        done += len(piece.examples)
        for observer in observers:
            observer.done = done
    if inputs.is_stream:
        for note in inputs.late_notes():
            logger.warning(note)


def _check_kept(inputs: Inputs, names: Collection[str]) -> None:
    """Refuse to keep a column that has one of the names of the predictions' own columns."""
    for name in inputs.kept:
        if name in names:
            raise ConfigError(
                f"{inputs.table.file.origin} has a column {brief(name)}, as the predictions have: rename it, or name those "
                f"to keep without it."
            )


class _Whole(Observer):
    """An observer that shows the prediction of a piece as part of that of the whole input.

    Attributes:
        done: number of examples of earlier pieces.
    """

    def __init__(self, observer: Observer, total: int) -> None:
        self._observer = observer
        self._total = total
        self.done = 0

    def on_prediction_step(self, progress: Progress) -> None:
        """Pass the progress on."""
        self._observer.on_prediction_step(replace(progress, done=self.done + progress.done, total=self._total))
