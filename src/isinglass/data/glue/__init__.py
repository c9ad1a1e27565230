"""Read GLUE and the demo task: TSV as GLUE distributes it (`tsv`), Parquet as the hub holds it (`parquet`)."""

from dataclasses import dataclass
from pathlib import Path

from isinglass.data.examples import Examples
from isinglass.data.glue import parquet, tsv
from isinglass.tasks import Split, Task
from isinglass.tasks.demo import DEMO, demo_data_dir


@dataclass(frozen=True, kw_only=True)
class PublishedFiles:
    """The files of a published task, as a `Source`.

    Attributes:
        data_dir: a directory in GLUE's layout; None: the hub, or the installed package for the task `demo`.
    """

    task: Task
    data_dir: Path | None
    notes: tuple[str, ...] = ()

    def read(self, split: Split) -> Examples:
        """Read one split.

        Raises:
            DataError: the data are missing or damaged.
            HubError: the hub cannot be reached and its cache does not hold the file.
        """
        if self.data_dir is not None:
            return tsv.read_split(self.task, split, self.data_dir)
        if self.task is DEMO:
            return tsv.read_split(self.task, split, demo_data_dir())
        return parquet.read_split(self.task, split)
