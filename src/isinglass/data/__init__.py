"""From files to examples; `open_data` is the entrance."""

from pathlib import Path

from isinglass.config import TrainConfig
from isinglass.data.examples import Source
from isinglass.data.glue import PublishedFiles
from isinglass.errors import ConfigError
from isinglass.tasks import TASKS, Task, get_task


def open_data(config: TrainConfig, task: Task | None = None) -> Source:
    """Return the source of a run's examples: a published task, whose splits are read when requested, or the user's files.

    Args:
        task: the user's task as an earlier run resolved it; its labels and columns are not guessed again.

    Raises:
        ConfigError: there is no task of that name.
        DataError: the user's files are missing or damaged, or do not tell what the task is.
    """
    if config.train_file:
        from isinglass.data.custom import read_custom

        return read_custom(config, task)
    if task is not None and task.name not in TASKS:
        raise ConfigError(
            f"{task.title} is a custom task, and its files are not named here: `isinglass predict` needs none."
        )
    data_dir = None if config.data_dir is None else Path(config.data_dir)
    return PublishedFiles(task=get_task(config.task), data_dir=data_dir)
