"""All tasks by name."""

from types import MappingProxyType
from typing import Final

from isinglass.errors import ConfigError
from isinglass.names import brief, did_you_mean
from isinglass.tasks.glue import DEMO, GLUE
from isinglass.tasks.kinds import KINDS, MULTILABEL, REGRESSION, Kind, KindName, Labels
from isinglass.tasks.task import Split, Task

TASKS: Final[MappingProxyType[str, Task]] = MappingProxyType({task.name: task for task in (*GLUE, DEMO)})

__all__ = ["KINDS", "MULTILABEL", "REGRESSION", "TASKS", "Kind", "KindName", "Labels", "Split", "Task", "get_task"]


def get_task(name: str) -> Task:
    """Return the task of that name; `STS-B`, `sts_b` and `stsb` are one spelling.

    Raises:
        ConfigError: there is none; the message offers the nearest.
    """
    task = TASKS.get(name.lower().replace("-", "").replace("_", ""))
    if task is None:
        raise ConfigError(f"There is no task {brief(name)}{did_you_mean(name, TASKS)}; `isinglass tasks` lists them.")
    return task


def predicted_with(name: str) -> tuple[Task, ...]:
    """Return the task of that exact name, and those that its model predicts too: AX after MNLI."""
    return (TASKS[name], *(task for task in TASKS.values() if task.predicted_by == name))
