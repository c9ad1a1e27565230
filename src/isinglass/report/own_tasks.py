"""The tasks of a directory of runs: the published ones, and the user's own, which a bench describes in `tasks/`."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from isinglass.errors import DataError
from isinglass.models.files import read_json
from isinglass.names import brief
from isinglass.results import file_below
from isinglass.tasks import TASKS, Split, Task, custom, get_task

TASK_BYTES: Final = 10_000_000
NAME: Final = re.compile(r"[a-z0-9_-]{1,60}")


def tasks_of(directory: Path, names: Iterable[str]) -> Mapping[str, Task]:
    """The published tasks by name, and after them those of `names` that are the user's own and described in `directory`.

    Raises:
        DataError, CheckpointError: a description is damaged, or lies elsewhere.
    """
    own = {}
    for name in dict.fromkeys(names):
        if name not in TASKS and NAME.fullmatch(name):  # it may come from a stranger
            path = file_below(directory, f"tasks/{name}.json")
            if path.is_file():
                own[name] = custom.from_json(read_json(path, limit=TASK_BYTES), str(path))
                if own[name].name != name:
                    raise DataError(f"{path}: name is {brief(own[name].name)}; {name!r} was expected.")
    return {**TASKS, **own}


def known_task(name: str, tasks: Mapping[str, Task]) -> Task:
    """The one of `tasks`, or the published one that goes by that name too.

    Raises:
        ConfigError: there is none.
    """
    return tasks[name] if name in tasks else get_task(name)


def title_of(name: str) -> str:
    """As tables spell it; a task of the user's own goes by its name."""
    return TASKS[name].title if name in TASKS else name


def scored_splits(task: Task) -> tuple[Split, ...]:
    """The dev sets, and of the user's own files also a test set whose labels are known."""
    return task.dev if task.name in TASKS else (*task.dev, *task.test)


def text_columns(task: Task) -> tuple[str, ...]:
    """What tables call the texts of an example."""
    return task.hub_text_columns or tuple(map(str, task.splits[0].text_columns))
