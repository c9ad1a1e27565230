"""What the labels of a user's own examples tell: the kind of task and its names, or what is wrong with them."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, cast

from isinglass.config import KindChoice
from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.tasks import Kind
from isinglass.tasks.custom import MOST_LABELS, check_label

FEW: Final = 20  # so many whole numbers, or fewer, are taken for classes
MOSTLY: Final = 0.9  # share of numbers among the labels from which on the others are taken for mistakes
POSITIVE: Final = "true yes y t pos positive good spam toxic hate offensive relevant match duplicate paraphrase entailment"
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The task that some labels make.

    Attributes:
        labels: sorted, by value if all are numbers; None for regression.
        positive_label: the one of two that F1 counts.
        notes: what was guessed, and what may be a mistake.
    """

    kind: Kind
    labels: tuple[str, ...] | None
    positive_label: str | None = None
    notes: tuple[str, ...] = ()


def find_labels(
    splits: Mapping[str, Examples], *, label_column: str, kind: KindChoice = "auto", positive_label: str | None = None
) -> LabelSet:
    """Tell the kind of task from the labels, and gather their names.

    Args:
        splits: `train` and what else has labels: none is missing, and all are names, or all tuples of names.

    Raises:
        DataError: a label is spelled in two ways, occurs only outside `train`, or the column is none of labels.
        ConfigError: the labels cannot be of the kind that was chosen, or `positive_label` is none of them.
    """
    counts = {name: Counter(_names(examples)) for name, examples in splits.items()}
    names = Counter[str]()
    for counter in counts.values():
        names.update(counter)
    rows = len(splits["train"])
    found = _kind(names, _are_lists(splits["train"]), kind, label_column)
    given = ", as given" if kind != "auto" else ""
    if len(names) < 2:
        only = f"all are {brief(next(iter(names)))}" if names else "no row has any"
        raise DataError(f"The label column {brief(label_column)} tells nothing apart: {only}; two labels are the least.")
    if found == "regression":
        if positive_label is not None:
            raise ConfigError(
                f"positive_label is {brief(positive_label)}, but {brief(label_column)} holds numbers to regress."
            )
        return LabelSet(kind=found, labels=None, notes=(f"Kind: regression{given}, to {len(names):,} different numbers.",))
    _check_column(splits, names, rows, found, label_column)
    _check_spelling(splits, names)
    for label in names:
        try:
            check_label(label)
        except DataError as error:
            raise DataError(f"{_first(splits, label)}: {error}") from None
    for name, counter in counts.items():
        for label in counter:
            if label not in counts["train"]:
                raise DataError(
                    f"{_where(splits[name], label)}: the label {brief(label)}{did_you_mean(label, counts['train'])} does "
                    f"not occur in the training data: a model cannot learn it."
                )
    labels = tuple(sorted(names, key=number) if _are_numbers(names) else sorted(names))  # type: ignore[arg-type]
    notes = [
        f"Kind: {found}{given}, with {len(labels):,} labels: {listed(labels, 120)}.",
        *_doubts(splits["train"], counts["train"]),
    ]
    if found == "classification" and len(labels) == 2:
        positive = _positive(labels, positive_label)
        notes.append(f"Positive label, which F1 counts: {brief(positive)}{'' if positive_label else ' (guessed)'}.")
        return LabelSet(kind=found, labels=labels, positive_label=positive, notes=tuple(notes))
    if positive_label is not None:
        raise ConfigError(f"positive_label is for one of two classes; this is a {found} of {len(labels):,}: leave it out.")
    return LabelSet(kind=found, labels=labels, notes=tuple(notes))


def number(label: str) -> float | None:
    """The finite number that a label is; None if it is a name.

    >>> number("1e3"), number("one"), number("1_000")
    (1000.0, None, None)
    """
    value = float(label) if _NUMBER.fullmatch(label) else math.inf
    return value if math.isfinite(value) else None


def _names(examples: Examples) -> Iterator[str]:
    assert examples.labels is not None
    if _are_lists(examples):
        return chain.from_iterable(examples.labels)
    return iter(cast("Sequence[str]", examples.labels))


def _are_lists(examples: Examples) -> bool:
    return bool(examples.labels) and isinstance(examples.labels[0], tuple)  # type: ignore[index]


def _are_numbers(names: Collection[str]) -> bool:
    return all(number(name) is not None for name in names)


def _where(examples: Examples, label: str) -> str:
    """The first example that has the label."""
    assert examples.labels is not None
    return examples.where(
        next(i for i, one in enumerate(examples.labels) if label == one or (isinstance(one, tuple) and label in one))
    )


def _first(splits: Mapping[str, Examples], label: str) -> str:
    return next(_where(examples, label) for examples in splits.values() if label in set(_names(examples)))


def _kind(names: Collection[str], are_lists: bool, chosen: KindChoice, column: str) -> Kind:
    if are_lists:
        if chosen in ("auto", "multilabel"):
            return "multilabel"
        raise ConfigError(f"kind is {chosen}, but {brief(column)} holds several labels of an example: leave the kind out.")
    if chosen == "multilabel":
        raise ConfigError(
            f"kind is multilabel, but {brief(column)} holds one label of each example: name what separates several with "
            f"--label-delimiter."
        )
    if chosen != "auto":
        return chosen
    numbers = [number(name) for name in names]
    whole = [value for value in numbers if value is None or value.is_integer()]
    if None in numbers or (len(whole) == len(numbers) and len(names) <= FEW):
        return "classification"
    return "regression"


def _check_column(splits: Mapping[str, Examples], names: Collection[str], rows: int, kind: Kind, column: str) -> None:
    """Refuse a column that holds no labels: identifiers, or texts."""
    if len(names) <= MOST_LABELS and (kind == "multilabel" or len(names) <= max(FEW, rows / 2)):
        return
    odd = [name for name in names if number(name) is None]
    if 0 < len(odd) <= (1 - MOSTLY) * len(names):
        raise DataError(
            f"{_first(splits, odd[0])}: the label is {brief(odd[0])}, but {len(names) - len(odd):,} others are numbers: "
            f"mend or remove it."
        )
    numeric = "" if odd else ", or choose --kind regression"
    raise DataError(
        f"The column {brief(column)} has {len(names):,} different values in {rows:,} rows ({listed(names, 60)}): it does "
        f"not look like labels: name another with --label-column{numeric}."
    )


def _check_spelling(splits: Mapping[str, Examples], names: Collection[str]) -> None:
    """Refuse one label in two spellings: a model would learn to tell them apart."""
    values: dict[float, str] = {}
    for name in sorted(names):
        bare, value = name.strip(), number(name)
        if bare != name:
            twin = f", and {brief(bare)} in {_first(splits, bare)}" if bare in names else ""
            raise DataError(f"{_first(splits, name)}: the label is {brief(name)}{twin}: remove the spaces around it.")
        if value is not None and values.setdefault(value, name) != name:
            first = values[value]
            raise DataError(
                f"{_first(splits, name)}: the label is {brief(name)}, and {brief(first)} in {_first(splits, first)}: the "
                f"same number in two spellings; write it in one."
            )
    booleans = [name for name in names if name.lower() in ("true", "false")]
    numbers = [name for name in names if number(name) is not None]
    if booleans and numbers:
        raise DataError(
            f"{_first(splits, booleans[0])}: the label is {brief(booleans[0])}, and {brief(numbers[0])} in "
            f"{_first(splits, numbers[0])}: booleans beside numbers; write all in one way."
        )


def _doubts(train: Examples, counts: Mapping[str, int]) -> list[str]:
    """What may be a mistake, and is taken as it is."""
    notes = []
    spellings: dict[str, list[str]] = {}
    for name in sorted(counts):
        spellings.setdefault(name.casefold(), []).append(name)
    for alike in [several for several in spellings.values() if len(several) > 1][:3]:
        counted = " and ".join(f"{brief(name)} ({counts[name]:,})" for name in alike)
        notes.append(f"Labels that differ in upper and lower case only are different labels here: {counted}.")
    rare = [name for name in sorted(counts) if counts[name] == 1]
    if rare:
        notes.append(f"{len(rare):,} label(s) with a single training example: {listed(rare, 120)}.")
    if _are_lists(train):
        bare = sum(not label for label in train.labels or ())
        if bare:
            notes.append(f"{bare:,} of {len(train):,} training rows have no label.")
        if all(len(label) <= 1 for label in train.labels or ()):
            notes.append("No training row has more than one label.")
    return notes


def _positive(labels: Sequence[str], given: str | None) -> str:
    if given is None:
        known = [label for label in labels if label.lower() in POSITIVE.split()]
        return known[0] if len(known) == 1 else labels[-1]
    if given not in labels:
        raise ConfigError(f"positive_label is {brief(given)}{did_you_mean(given, labels)}; the labels are {listed(labels)}.")
    return given
