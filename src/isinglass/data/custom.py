"""From the user's own files, or lists in memory, to a task and its examples: `read_custom`, `memory_data`, `read_texts`.

    files -> tables (columns, as they are written) -> examples (complete, with their places) -> labels -> task, dev split

What is guessed has one sensible choice, and stands in the notes; what has several is a mistake that names the options.
"""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Int64

from isinglass.config import KindChoice, TrainConfig
from isinglass.data.examples import Examples, TaskData, encode_labels
from isinglass.data.labels import find_labels
from isinglass.data.tables import (
    RawLabel,
    TableFile,
    UnusableValue,
    expand,
    is_table,
    label_list,
    open_table,
    read_table,
    text_array,
)
from isinglass.data.texts import StoredTexts
from isinglass.data.tsv import read_user_texts
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed
from isinglass.tasks import TASKS, Split, Task
from isinglass.tasks.custom import custom_task

# What columns are called, without case, spaces, `_` and `-`. Of the first line of TEXTS or LABELS that has any of a file's
# columns there must be one only.
PAIRS: Final = (
    ("sentence1", "sentence2"),
    ("sentencea", "sentenceb"),
    ("text1", "text2"),
    ("texta", "textb"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
)
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
QUANTILES: Final = 10  # of a regression's scores, from each of which the dev set takes its share


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that are read."""

    texts: tuple[str, ...]
    label: str


# ---- doors -------------------------------------------------------------


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
    return _task_data(
        splits,
        columns,
        name=config.task,
        kind=config.kind,
        positive_label=config.positive_label,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
        notes=notes,
    )


def memory_data(
    *,
    name: str,
    texts: tuple[Sequence[str], ...],
    labels: Sequence[Any],
    dev: tuple[tuple[Sequence[str], ...], Sequence[Any]] | None = None,
    task: Task | None = None,
    kind: KindChoice = "auto",
    positive_label: str | None = None,
    validation_fraction: float = 0.1,
    split_seed: int = 42,
) -> TaskData:
    """Lists in memory as a task, as `read_custom` does it with files.

    Args:
        texts: one column of N texts, or two.
        labels: N texts, numbers or booleans; or N lists of such (multi-label).
        dev: texts and labels to validate with; None: a share of the others.
        task: as an earlier run found it; its kind and labels are kept.

    Raises:
        DataError: a text or a label is missing or none, or the labels do not tell what the task is; with its index.
        ConfigError: the settings do not fit the labels.
    """
    columns = Columns(texts=("text", "text2")[: len(texts)], label="label")
    splits = {"train": memory_examples(texts, labels, name="training data")}
    if dev is not None:
        splits["dev"] = memory_examples(*dev, name="validation data")
    return _task_data(
        splits,
        columns,
        name=name,
        kind=kind,
        positive_label=positive_label,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
        task=task,
    )


def memory_examples(texts: tuple[Sequence[str], ...], labels: Sequence[Any] | None = None, *, name: str) -> Examples:
    """Lists in memory as examples, without a task.

    Raises:
        DataError: the lists are of different lengths or empty, or hold what is no text or label; with its index.
    """
    parts: dict[str, Sequence[Any]] = dict(zip(("text", "text2"), texts, strict=False))
    if labels is not None:
        parts["label"] = labels
    if not 1 <= len(texts) <= 2 or any(isinstance(part, str) for part in parts.values()):
        raise DataError(f"The {name} are not one or two lists of texts, with a list of labels.")
    if len({len(part) for part in parts.values()}) != 1 or not len(texts[0]):
        lengths = " and ".join(f"{len(part):,} of {column}" for column, part in parts.items())
        raise DataError(f"The {name} are {lengths}; as many of each were expected, and at least one.")
    columns: dict[str, Any] = {}
    for column, part in parts.items():
        try:
            columns[column] = label_list([*part]) if column == "label" else text_array([*part]).to_pylist()
        except UnusableValue as found:
            expected = "a name, a number or a list of names" if column == "label" else "a text"
            raise DataError(f"The {name}, index {found.place}: the {column} is {found}; {expected} was expected.") from None
    examples = Examples(
        texts=tuple(StoredTexts(text or "" for text in columns[column]) for column in parts if column != "label"),
        labels=columns.get("label"),
        origin=name,
        line_numbers=range(len(texts[0])),
        unit="index",
    )
    return _complete(examples, [*parts], drop=None)


def read_texts(path: Path | None, task: Task, delimiter: str | None = None) -> Examples:
    """A user's texts to predict: a table by its ending, else lines of text; None: lines of standard input.

    Of a table the task's text columns are read, or, if it has just as many columns under other names, those. A missing text
    is predicted as an empty one, so that the answers are as many as the rows; rows that are empty altogether are left out
    and counted.

    Raises:
        DataError: the file is missing or damaged, or has other columns; with file, row and column.
    """
    is_published = task.name in TASKS
    if path is None or not is_table(path) or (is_published and path.suffix.lower() == ".tsv"):  # GLUE's TSV quotes nothing
        return read_user_texts(path, is_pair=task.is_pair)
    file = open_table(path, delimiter)
    wanted = [str(name) for name in task.hub_text_columns or task.splits[0].text_columns]
    notes = [*file.notes]
    if not {*wanted} <= {*file.columns} and len(file.columns) == len(wanted):
        notes.append(f"{file.origin}: {listed(file.columns)} taken for {listed(wanted)}.")
        wanted = [*file.columns]
    table = read_table(file, wanted)
    if table.missing.any():
        first = table.numbers[table.missing.argmax()]
        notes.append(
            f"{file.origin}: {table.missing.sum():,} missing text(s) taken for empty ones, the first in {file.unit} {first}."
        )
    if table.empty:
        notes.append(f"{file.origin}: {table.empty:,} empty row(s) left out.")
    return Examples(
        texts=table.texts,
        labels=None,
        origin=file.origin,
        line_numbers=table.numbers,
        unit=file.unit,
        notes=tuple(notes),
    )


# ---- files and columns -------------------------------------------------


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


def choose_columns(file: TableFile, config: TrainConfig) -> tuple[Columns, list[str]]:
    """The columns of text and label: those that the config names, the others by their names where there is one choice.

    Returns:
        The columns, and what was guessed.

    Raises:
        DataError: a named column is not there, or there is no or more than one choice.
        ConfigError: a column is named for two purposes.
    """
    texts = [name for name in (config.text_column, config.text_column2) if name is not None]
    named = [*texts, *([] if config.label_column is None else [config.label_column])]
    if config.text_column2 is not None and config.text_column is None:
        raise ConfigError("text_column2 is the second text of a pair: name text_column too.")
    if len({*named}) < len(named):
        raise ConfigError(f"The columns {listed(named)} are named for two purposes: a column serves for one.")
    file.require(named)
    free = [name for name in file.columns if name not in named]
    label = config.label_column or _one_of(free, LABELS)
    if not texts:
        texts = _pair(free) or [name for name in [_one_of(free, TEXTS)] if name]
    if len(file.columns) == 2 and len(texts) + (label is not None) == 1:  # one of two is known: the other is the other
        for other in file.columns:
            if not texts and other != label:
                texts = [other]
            elif label is None and other not in texts:
                label = other
    if not texts or label is None:
        lacking = [] if texts else ["text (--text-column, for pairs --text-column2 too)"]
        lacking += [] if label else ["label (--label-column)"]
        raise DataError(
            f"{file.origin}: it is not plain which column is {' and which is '.join(lacking)}; its first row names "
            f"{listed(file.columns)}."
        )
    file.require([*texts, label])
    if len(named) == len(texts) + 1:
        return Columns(texts=tuple(texts), label=label), []
    return Columns(texts=tuple(texts), label=label), [f"Columns: text {listed(texts)}, label {brief(label)} (guessed)."]


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


def _one_of(columns: Sequence[str], ranks: Sequence[str]) -> str | None:
    """The one column of the first rank that has any."""
    for rank in ranks:
        found = [name for name in columns if _plain(name) in rank.split()]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _pair(columns: Sequence[str]) -> list[str]:
    plain = {_plain(name): name for name in columns}
    found = [[plain[first], plain[second]] for first, second in PAIRS if first in plain and second in plain]
    return found[0] if len(found) == 1 and not {*TEXTS[0].split()} & plain.keys() else []


# ---- rows --------------------------------------------------------------


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
        examples = replace(examples, labels=_separated(examples, config.label_delimiter))
    names = [*columns.texts, *([] if label is None else [label])]
    return _complete(examples, names, drop=config.drop_incomplete, may_hide=name == "test")


def _joined(columns: Sequence[StoredTexts]) -> StoredTexts:
    """The first column, the others behind it."""
    for other in columns[1:]:
        columns[0].extend(other)
    return columns[0]


def _separated(examples: Examples, delimiter: str) -> Sequence[Any]:
    """Several labels in one text, as tuples; an empty text is no label."""
    if not delimiter:
        raise ConfigError("label_delimiter is empty; what stands between two labels was expected.")
    labels: Sequence[Any] = examples.labels or ()
    known: dict[RawLabel | None, RawLabel | None] = {None: None}
    for i, label in enumerate(labels):
        if isinstance(label, tuple):
            raise ConfigError(f"{examples.where(i)}: the labels are a list, which needs no label_delimiter: leave it out.")
        if label not in known:
            known[label] = tuple(part.strip() for part in label.split(delimiter) if part.strip())
    return [known[label] for label in labels]


def _complete(examples: Examples, names: Sequence[str], *, drop: bool | None, may_hide: bool = False) -> Examples:
    """The examples, checked to have texts and labels.

    Args:
        names: of the columns, the label's last.
        drop: leave the others out; None: not offered.
        may_hide: whether labels that are all missing are hidden ones.
    """
    masks = [np.fromiter((not text or text.isspace() for text in column), bool, len(column)) for column in examples.texts]
    if examples.labels is not None:
        labels: Sequence[Any] = examples.labels
        masks.append(
            np.fromiter((one is None or (type(one) is str and not one.strip()) for one in labels), bool, len(labels))
        )
        if may_hide and masks[-1].all():
            masks.pop()
            note = f"{examples.origin}: the column {brief(names[-1])} is empty: hidden labels."
            examples = replace(examples, labels=None, notes=(*examples.notes, note))
    incomplete = np.logical_or.reduce(masks)
    if incomplete.any():
        first, count = int(incomplete.argmax()), int(incomplete.sum())
        if not drop:
            name = next(name for name, mask in zip(names, masks, strict=False) if mask[first])
            remedy = "" if drop is None else ", or leave such rows out with --drop-incomplete"
            others = f" ({count - 1:,} more rows are incomplete)" if count > 1 else ""
            raise DataError(f"{examples.where(first)}: the column {brief(name)} is empty{others}: fill it in{remedy}.")
        if count == len(incomplete):
            raise DataError(f"{examples.origin}: no row has all of {listed(names)}: nothing is left to use.")
        note = f"{examples.origin}: {count:,} incomplete row(s) left out, the first: {examples.where(first)}."
        examples = replace(examples.take(np.flatnonzero(~incomplete)), notes=(*examples.notes, note))
    _check_alike(examples)
    return replace(examples, labels=_without_doubles(examples.labels))


def _check_alike(examples: Examples) -> None:
    lists = [isinstance(label, tuple) for label in examples.labels or ()]
    if any(lists) and not all(lists):
        one, other = lists.index(True), lists.index(False)
        raise DataError(
            f"{examples.where(other)}: the label is one name, in {examples.where(one)} a list: write lists everywhere."
        )


def _without_doubles(labels: Any) -> Any:
    """A label that stands twice in the list of one example counts once."""
    return [tuple(dict.fromkeys(one)) for one in labels] if labels and isinstance(labels[0], tuple) else labels


# ---- the task and its splits -------------------------------------------


def _task_data(
    splits: dict[str, Examples],
    columns: Columns,
    *,
    name: str,
    kind: KindChoice,
    positive_label: str | None,
    validation_fraction: float,
    split_seed: int,
    task: Task | None = None,
    notes: Iterable[str] = (),
) -> TaskData:
    """The task that the examples make, and its splits, the notes of all gathered."""
    notes = [*notes, *chain.from_iterable(examples.notes for examples in splits.values())]
    splits = {name: replace(examples, notes=()) for name, examples in splits.items()}
    if task is None:
        labelled = {name: examples for name, examples in splits.items() if examples.labels is not None}
        found = find_labels(labelled, label_column=columns.label, kind=kind, positive_label=positive_label)
        notes += found.notes
        task = custom_task(
            name=name,
            kind=found.kind,
            labels=found.labels,
            text_columns=columns.texts,
            label_column=columns.label,
            splits=[name for name in ("train", "dev", "test") if name in splits or name == "dev"],
            positive_label=found.positive_label,
        )
    for examples in splits.values():
        _check_kind(examples, task)
    if "dev" not in splits:
        splits["train"], splits["dev"], note = divide(splits["train"], task, validation_fraction, split_seed)
        notes.append(note)
    if "test" in splits and splits["test"].labels is None:
        task = _hiding_test(task)
    return TaskData(task=task, read=lambda split: splits[split.name], notes=tuple(notes))


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
            task = _hiding_test(task)

    @functools.cache
    def load(name: str) -> Examples:
        examples = _read_split(name, _open_files(config, name), columns, config)
        _check_kind(examples, task)
        return examples

    @functools.cache
    def divided() -> dict[str, Examples]:
        train, dev, note = divide(load("train"), task, config.validation_fraction, config.split_seed)
        return {"train": replace(train, notes=(*train.notes, note)), "dev": replace(dev, notes=(*dev.notes, note))}

    def read(split: Split) -> Examples:
        return load(split.name) if split.name == "test" or config.validation_file else divided()[split.name]

    return TaskData(task=task, read=read)


def _hiding_test(task: Task) -> Task:
    return replace(task, test=tuple(replace(split, label_column=None) for split in task.test))


def _check_kind(examples: Examples, task: Task) -> None:
    if examples.labels and isinstance(examples.labels[0], tuple) != task.is_multilabel:
        found, needed = ("one label", "a list of labels") if task.is_multilabel else ("a list of labels", "one label")
        raise DataError(f"{examples.where(0)}: {found}; {task.title} needs {needed}.")


def divide(examples: Examples, task: Task, fraction: float, seed: int) -> tuple[Examples, Examples, str]:
    """Training and dev set out of one, both in the order of the file, and a note on it.

    Each label, or each part of a regression's range, gives `fraction` of its rows: at least one where it has two.

    Raises:
        DataError: a label or score is not the task's, or there are too few rows.
    """
    labels = encode_labels(examples, task, task.labels)
    parts = max(1, min(QUANTILES, int(len(labels) * fraction)))
    if task.kind == "classification":
        strata, how = labels.astype(np.int64), "of each label"
    elif task.kind == "regression":
        ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        strata, how = ranks * parts // len(labels), "of each part of the range"
    else:
        strata, how = np.zeros(len(labels), np.int64), "at random"
    held = hold_out(strata, fraction, seed)
    if not held.any():
        raise DataError(f"{examples.origin}: too few rows to hold some back for validation: give a --validation-file.")
    dev, train = np.flatnonzero(held), np.flatnonzero(~held)
    note = (
        f"The dev set is {len(dev):,} of {len(held):,} training rows, {fraction:.0%} {how} (split_seed {seed}); "
        f"{len(train):,} are trained on."
    )
    return examples.take(train), examples.take(dev), note


def hold_out(strata: Int64[np.ndarray, " N"], fraction: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Which rows are held back: `fraction` of each stratum, rounded, but at least one, and never all.

    Scikit-learn's split refuses strata of one row; here they stay in training.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(strata), bool)
    order = np.argsort(strata, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(strata[order])) + 1):
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held[rng.choice(rows, count, replace=False)] = True
    return held
