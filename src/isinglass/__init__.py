"""Fine-tune BERT-like text classifiers without paying for padding. Public names are imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isinglass.config import TrainConfig, resolve
    from isinglass.errors import IsinglassError
    from isinglass.estimators.estimators import TextClassifier, TextRegressor, load
    from isinglass.results import RunResult
    from isinglass.runs.directory import write_run
    from isinglass.runs.finished import load_run
    from isinglass.runs.perform import Run, Saving, perform
    from isinglass.tasks import TASKS, Task, get_task
    from isinglass.training.observers import Observer
    from isinglass.training.trainer import evaluate, train

__all__ = [
    "TASKS",
    "IsinglassError",
    "Observer",
    "Run",
    "RunResult",
    "Saving",
    "Task",
    "TextClassifier",
    "TextRegressor",
    "TrainConfig",
    "evaluate",
    "get_task",
    "load",
    "load_run",
    "perform",
    "resolve",
    "train",
    "write_run",
]

_HOME = {
    "TASKS": "tasks",
    "IsinglassError": "errors",
    "Run": "runs.perform",
    "RunResult": "results",
    "Saving": "runs.perform",
    "Task": "tasks",
    "TextClassifier": "estimators.estimators",
    "TextRegressor": "estimators.estimators",
    "TrainConfig": "config",
    "Observer": "training.observers",
    "evaluate": "training.trainer",
    "get_task": "tasks",
    "load": "estimators.estimators",
    "load_run": "runs.finished",
    "perform": "runs.perform",
    "resolve": "config",
    "train": "training.trainer",
    "write_run": "runs.directory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'isinglass' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isinglass.{_HOME[name]}"), name)
