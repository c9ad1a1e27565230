"""A user's own files as a source of examples."""

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from isinglass.config import TrainConfig
from isinglass.data.custom.holdout import divide
from isinglass.data.custom.rows import has_labels, read_rows
from isinglass.data.custom.task import check_kind, resolve_task
from isinglass.data.examples import Examples
from isinglass.data.files import expand
from isinglass.data.source import LoadedSplits, Source
from isinglass.data.tables import open_table
from isinglass.data.tables.schema import choose_columns
from isinglass.data.tables.table import Columns, Table
from isinglass.errors import DataError
from isinglass.tasks import Split, Task
from isinglass.tasks.custom import custom_task


def read_custom(config: TrainConfig, task: Task | None = None) -> Source:
    """Return the user's own files as a source; columns, kind and labels follow from the files where the config is silent.

    Args:
        task: as an earlier run resolved it: its columns, kind and labels are used again, and a split is read when requested.

    Raises:
        DataError: a file is missing or damaged, or does not tell what the task is; the message names file, row and column.
        ConfigError: the settings do not fit the files.
    """
    if task is not None:
        return KnownTaskFiles(config, task)
    tables = {split: _open_tables(config, split) for split in _patterns(config)}
    _check_apart(tables)
    columns, notes = choose_columns(tables["train"][0], config)
    splits = {split: read_rows(split, some, columns, config) for split, some in tables.items()}
    return resolve_source(splits, columns, config, notes)


def resolve_source(
    splits: Mapping[str, Examples], columns: Columns, config: TrainConfig, notes: Sequence[str] = ()
) -> LoadedSplits:
    """Resolve the task that the examples make; hold a dev set back from the training set if there is none.

    Args:
        notes: sentences that come before those about the examples.
    """
    task, task_notes = resolve_task(splits, columns, config)
    for examples in splits.values():
        check_kind(examples, task)
    all_notes = [*notes, *(note for examples in splits.values() for note in examples.notes), *task_notes]
    splits = {split: replace(examples, notes=()) for split, examples in splits.items()}
    if "dev" not in splits:
        train, dev, note = divide(splits["train"], task, config.validation_fraction, config.split_seed)
        splits |= {"train": train, "dev": dev}
        all_notes.append(note)
    if "test" in splits and splits["test"].labels is None:
        task = _with_hidden_test_labels(task)
    return LoadedSplits(task=task, splits=splits, notes=tuple(all_notes))


class KnownTaskFiles:
    """The files of a task that an earlier run resolved: a `Source` that reads a split when it is requested, and once."""

    notes: tuple[str, ...] = ()

    def __init__(self, config: TrainConfig, task: Task) -> None:
        split = task.splits[0]
        self._config = config
        self._columns = Columns(texts=tuple(map(str, split.text_columns)), label=str(split.label_column))
        self._tables = functools.cache(functools.partial(_open_tables, config))
        self._load = functools.cache(self._read_split)
        self._divide = functools.cache(self._divide_train)
        self.task = custom_task(
            name=task.name,
            kind=task.kind.name,
            labels=task.labels,
            text_columns=self._columns.texts,
            label_column=str(self._columns.label),
            splits=[*dict.fromkeys(("train", "dev", *_patterns(config)))],
            positive_label=task.positive_label,
        )
        with suppress(DataError):  # raised again when the test set is read
            if config.test_file and not has_labels(self._tables("test"), self._columns):
                self.task = _with_hidden_test_labels(self.task)

    def read(self, split: Split) -> Examples:
        """Return the examples of a split."""
        if split.name == "test" or self._config.validation_file:
            return self._load(split.name)
        return self._divide()[split.name]

    def _read_split(self, split: str) -> Examples:
        examples = read_rows(split, self._tables(split), self._columns, self._config)
        check_kind(examples, self.task)
        return examples

    def _divide_train(self) -> dict[str, Examples]:
        config = self._config
        train, dev, note = divide(self._load("train"), self.task, config.validation_fraction, config.split_seed)
        return {"train": replace(train, notes=(*train.notes, note)), "dev": replace(dev, notes=(*dev.notes, note))}


def _with_hidden_test_labels(task: Task) -> Task:
    return replace(task, test=tuple(replace(split, label_column=None) for split in task.test))


def _patterns(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """Return the names and patterns of the files of each split that the config names."""
    patterns = {"train": config.train_file, "dev": config.validation_file, "test": config.test_file}
    return {split: names for split, names in patterns.items() if names}


def _open_tables(config: TrainConfig, split: str) -> list[Table]:
    return [open_table(path, config.delimiter) for path in expand(_patterns(config)[split])]


def _check_apart(tables: Mapping[str, Sequence[Table]]) -> None:
    """Refuse a file that belongs to two splits."""
    split_of_path: dict[str, str] = {}
    for split, table in ((split, table) for split, some in tables.items() for table in some):
        other = split_of_path.setdefault(os.path.realpath(table.file.path), split)
        if other != split:
            raise DataError(f"{table.origin} is both {other} and {split} set: a score on it would tell nothing.")
