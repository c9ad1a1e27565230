"""The user's own files as a task: columns, kind and labels."""

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import numpy as np

from isinglass.config import TrainConfig
from isinglass.data.custom.complete import complete, separated
from isinglass.data.custom.holdout import divide
from isinglass.data.custom.task import check_kind, hiding_test, task_data
from isinglass.data.examples import Examples
from isinglass.data.source import TaskData
from isinglass.data.tables.file import TableFile, expand
from isinglass.data.tables.schema import Columns, choose_columns
from isinglass.data.tables.table import open_table, read_table
from isinglass.data.texts import StoredTexts
from isinglass.errors import DataError
from isinglass.tasks import Split, Task
from isinglass.tasks.custom import custom_task


def read_custom(config: TrainConfig, task: Task | None = None) -> TaskData:
    """The user's own files as a task: its columns, kind and labels told by what they hold, where the config does not say.

    Args:
        task: as an earlier run found it; its columns, kind and labels are kept, and only the splits asked for are read.

    Raises:
        DataError: a file is missing or damaged, or does not tell what the task is; with file, row and column.
        ConfigError: the settings do not fit the files.
    """
    if task is not None:
        return _read_known(config, task)
    files = {name: _open_files(config, name) for name in _patterns(config)}
    _check_apart(files)
    columns, notes = choose_columns(files["train"][0], config)
    splits = {name: _read_split(name, some, columns, config) for name, some in files.items()}
    return task_data(
        splits,
        columns,
        name=config.task,
        kind=config.kind,
        positive_label=config.positive_label,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
        notes=notes,
    )


def _patterns(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    every = {"train": config.train_file, "dev": config.validation_file, "test": config.test_file}
    return {name: patterns for name, patterns in every.items() if patterns}


def _open_files(config: TrainConfig, name: str) -> list[TableFile]:
    return [open_table(path, config.delimiter) for path in expand(_patterns(config)[name])]


def _check_apart(files: Mapping[str, Sequence[TableFile]]) -> None:
    seen: dict[str, str] = {}
    for name, some in files.items():
        for file in some:
            if (other := seen.setdefault(os.path.realpath(file.path), name)) != name:
                raise DataError(f"{file.origin} is both {other} and {name} set: a score on it would tell nothing.")


def _read_split(name: str, files: Sequence[TableFile], columns: Columns, config: TrainConfig) -> Examples:
    """The complete rows of one split's files, in their order; only a test set may lack the labels."""
    label = None if name == "test" and not any(columns.label in file.columns for file in files) else columns.label
    for file in files:
        file.require([*columns.texts, *([] if label is None else [label])])
    tables = [read_table(file, columns.texts, label) for file in files]
    notes = [*{file.delimiter: note for file in reversed(files) for note in file.notes}.values()]  # once, not for each file
    notes += [f"{file.origin}: {table.empty:,} empty row(s) left out." for file, table in zip(files, tables) if table.empty]
    units = {file.unit for file in files}
    origins = [*chain.from_iterable([file.origin] * len(table.numbers) for file, table in zip(files, tables))]
    examples = Examples(
        texts=tuple(_joined(parts) for parts in zip(*(table.texts for table in tables), strict=True)),
        labels=None if label is None else [*chain.from_iterable(table.labels or () for table in tables)],  # type: ignore[arg-type]
        origin=files[0].origin if len(files) == 1 else f"{files[0].origin} and {len(files) - 1} more file(s)",
        line_numbers=np.concatenate([table.numbers for table in tables]),
        unit=units.pop() if len(units) == 1 else "row",
        notes=tuple(notes),
        origins=origins if len(files) > 1 else (),
    )
    if config.label_delimiter is not None and label is not None:
        examples = replace(examples, labels=separated(examples, config.label_delimiter))
    names = [*columns.texts, *([] if label is None else [label])]
    return complete(examples, names, drop=config.drop_incomplete, may_hide=name == "test")


def _joined(columns: Sequence[StoredTexts]) -> StoredTexts:
    """The first column, the others behind it."""
    for other in columns[1:]:
        columns[0].extend(other)
    return columns[0]


def _read_known(config: TrainConfig, task: Task) -> TaskData:
    """The same for a task that is known: a split is read when it is asked for."""
    first = task.splits[0]
    columns = Columns(texts=tuple(map(str, first.text_columns)), label=str(first.label_column))
    task = custom_task(
        name=task.name,
        kind=task.kind,
        labels=task.labels,
        text_columns=columns.texts,
        label_column=columns.label,
        splits=["train", "dev", *(["test"] if config.test_file else [])],
        positive_label=task.positive_label,
    )
    with suppress(DataError):  # told when the test set is read
        if config.test_file and not any(columns.label in file.columns for file in _open_files(config, "test")):
            task = hiding_test(task)

    @functools.cache
    def load(name: str) -> Examples:
        examples = _read_split(name, _open_files(config, name), columns, config)
        check_kind(examples, task)
        return examples

    @functools.cache
    def divided() -> dict[str, Examples]:
        train, dev, note = divide(load("train"), task, config.validation_fraction, config.split_seed)
        return {"train": replace(train, notes=(*train.notes, note)), "dev": replace(dev, notes=(*dev.notes, note))}

    def read(split: Split) -> Examples:
        return load(split.name) if split.name == "test" or config.validation_file else divided()[split.name]

    return TaskData(task=task, read=read)
