"""Turn a user's own files into a task and its examples.

    tables (columns as they are written) -> rows (complete examples) -> labels (kind and names) -> task -> holdout (dev set)

A guess is made only where one choice is sensible, and a note says so. Where several are sensible, an error lists them.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Int64

from isinglass.config import TrainConfig
from isinglass.data.columns import Columns, read_tables
from isinglass.data.examples import Examples, LoadedSplits, Source, encode_labels
from isinglass.data.files import expand
from isinglass.data.formats import Table, open_table
from isinglass.data.hub_dataset import open_dataset
from isinglass.data.inputs import require_texts
from isinglass.data.labels import check_kind, resolve_task
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import brief, listed
from isinglass.tasks import Split, Task


def read_custom(config: TrainConfig, task: Task | None = None, *, with_test: bool = True) -> Source:
    """Return the user's own files, or a data set of the hub, as a source. Columns, kind and labels follow from the files.

    Args:
        task: as an earlier run resolved it: its columns, kind and labels are used again, and a split is read when requested.
        with_test: whether there is a test set, if there are data for one.

    Raises:
        DataError: a file is missing or damaged, or does not tell what the task is; the message names file, row and column.
        ConfigError: the settings do not fit the files.
        HubError: the data set cannot be had, or has no training split.
    """
    if task is not None:
        return KnownTaskFiles(config, task)
    own = OwnTables(config, with_test=with_test)
    tables = {split: own.open(split) for split in dict.fromkeys(("train", *own.splits))}  # without train an error says so
    _check_apart(tables)
    columns, notes = choose_columns(tables["train"][0], config)
    splits = {split: read_rows(split, some, columns, config) for split, some in tables.items()}
    return replace(resolve_source(splits, columns, config, (*own.notes, *notes)), dataset=own.dataset)


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


class OwnTables:
    """The tables of each split: the user's files or, for a split without any, those of a data set of the hub.

    Attributes:
        splits: those that there are.
        dataset: the data set of the hub, if there is one.
        notes: sentences about it.
    """

    def __init__(self, config: TrainConfig, *, with_test: bool = True) -> None:
        patterns = {"train": config.train_file, "dev": config.validation_file, "test": config.test_file}
        self._patterns = {split: names for split, names in patterns.items() if names}
        self._open_file = functools.partial(open_table, delimiter=config.delimiter, encoding=config.encoding)
        self._hub = None if config.dataset is None else open_dataset(config.dataset, config.subset)
        self.dataset = None if self._hub is None else self._hub.origin
        self.notes = () if self._hub is None else self._hub.notes
        on_hub = () if self._hub is None else self._hub.splits
        self.splits = [split for split in patterns if split in self._patterns or split in on_hub]
        if not with_test:
            self.splits = [split for split in self.splits if split != "test"]

    def open(self, split: str) -> Sequence[Table]:
        """Open the tables of a split; those of the hub are downloaded.

        Raises:
            DataError, HubError: there are none, or one is damaged.
        """
        if self._hub is not None and split not in self._patterns:
            return self._hub.open(split)
        return [self._open_file(path) for path in expand(self._patterns[split])]


class KnownTaskFiles(Source):
    """The files of a task that an earlier run resolved: a split is read when it is requested, and once.

    A test set may have columns of its own: those that the config names.
    """

    def __init__(self, config: TrainConfig, task: Task) -> None:
        first = task.splits[0]
        train, dev, test = (replace(first, name=name) for name in ("train", "dev", "test"))
        self._config = config
        self._columns = Columns(texts=task.column_names, label=str(first.label_column))
        self._test_columns = _with_named(self._columns, config)
        self._read_file = functools.cache(self._read_rows)
        self._tables = OwnTables(config)
        has_test = "test" in self._tables.splits
        task = replace(task, train=train, dev=(dev,), test=(test,) if has_test else ())
        with suppress(DataError, HubError):  # raised again when the test set is read
            if has_test and not _have_labels(self._tables.open("test"), self._test_columns):
                task = _with_hidden_test_labels(task)
        super().__init__(task=task, notes=self._tables.notes, dataset=self._tables.dataset)

    def read(self, split: Split) -> Examples:
        """Return the examples of a split."""
        if split.name == "test" or "dev" in self._tables.splits:
            return self._read_file(split.name)
        return self._divided[split.name]

    def _read_rows(self, split: str) -> Examples:
        tables, columns = self._tables.open(split), self._columns
        if split == "test":
            columns = self._test_columns
            for table in tables:
                require_texts(table, columns.texts, self._columns.texts)
        examples = read_rows(split, tables, columns, self._config)
        check_kind(examples, self.task)
        return examples

    def why_unlabelled(self, split: Split) -> str:  # noqa: ARG002
        """Name the columns: the labels may stand in one of another name. See `Source.why_unlabelled`."""
        table = self._tables.open("test")[0]
        require_texts(table, self._test_columns.texts, self._columns.texts)
        label = brief(self._test_columns.label)
        found = f"{table.file.origin} has no column {label} with the labels; found {listed(table.columns)}"
        return f"{found}: name yours with --label-column, or use `isinglass predict` if there are no labels."

    @functools.cached_property
    def _divided(self) -> dict[str, Examples]:
        config = self._config
        train, dev, note = divide(self._read_file("train"), self.task, config.validation_fraction, config.split_seed)
        return {"train": replace(train, notes=(*train.notes, note)), "dev": replace(dev, notes=(*dev.notes, note))}


def _with_named(columns: Columns, config: TrainConfig) -> Columns:
    """Return the columns with the names that the config has for them.

    Raises:
        ConfigError: the config names a second text where the task has one.
    """
    if config.text_column2 is not None and len(columns.texts) == 1:
        raise ConfigError("The model is for single texts: leave --text-column2 out.")
    named = (config.text_column, config.text_column2)
    texts = tuple(name or known for name, known in zip(named, columns.texts, strict=False))
    return Columns(texts=texts, label=config.label_column or columns.label)


def _with_hidden_test_labels(task: Task) -> Task:
    return replace(task, test=tuple(replace(split, label_column=None) for split in task.test))


def _check_apart(tables: Mapping[str, Sequence[Table]]) -> None:
    """Refuse a file that belongs to two splits."""
    split_of_path: dict[str, str] = {}
    for split, table in ((split, table) for split, some in tables.items() for table in some):
        other = split_of_path.setdefault(os.path.realpath(table.file.path), split)
        if other != split:
            raise DataError(f"{table.file.origin} is both {other} and {split} set: a score on it would tell nothing.")


# Names of columns, without case, spaces, `_` and `-`. The first rank of TEXTS or LABELS that matches any column must match
# exactly one.
PAIRS: Final = "sentence1+sentence2 sentencea+sentenceb text1+text2 texta+textb question1+question2 premise+hypothesis"
TEXTS: Final = (
    "text texts",
    "sentence sentences review reviewtext content comment commenttext body message sms post tweet document description "
    "utterance question query answer passage abstract title headline subject prompt",
)
LABELS: Final = (
    "label labels goldlabel",
    "target targets class classes category categories sentiment score rating ratings stars intent topic topics emotion "
    "polarity similarity tag tags isduplicate y",
)
QUANTILES: Final = 10  # parts of a regression's range, from each of which the dev set takes its share
_WITHOUT_SEPARATORS: Final = str.maketrans("", "", "_- ")


def choose_columns(table: Table, config: TrainConfig) -> tuple[Columns, tuple[str, ...]]:
    """Choose the columns of text and label: those that the config names, and the others by their names.

    Returns:
        The columns, and sentences about what was guessed.

    Raises:
        DataError: a named column is missing, or there are no candidates or several.
        ConfigError: a column is named for two purposes.
    """
    texts = [name for name in (config.text_column, config.text_column2) if name is not None]
    labels = [] if config.label_column is None else [config.label_column]
    named = [*texts, *labels]
    if config.text_column is None and config.text_column2 is not None:
        raise ConfigError("text_column2 is the second text of a pair: name text_column too.")
    if len({*named}) < len(named):
        raise ConfigError(f"The columns {listed(named)} are named for two purposes: a column serves for one.")
    table.require(named)
    unnamed = [name for name in table.columns if name not in named]
    texts = texts or _guess_pair(unnamed) or _guess(unnamed, TEXTS)
    labels = labels or _guess(unnamed, LABELS)
    rest = [name for name in table.columns if name not in (*texts, *labels)]
    if len(table.columns) == 2 and len(rest) == 1:  # the other one of two
        texts, labels = texts or rest, labels or rest
    if not (texts and labels):
        options = {"text (--text-column, for pairs --text-column2 too)": texts, "label (--label-column)": labels}
        doubt = " and which is ".join(option for option, chosen in options.items() if not chosen)
        raise DataError(
            f"{table.file.origin}: it is not plain which column is {doubt}; its first row names {listed(table.columns)}."
        )
    columns = Columns(texts=tuple(texts), label=labels[0])
    table.require(columns.names)
    if len(named) == len(columns.names):
        return columns, ()
    return columns, (f"Columns: text {listed(texts)}, label {brief(columns.label)} (guessed).",)


def _guess_pair(columns: Sequence[str]) -> list[str]:
    """Return the one pair of text columns; nothing if there are several or a column for a single text."""
    by_plain_name = {_plain(name): name for name in columns}
    usual_pairs = [names.split("+") for names in PAIRS.split()]
    pairs = [pair for pair in usual_pairs if by_plain_name.keys() >= {*pair}]
    if len(pairs) != 1 or by_plain_name.keys() & TEXTS[0].split():
        return []
    return [by_plain_name[name] for name in pairs[0]]


def _guess(columns: Sequence[str], ranks: Sequence[str]) -> list[str]:
    """Return the only column of the first rank that matches any; nothing if several match or none does."""
    matches = ([name for name in columns if _plain(name) in rank.split()] for rank in ranks)
    first = next(filter(None, matches), [])
    return first if len(first) == 1 else []


def _plain(name: str) -> str:
    return name.strip().lower().translate(_WITHOUT_SEPARATORS)


def _have_labels(tables: Sequence[Table], columns: Columns) -> bool:
    return any(columns.label in table.columns for table in tables)


def read_rows(split: str, tables: Sequence[Table], columns: Columns, config: TrainConfig) -> Examples:
    """Read the complete rows of one split's tables, in the order of the files; only a test set may lack the labels.

    Raises:
        DataError: a column is missing, a value cannot be used, or a row is incomplete; the message names file and row.
        ConfigError: the label delimiter does not fit the labels.
    """
    if split == "test" and not _have_labels(tables, columns):
        columns = Columns(texts=columns.texts)
    examples, _ = read_tables(tables, columns)
    if config.label_delimiter is not None and examples.labels is not None:
        examples = _split_labels(examples, config.label_delimiter)
    if split == "test" and examples.labels is not None and all(map(_is_blank, examples.labels)):
        note = f"{examples.origin}: the column {brief(columns.label)} is empty: hidden labels."
        examples = replace(examples, labels=None, notes=(*examples.notes, note))
    return _with_distinct_labels(_complete(examples, columns, drop_incomplete=config.drop_incomplete))


def _split_labels(examples: Examples, delimiter: str) -> Examples:
    """Split each label text into a tuple of names; an empty text is no label.

    Raises:
        ConfigError: the delimiter is empty, or the labels are lists already.
    """
    if not delimiter:
        raise ConfigError("label_delimiter is empty; what stands between two labels was expected.")
    labels = examples.labels or ()
    for index, label in enumerate(labels):
        if isinstance(label, tuple):
            place = examples.where(index)
            raise ConfigError(f"{place}: the labels are a list, which needs no label_delimiter: leave it out.")
    names = {label: tuple(filter(None, map(str.strip, label.split(delimiter)))) for label in {*labels} - {None}}
    return replace(examples, labels=[*map(names.get, labels)])


def _with_distinct_labels(examples: Examples) -> Examples:
    """Count a label once that stands twice in a list.

    Raises:
        DataError: some labels are lists, others are names.
    """
    labels = examples.labels or ()
    is_list = [isinstance(label, tuple) for label in labels]
    if not any(is_list):
        return examples
    if not all(is_list):
        name, names = examples.where(is_list.index(False)), examples.where(is_list.index(True))
        raise DataError(f"{name}: the label is one name, in {names} a list: write lists everywhere.")
    return replace(examples, labels=[tuple(dict.fromkeys(names)) for names in labels])


def _complete(examples: Examples, columns: Columns, *, drop_incomplete: bool) -> Examples:
    """Return the examples that have all texts and a label.

    Raises:
        DataError: some have not and `drop_incomplete` is false, or none has.
    """
    values = examples.texts if examples.labels is None else (*examples.texts, examples.labels)
    named = zip(columns.names, values, strict=False)  # hidden labels have a name, but no values
    gaps = {name: np.fromiter(map(_is_blank, column), bool, len(examples)) for name, column in named}
    is_incomplete = np.logical_or.reduce([*gaps.values()])
    count = int(is_incomplete.sum())
    if count == 0:
        return examples
    first = int(is_incomplete.argmax())
    if not drop_incomplete:
        column = next(name for name, is_blank in gaps.items() if is_blank[first])
        others = f" ({count - 1:,} more rows are incomplete)" if count > 1 else ""
        raise DataError(
            f"{examples.where(first)}: the column {brief(column)} is empty{others}: fill it in, or leave such rows out with "
            f"--drop-incomplete."
        )
    if count == len(examples):
        raise DataError(f"{examples.origin}: no row has all of {listed(gaps)}: nothing is left to use.")
    note = f"{examples.origin}: {count:,} incomplete row(s) left out, the first: {examples.where(first)}."
    return replace(examples.take(np.flatnonzero(~is_incomplete)), notes=(*examples.notes, note))


def _is_blank(value: Any) -> bool:
    """Return whether a text or label is missing; an example of several labels may have none of them."""
    return value is None or (type(value) is str and (not value or value.isspace()))


def divide(examples: Examples, task: Task, fraction: float, seed: int) -> tuple[Examples, Examples, str]:
    """Divide examples into a training and a dev set, both in the order of the file.

    Each label, or each part of a regression's range, gives `fraction` of its rows: at least one where it has two.

    Returns:
        The training set, the dev set, and a sentence about them.

    Raises:
        DataError: a label or score is not the task's, or there are too few rows.
    """
    parts = max(1, min(QUANTILES, int(len(examples) * fraction)))
    strata, description = task.kind.strata(encode_labels(examples, task, task.labels), parts)
    is_dev = hold_out(strata, fraction, seed)
    if not is_dev.any():
        raise DataError(f"{examples.origin}: too few rows to hold some back for validation: give a --validation-file.")
    dev, train = np.flatnonzero(is_dev), np.flatnonzero(~is_dev)
    note = (
        f"The dev set is {len(dev):,} of {len(examples):,} training rows, {fraction:.0%} {description} (split_seed {seed}); "
        f"{len(train):,} are trained on."
    )
    return examples.take(train), examples.take(dev), note


def hold_out(strata: Int64[np.ndarray, " N"], fraction: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Return which rows are held back: `fraction` of each stratum, rounded, at least one, and never all.

    Scikit-learn's split refuses strata of one row; here such rows are trained on.
    """
    rng = np.random.default_rng(seed)
    is_held = np.zeros(len(strata), bool)
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        is_held[rng.choice(rows, count, replace=False)] = True
    return is_held
