"""From files to examples; `open_data` is the entrance."""

from pathlib import Path

from isinglass.config import TrainConfig
from isinglass.data.examples import Source
from isinglass.data.glue import PublishedFiles
from isinglass.errors import ConfigError
from isinglass.tasks import TASKS, Task, get_task


def open_data(config: TrainConfig, task: Task | None = None, *, with_test: bool = True) -> Source:
    """Return the source of a run's examples: a published task, whose splits are read when requested, or the user's data.

    Args:
        task: the user's task as an earlier run resolved it; its labels and columns are not guessed again.
        with_test: whether the user's data have a test set, if there is one; otherwise it is not read.

    Raises:
        ConfigError: there is no task of that name.
        DataError: the user's files are missing or damaged, or do not tell what the task is.
        HubError: the hub lacks the data set, or cannot be reached and its cache lacks a file.
    """
    if config.has_own_data:
        from isinglass.data.custom import read_custom

        return read_custom(config, task, with_test=with_test)
    if task is not None and task.name not in TASKS:
        raise ConfigError(
            f"{task.title} is a custom task, and its files are not named here: `isinglass predict` needs none."
        )
    data_dir = None if config.data_dir is None else Path(config.data_dir)
    return PublishedFiles(task=get_task(config.task), data_dir=data_dir)
