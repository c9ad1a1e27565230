"""The options that several commands share, and what is made of their values."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isinglass.errors import ConfigError

DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Directory in GLUE's layout (holds MRPC/train.tsv ...). Default: the hub."),
]

Partial = Literal["refuse", "absent", "majority"]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")]
TrainFile = Annotated[
    list[str] | None,
    typer.Option(help="Your own data: CSV, TSV, JSON Lines or Parquet, compressed or not; several files, or a pattern."),
]
ValidationFile = Annotated[list[str] | None, typer.Option(help="What scores the model while you choose settings.")]
TestFile = Annotated[list[str] | None, typer.Option(help="What scores it in the end, if it has labels, or is predicted.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text, or the first of a pair.")]
TextColumn2 = Annotated[str | None, typer.Option(help="Column of the second text of a pair.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the label.")]
Delimiter = Annotated[str | None, typer.Option(help="Between columns.  [default: by the header]")]
KindName = Annotated[str | None, typer.Option(help="classification, regression or multilabel.  [default: by the labels]")]
LabelDelimiter = Annotated[str | None, typer.Option(help="Between several labels of one example.")]
PositiveLabel = Annotated[str | None, typer.Option(help="The one of two labels that F1 counts.")]
DropIncomplete = Annotated[
    bool | None, typer.Option("--drop-incomplete", help="Leave rows without a text or a label out; they are counted.")
]
RunDir = Annotated[Path, typer.Argument(help="A run directory, or a checkpoint directory together with --task.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Use the model on another task with the same labels (ax).")]
On = Annotated[
    str | None,
    typer.Option(help="ray (a local one, or the one that RAY_ADDRESS names) or ray://HOST:PORT: several runs at once."),
]
CpusPerRun = Annotated[
    int | None, typer.Option(min=1, help="With --on: of each run.  [default: all of a node's, shared among its GPUs]")
]
GpusPerRun = Annotated[
    float | None, typer.Option(help="With --on: of each run, 0.5 say.  [default: 1 where nodes have GPUs]")
]
Storage = Annotated[
    str | None,
    typer.Option(help="With --on: a directory that all nodes see, or an URL, for checkpoints.  [local Ray: in OUTPUT]"),
]
CheckpointEvery = Annotated[
    str | None, typer.Option(help="With --on: what a lost run goes on from: 200steps, 1epoch, 5min, never.  [default: 5min]")
]


def names(text: str | None) -> tuple[str, ...] | None:
    """Of a comma-separated list."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def task_name(task: str | None, train_file: list[str] | None) -> str:
    """A task that is known, or with files of the user's own its name: by default that of the first file."""
    from isinglass.tasks import TASKS, get_task

    if not train_file:
        return get_task(task or "demo").name
    name = task or re.sub(r"[^a-z0-9_-]+", "-", Path(train_file[0]).name.split(".")[0].lower()).strip("-") or "texts"
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", name):
        raise ConfigError(f"{name!r} is no name for a task: letters a to z, digits, - and _ were expected.")
    if name in TASKS:
        if task is None:
            return f"{name}-own"
        raise ConfigError(f"{name} is a task that `isinglass tasks` lists: give your own files another name.")
    return name


def own_files(train_file: list[str] | None, **given: Any) -> dict[str, Any]:
    """What was said of the user's own files.

    Raises:
        ConfigError: there are none that it could be said of.
    """
    for name, value in given.items():
        if value is not None and not train_file:
            raise ConfigError(f"--{name.replace('_', '-')} is for your own files: name them with --train-file.")
    return given


def place_of(on: str | None, cpus: int | None, gpus: float | None, storage: str | None, every: str | None) -> Any:
    """Where to run, if not here.

    Raises:
        ConfigError: an option is given that is for a cluster.
    """
    given = {"cpus": cpus, "gpus": gpus, "storage": storage, "checkpoint_every": every}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if on is None:
        for name in chosen:
            option = name.replace("_", "-") + ("-per-run" if name in ("cpus", "gpus") else "")
            raise ConfigError(f"--{option} is for runs on a cluster: name it with --on ray.")
        return None
    from isinglass.executors.ray import Place

    return Place(on=on, **chosen)


def finished_run(
    run_dir: Path, task: str | None, data_dir: str | None, precision: str | None, test_file: list[str] | None = None
) -> Any:
    """The model of a run directory or a checkpoint, with what flags change about its task and settings."""
    from dataclasses import replace

    from isinglass.runs.loading import load_run
    from isinglass.tasks import get_task

    finished = load_run(run_dir, task=None if task is None else get_task(task).name)
    changes: dict[str, Any] = {"compile": False, "layout": "auto"}
    changes |= {} if data_dir is None else {"data_dir": data_dir}
    if test_file:
        from isinglass.tasks import TASKS, custom

        if finished.task.name in TASKS:
            raise ConfigError(f"{run_dir} is of {finished.task.title}, whose sets are known: --test-file is for your own.")
        changes["test_file"] = test_file
        finished = replace(finished, task=custom.with_test(finished.task))
    changes |= {} if precision is None else {"precision": precision}
    from isinglass.config import as_dict, resolve

    settings = as_dict(finished.config) | changes
    return replace(finished, config=resolve(task=settings.pop("task"), flags=settings))
