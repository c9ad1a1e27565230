"""Fine-tune BERT-like text classifiers without paying for padding. Public names are imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isinglass.config import TrainConfig as TrainConfig, resolve as resolve
    from isinglass.errors import IsinglassError as IsinglassError
    from isinglass.estimators.text import TextClassifier as TextClassifier, TextRegressor as TextRegressor, load as load
    from isinglass.results import RunResult as RunResult
    from isinglass.runs.directory import load_run as load_run, write_run as write_run
    from isinglass.runs.perform import Run as Run, Saving as Saving, perform as perform
    from isinglass.tasks import TASKS as TASKS, Task as Task, get_task as get_task
    from isinglass.training.observers import Observer as Observer
    from isinglass.training.evaluation import evaluate as evaluate
    from isinglass.training.preparation import FirstWeights as FirstWeights
    from isinglass.training.trainer import train as train

_NAMES = {
    "config": ("TrainConfig", "resolve"),
    "errors": ("IsinglassError",),
    "estimators.text": ("TextClassifier", "TextRegressor", "load"),
    "results": ("RunResult",),
    "runs.directory": ("load_run", "write_run"),
    "runs.perform": ("Run", "Saving", "perform"),
    "tasks": ("TASKS", "Task", "get_task"),
    "training.observers": ("Observer",),
    "training.evaluation": ("evaluate",),
    "training.preparation": ("FirstWeights",),
    "training.trainer": ("train",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'isinglass' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isinglass.{_MODULES[name]}"), name)
