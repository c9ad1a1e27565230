"""From files to examples: `load_split` is the one door."""

from pathlib import Path

from isinglass.data import hub, tsv
from isinglass.data.examples import Examples
from isinglass.tasks import Split, Task
from isinglass.tasks.demo import DEMO, demo_data_dir


def load_split(task: Task, split: Split, data_dir: Path | None) -> Examples:
    """Read one split: from `data_dir` in GLUE's layout, or, if it is None, from the hub (the task `demo`: from the wheel).

    Raises:
        DataError: the data are missing or damaged.
        HubError: the hub cannot be reached and its cache does not hold the file.
    """
    if task is DEMO and data_dir is None:
        data_dir = demo_data_dir()
    return hub.read_split(task, split) if data_dir is None else tsv.read_split(task, split, data_dir)
