"""Resolve the task that a user's examples make: its kind and label names, or what is wrong with the labels."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from isinglass.config import KindChoice, TrainConfig
from isinglass.data.columns import Columns
from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.tasks import MULTILABEL, KindName, Task
from isinglass.tasks.custom import MOST_LABELS, check_label, custom_task
from isinglass.tasks.kinds import parse_number

FEW: Final = 20  # up to this many different whole numbers are classes wherever they begin, and with gaps between them
SEVERAL: Final = 2  # rows that whole numbers must have to be classes
MOSTLY: Final = 0.9  # from this share of numbers on, labels that are not numbers are mistakes
POSITIVE: Final = "true yes y t pos positive good spam toxic hate offensive relevant match duplicate paraphrase entailment"
_MOST_CASE_NOTES: Final = 3


def resolve_task(splits: Mapping[str, Examples], columns: Columns, config: TrainConfig) -> tuple[Task, tuple[str, ...]]:
    """Resolve the kind of task from the labels, and gather their names.

    Args:
        splits: where they have labels, none is missing, and all are names or all tuples of names.

    Returns:
        The task, which has a dev set in any case, and sentences about what was guessed and what may be a mistake.

    Raises:
        DataError: a label is spelled in two ways or occurs only outside `train`, or the column does not hold labels.
        ConfigError: the labels cannot be of the requested kind, or `positive_label` is none of them.
    """
    column = _LabelColumn(str(columns.label), splits)
    kind = _resolve_kind(column, config.kind)
    for fault in _faults(column, kind):
        raise DataError(fault)
    by_value = None if column.words else column.numbers.__getitem__
    names = None if kind == "regression" else tuple(sorted(column.names, key=by_value))
    positive = _resolve_positive(column.title, names, kind, config.positive_label)
    task = custom_task(
        name=config.task,
        kind=kind,
        labels=names,
        text_columns=columns.texts,
        label_column=column.title,
        splits=[split for split in ("train", "dev", "test") if split in splits or split == "dev"],
        positive_label=positive,
    )
    as_given = ", as given" if config.kind != "auto" else ""
    if names is None:
        fraction = "" if as_given else ", because some have a fraction"
        return task, (f"Kind: regression{as_given}, to {len(column.names):,} different numbers{fraction}.",)
    notes = [f"Kind: {kind}{as_given}, with {len(names):,} labels: {listed(names, 120)}.", *_doubts(column)]
    if kind == "classification" and not as_given and len(column.integers) > 2:
        notes.insert(1, "The labels are whole numbers and taken as classes: for scores choose --kind regression.")
    if positive is not None:
        guessed = "" if config.positive_label else " (guessed)"
        notes.append(f"Positive label, which F1 counts: {brief(positive)}{guessed}.")
    return task, tuple(notes)


def check_kind(examples: Examples, task: Task) -> None:
    """Refuse lists of labels where the task has one label for each example, and the reverse.

    Raises:
        DataError: the first label is of the other form.
    """
    needs_lists = task.kind is MULTILABEL
    if examples.labels and examples.has_label_lists != needs_lists:
        forms = ("one label", "a list of labels")
        found, needed = forms[examples.has_label_lists], forms[needs_lists]
        raise DataError(f"{examples.where(0)}: {found}; {task.title} needs {needed}.")


def most_labels(rows: int) -> int:
    """Return how many different labels rows with one label each may have: two rows for each where there are many."""
    return min(MOST_LABELS, int(max(FEW, rows / 2)))


class _LabelColumn:
    """The labels of all splits that have any, counted.

    Attributes:
        counts: split -> label -> how many of its rows have it.
        names: label -> how many rows of all splits have it.
        numbers: label -> its value, for the labels that are numbers.
        words: the other labels.
        integers: the different values, if all labels are whole numbers, in whichever spelling; otherwise empty.
    """

    def __init__(self, title: str, splits: Mapping[str, Examples]) -> None:
        self.title = title
        self.train = splits["train"]
        self.splits = {split: examples for split, examples in splits.items() if examples.labels is not None}
        self.counts = {split: Counter(examples.each_label()) for split, examples in self.splits.items()}
        self.names = sum(self.counts.values(), Counter[str]())
        self.numbers = {name: value for name in self.names if math.isfinite(value := parse_number(name))}
        self.words = [name for name in self.names if name not in self.numbers]
        are_integers = not self.words and all(map(float.is_integer, self.numbers.values()))
        self.integers = {*map(int, self.numbers.values())} if are_integers else set[int]()

    def label_at(self, name: str) -> str:
        """Return the first row that has the label, and the label, for a message."""
        return f"{self.where(name)}: the label is {brief(name)}"

    def both_at(self, name: str, other: str) -> str:
        """Return the same with another label and its first row."""
        return f"{self.label_at(name)}, and {brief(other)} in {self.where(other)}"

    def where(self, name: str) -> str:
        """Return the place of the first row that has the label."""
        split = next(split for split, counts in self.counts.items() if name in counts)
        return self.splits[split].where_label(name)


def _resolve_kind(column: _LabelColumn, requested: KindChoice) -> KindName:
    """Return the requested kind if the labels can be of it; for `auto`, the kind that they look like."""
    has_lists = column.train.has_label_lists
    found, remedy = "one label of each example", "name what separates several with --label-delimiter"
    if has_lists:
        found, remedy = "several labels of an example", "leave the kind out"
    if requested != "auto" and (requested == "multilabel") != has_lists:
        raise ConfigError(f"kind is {requested}, but {brief(column.title)} holds {found}: {remedy}.")
    if has_lists:
        return "multilabel"
    if requested != "auto":
        return requested
    return _guess_kind(column)


def _guess_kind(column: _LabelColumn) -> KindName:
    """Return what one label of each example looks like: names are classes, numbers with a fraction are scores.

    `3.0` is a whole number, as in scikit-learn: pandas writes integers so where some are missing.

    Raises:
        DataError: they are whole numbers that may be classes or scores.
    """
    if column.words:
        return "classification"
    if not column.integers:
        return "regression"
    doubt = _doubt_of_classes(column)
    if doubt is None:
        return "classification"
    lowest, highest = min(column.integers), max(column.integers)
    counted = f"{len(column.integers):,} different whole numbers from {lowest} to {highest} in {column.names.total():,} rows"
    raise DataError(
        f"{column.train.origin}: the label column {brief(column.title)} holds {counted}{doubt}: classes or scores? Name the "
        f"kind: --kind classification or --kind regression."
    )


def _doubt_of_classes(column: _LabelColumn) -> str | None:
    """Return what speaks against whole numbers being classes; None if nothing does.

    Two are classes, and so are up to `FEW` wherever they begin, or any number of them from 0 on without gaps, all of these
    if they have several rows.
    """
    integers = column.integers
    if len(integers) <= 2:
        return None
    if len(integers) <= FEW:
        return ", few rows for each" if column.names.total() < SEVERAL * len(integers) else None
    if min(integers) != 0:
        return ""
    if max(integers) >= len(integers):
        return " with gaps"
    rarest, count = min(column.names.items(), key=lambda item: item[1])
    return f", but only {count} with {rarest}" if count < SEVERAL else None


def _resolve_positive(column: str, names: Sequence[str] | None, kind: KindName, requested: str | None) -> str | None:
    """Return the one of two labels that F1 counts: the requested one, the only one with a usual name, or the last."""
    if names is None or kind == "multilabel" or len(names) != 2:
        if requested is None:
            return None
        found = f"{brief(column)} makes a {kind} of {len(names or ()):,} labels"
        raise ConfigError(f"positive_label is {brief(requested)}, for one of two classes, but {found}: leave it out.")
    if requested is None:
        usual = [name for name in names if name.lower() in POSITIVE.split()]
        return usual[0] if len(usual) == 1 else names[-1]
    if requested not in names:
        hint = did_you_mean(requested, names)
        raise ConfigError(f"positive_label is {brief(requested)}{hint}; the labels are {listed(names)}.")
    return requested


# ---- mistakes and doubts -----------------------------------------------


def _faults(column: _LabelColumn, kind: KindName) -> Iterator[str]:
    """Yield what is wrong with the labels."""
    if len(column.names) < 2:
        content = f"all are {brief(next(iter(column.names)))}" if column.names else "no row has any"
        yield f"The label column {brief(column.title)} tells nothing apart: {content}; two labels are the least."
    if kind == "regression":
        return
    most = MOST_LABELS if kind == "multilabel" else most_labels(len(column.train))
    if len(column.names) > most:
        yield _too_many(column)
    yield from _faults_in_spelling(column)
    for name in column.names:
        try:
            check_label(name)
        except DataError as error:
            yield f"{column.where(name)}: {error}"
    known = column.counts["train"]
    for name in filter(lambda name: name not in known, column.names):
        label = f"the label {brief(name)}{did_you_mean(name, known)}"
        yield f"{column.where(name)}: {label} does not occur in the training data: a model cannot learn it."


def _too_many(column: _LabelColumn) -> str:
    """Say what a column with many different values looks like: identifiers, texts, or numbers with a few mistakes."""
    words = column.words
    if words and len(words) <= (1 - MOSTLY) * len(column.names):
        return f"{column.label_at(words[0])}, but {len(column.numbers):,} others are numbers: correct or remove it."
    alternative = "" if words else ", or choose --kind regression"
    return (
        f"The column {brief(column.title)} has {len(column.names):,} different values in {len(column.train):,} rows "
        f"({listed(column.names, 60)}): it does not look like labels: name another with --label-column{alternative}."
    )


def _faults_in_spelling(column: _LabelColumn) -> Iterator[str]:
    """Yield labels in two spellings: a model would learn to tell them apart."""
    for name in sorted(column.names):
        bare = name.strip()
        if bare != name:
            place = column.both_at(name, bare) if bare in column.names else column.label_at(name)
            yield f"{place}: remove the spaces around it."
    for first, second, *_ in _alike(column.numbers, column.numbers.__getitem__):
        yield f"{column.both_at(second, first)}: the same number in two spellings; write it in one."
    booleans = [name for name in column.names if name.lower() in ("true", "false")]
    if booleans and column.numbers:
        both = column.both_at(booleans[0], next(iter(column.numbers)))
        yield f"{both}: booleans beside numbers; write all in one way."


def _alike(names: Iterable[str], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Return the groups of names that have the same key, sorted."""
    groups = defaultdict(list)
    for name in sorted(names):
        groups[key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _doubts(column: _LabelColumn) -> Iterator[str]:
    """Yield what may be a mistake in the training set, and is taken as it is."""
    counts, train = column.counts["train"], column.train
    for names in _alike(counts, str.casefold)[:_MOST_CASE_NOTES]:
        counted = " and ".join(f"{brief(name)} ({counts[name]:,})" for name in names)
        yield f"Labels that differ in upper and lower case only are different labels here: {counted}."
    rare = [name for name in sorted(counts) if counts[name] == 1]
    if rare:
        yield f"{len(rare):,} label(s) with a single training example: {listed(rare, 120)}."
    sizes = Counter(map(len, train.labels or ())) if train.has_label_lists else Counter[int]()
    if sizes[0]:
        yield f"{sizes[0]:,} of {len(train):,} training rows have no label."
    if train.has_label_lists and max(sizes) <= 1:
        yield "No training row has more than one label."
