"""`isinglass tasks`."""

from typing import TYPE_CHECKING

from isinglass.cli.display import console
from isinglass.cli.options import command
from isinglass.names import percent

if TYPE_CHECKING:
    from isinglass.tasks import Task

COLUMNS = ("task", "train", "dev", "test", "texts -> label", "labels", "metrics", "majority")


@command()
def tasks() -> None:
    """List the tasks: sizes, columns, metrics, and the score of always answering the most frequent label."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from isinglass.tasks import TASKS

    title = "Columns and labels of GLUE's files, sizes as published, majority on dev"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    rows = [_row(task) for task in TASKS.values()]
    for name, *column in zip(COLUMNS, *rows, strict=True):
        width = max(len(word) for cell in (name, *column) for word in cell.split())  # lines end between words
        table.add_column(name, width=width, justify="right" if name in ("train", "dev", "test") else "left")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _row(task: "Task") -> list[str]:
    """Return the cells of a task, `-` where there is nothing to tell."""
    train = [task.train] if task.train else []
    sizes = [" + ".join(str(split.rows) for split in splits) for splits in (train, task.dev, task.test)]
    columns = (train or task.test)[0]
    texts = f"{', '.join(map(str, columns.text_columns))} -> {columns.label_column or '-'}"
    labels = ", ".join(task.labels or []) or "{:g} to {:g}".format(*task.score_range)
    majority = " + ".join(", ".join(map(percent, scores)) for scores in task.dev_majority)
    return [cell or "-" for cell in (task.name, *sizes, texts, labels, ", ".join(task.metrics), majority)]
