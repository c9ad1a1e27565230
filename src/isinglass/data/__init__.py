"""From files to examples: `open_data` is the one door."""

from functools import partial
from pathlib import Path

from isinglass.config import TrainConfig
from isinglass.data.examples import Examples
from isinglass.data.glue import parquet, tsv
from isinglass.data.source import TaskData
from isinglass.errors import ConfigError
from isinglass.tasks import TASKS, Split, Task, get_task
from isinglass.tasks.demo import DEMO, demo_data_dir


def open_data(config: TrainConfig, task: Task | None = None) -> TaskData:
    """The task of a run and its data: a published task's, whose splits are read when asked for, or the user's own files.

    Args:
        task: the user's own task as an earlier run found it; its labels and columns are not guessed anew.

    Raises:
        ConfigError: there is no task of that name.
        DataError: the user's files are missing or damaged, or do not tell what the task is.
    """
    if config.train_file:
        from isinglass.data.custom.files import read_custom

        return read_custom(config, task)
    if task is not None and task.name not in TASKS:
        raise ConfigError(
            f"{task.title} is a task of someone's own, whose files are not here: `isinglass predict` needs none."
        )
    known = get_task(config.task)
    return TaskData(task=known, read=partial(load_split, known, data_dir=config.data_dir))


def load_split(task: Task, split: Split, data_dir: str | Path | None) -> Examples:
    """Read one split: from `data_dir` in GLUE's layout, or, if it is None, from the hub (the task `demo`: from the wheel).

    Raises:
        DataError: the data are missing or damaged.
        HubError: the hub cannot be reached and its cache does not hold the file.
    """
    if data_dir is not None:
        return tsv.read_split(task, split, Path(data_dir))
    return tsv.read_split(task, split, demo_data_dir()) if task is DEMO else parquet.read_split(task, split)
