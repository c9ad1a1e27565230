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


def _row(task: "Task") -> tuple[str, ...]:
    first = task.train or task.test[0]
    labels = task.labels or [f"{limit:g}" for limit in task.score_range]
    return (
        task.name,
        str(task.train.rows) if task.train else "-",
        " + ".join(str(split.rows) for split in task.dev) or "-",
        " + ".join(str(split.rows) for split in task.test) or "-",
        f"{', '.join(map(str, first.text_columns))} -> {first.label_column or '-'}",
        (", " if task.labels else " to ").join(labels),
        ", ".join(task.metrics),
        " + ".join(", ".join(map(percent, scores)) for scores in task.dev_majority) or "-",
    )
