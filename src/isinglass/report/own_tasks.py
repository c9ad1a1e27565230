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
    """Return the published tasks by name, followed by the user's own among `names`, as `directory` describes them.

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
    """Return the task of that name among `tasks`, or the published task that goes by that name too.

    Raises:
        ConfigError: there is none.
    """
    return tasks[name] if name in tasks else get_task(name)


def title_of(name: str) -> str:
    """Return the name of a task as tables spell it; that of the user's own task unchanged."""
    return TASKS[name].title if name in TASKS else name


def scored_splits(task: Task) -> tuple[Split, ...]:
    """Return the dev sets, and a test set of the user's own."""
    return task.dev if task.name in TASKS else (*task.dev, *task.test)


def text_columns(task: Task) -> tuple[str, ...]:
    """Return what tables call the texts of an example."""
    return task.hub_text_columns or tuple(map(str, task.splits[0].text_columns))
