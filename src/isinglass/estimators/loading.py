"""The estimator of a run that was trained before."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isinglass.config import as_dict
from isinglass.estimators.base import NOT_SETTINGS, RENAMED
from isinglass.estimators.classifier import TextClassifier
from isinglass.estimators.regressor import TextRegressor
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT
from isinglass.runs.finished import FinishedModel, load_run
from isinglass.training.labels import label_order


def load(directory: str | Path) -> TextClassifier | TextRegressor:
    """Return the fitted estimator of a run directory, which `isinglass train` or `save` wrote.

    Its parameters are the run's settings, so that `clone` and `fit` train as the run did. If all labels are whole numbers,
    `classes_` holds numbers; otherwise it holds names.

    Raises:
        DataError: it is no run directory, or is damaged.
    """
    directory = Path(directory)
    model = load_run(directory)
    estimator = _regressor(model) if model.task.labels is None else _classifier(model, model.task.labels)
    estimator._keep(model, RunResult.read(directory / RESULT), [])
    return estimator


def _regressor(model: FinishedModel) -> TextRegressor:
    return TextRegressor(**_parameters(TextRegressor, model))


def _classifier(model: FinishedModel, names: Sequence[str]) -> TextClassifier:
    label_order(model.checkpoint, model.task)  # refuses a head for other labels
    parameters = _parameters(TextClassifier, model)
    labels = _labels(names)
    if parameters["class_weight"] != "balanced":
        parameters["class_weight"] = _class_weight(parameters["class_weight"], labels)
    classifier = TextClassifier(**parameters)
    classifier.classes_ = np.array(sorted(labels))
    classifier._names = tuple(labels[label] for label in classifier.classes_.tolist())
    return classifier


def _parameters(kind: type[TextClassifier | TextRegressor], model: FinishedModel) -> dict[str, Any]:
    settings = as_dict(model.config)
    return {name: settings[RENAMED.get(name, name)] for name in kind._get_param_names() if name not in NOT_SETTINGS}


def _labels(names: Sequence[str]) -> dict[Any, str]:
    """Return label -> its name: labels are numbers if all names are those of whole numbers."""
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in names):
        return {int(name): name for name in names}
    return {name: name for name in names}


def _class_weight(setting: str | None, labels: dict[Any, str]) -> dict[Any, float] | None:
    """Return the parameter `class_weight`; None if the run read its weights from a file, which is not read again."""
    if setting is None or not setting.lstrip().startswith("{"):
        return None
    weights = json.loads(setting)
    return {label: weights[name] for label, name in labels.items()}
