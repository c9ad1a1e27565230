"""Fine-tune BERT-like text classifiers without paying for padding. Public names are imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isinglass.config import TrainConfig, resolve
    from isinglass.errors import IsinglassError
    from isinglass.estimator import TextClassifier, TextRegressor, load
    from isinglass.results import RunResult
    from isinglass.tasks import TASKS, Task, get_task
    from isinglass.training.run_dir import load_run, write_run
    from isinglass.training.trainer import evaluate, train

__all__ = [
    "TASKS",
    "IsinglassError",
    "RunResult",
    "Task",
    "TextClassifier",
    "TextRegressor",
    "TrainConfig",
    "evaluate",
    "get_task",
    "load",
    "load_run",
    "resolve",
    "train",
    "write_run",
]

_HOME = {
    "TASKS": "tasks",
    "IsinglassError": "errors",
    "RunResult": "results",
    "Task": "tasks",
    "TextClassifier": "estimator",
    "TextRegressor": "estimator",
    "TrainConfig": "config",
    "evaluate": "training.trainer",
    "get_task": "tasks",
    "load": "estimator",
    "load_run": "training.run_dir",
    "resolve": "config",
    "train": "training.trainer",
    "write_run": "training.run_dir",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'isinglass' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isinglass.{_HOME[name]}"), name)
