"""`isinglass tasks`."""

from isinglass.cli.display import console
from isinglass.cli.exits import errors_in_one_line
from isinglass.names import percent


def tasks() -> None:
    """List the tasks: sizes, columns, metrics, and the score of always answering the most frequent label."""
    with errors_in_one_line():
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        from isinglass.tasks import TASKS

        heads = ("task", "train", "dev", "test", "texts -> label", "labels", "metrics", "majority")
        rows = [heads]
        for task in TASKS.values():
            first = task.train or task.test[0]
            label = "-" if first.label_column is None else first.label_column
            rows.append(
                (
                    task.name,
                    str(task.train.rows) if task.train else "-",
                    " + ".join(str(split.rows) for split in task.dev) or "-",
                    " + ".join(str(split.rows) for split in task.test) or "-",
                    f"{', '.join(map(str, first.text_columns))} -> {label}",
                    f"{task.score_range[0]:g} to {task.score_range[1]:g}" if task.labels is None else ", ".join(task.labels),
                    ", ".join(task.metrics),
                    " + ".join(", ".join(percent(value) for value in one) for one in task.dev_majority) or "-",
                )
            )
        table = Table(
            title="Columns and labels of GLUE's files, sizes as published, majority on dev",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for name, *column in zip(*rows, strict=True):
            width = max(len(word) for cell in (name, *column) for word in cell.split())  # lines end between words
            table.add_column(name, width=width, justify="right" if name in ("train", "dev", "test") else "left")
        for row in rows[1:]:
            table.add_row(*row)
        console(stderr=False).print(table)
