"""Resolve the kind of task and its label names from a user's labels, or say what is wrong with them."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from isinglass.config import KindChoice
from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.tasks import KindName
from isinglass.tasks.custom import MOST_LABELS, check_label

FEW: Final = 20  # up to this many different integers are classes, more are scores
MOSTLY: Final = 0.9  # from this share of numbers on, labels that are not numbers are mistakes
POSITIVE: Final = "true yes y t pos positive good spam toxic hate offensive relevant match duplicate paraphrase entailment"
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS: Final = ("true", "false")
_MOST_CASE_NOTES: Final = 3


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The kind of task that some labels make, and their names.

    Attributes:
        names: sorted, by value if all are numbers; None for regression.
        positive: the one of two that F1 counts.
        notes: sentences about what was guessed and what may be a mistake.
    """

    kind: KindName
    names: tuple[str, ...] | None
    positive: str | None = None
    notes: tuple[str, ...] = ()


def resolve_labels(
    splits: Mapping[str, Examples], *, label_column: str, kind: KindChoice = "auto", positive_label: str | None = None
) -> LabelSet:
    """Resolve the kind of task from the labels, and gather their names.

    Args:
        splits: `train` and the others that have labels: no label is missing, and all are names or all tuples of names.

    Raises:
        DataError: a label is spelled in two ways or occurs only outside `train`, or the column does not hold labels.
        ConfigError: the labels cannot be of the requested kind, or `positive_label` is none of them.
    """
    column = _LabelColumn(label_column, splits)
    resolved_kind = _resolve_kind(column, kind)
    as_requested = ", as given" if kind != "auto" else ""
    column.check_variety()
    if resolved_kind == "regression":
        if positive_label is not None:
            raise ConfigError(
                f"positive_label is {brief(positive_label)}, but {brief(label_column)} holds numbers to regress."
            )
        note = f"Kind: regression{as_requested}, to {len(column.names):,} different numbers."
        return LabelSet(kind=resolved_kind, names=None, notes=(note,))
    column.check_holds_labels(resolved_kind)
    column.check_spelling()
    column.check_names()
    column.check_known_to_train()
    names = column.sorted_names()
    kind_note = f"Kind: {resolved_kind}{as_requested}, with {len(names):,} labels: {listed(names, 120)}."
    notes = (kind_note, *column.doubts())
    if resolved_kind == "classification" and len(names) == 2:
        positive = _choose_positive(names, positive_label)
        guessed = "" if positive_label else " (guessed)"
        notes = (*notes, f"Positive label, which F1 counts: {brief(positive)}{guessed}.")
        return LabelSet(kind=resolved_kind, names=names, positive=positive, notes=notes)
    if positive_label is not None:
        raise ConfigError(
            f"positive_label is for one of two classes; this is a {resolved_kind} of {len(names):,}: leave it out."
        )
    return LabelSet(kind=resolved_kind, names=names, notes=notes)


def number(label: str) -> float | None:
    """Return the finite number that a label is; None if it is a name.

    >>> number("1e3"), number("one"), number("1_000")
    (1000.0, None, None)
    """
    value = float(label) if _NUMBER.fullmatch(label) else math.inf
    return value if math.isfinite(value) else None


class _LabelColumn:
    """The labels of all splits that have any, counted.

    Attributes:
        names: label -> how many rows of all splits have it.
        numbers: label -> its value, for the labels that are numbers.
    """

    def __init__(self, title: str, splits: Mapping[str, Examples]) -> None:
        self.title = title
        self.splits = splits
        self.train = splits["train"]
        self.counts = {split: Counter(_each_name(examples)) for split, examples in splits.items()}
        self.names = sum(self.counts.values(), Counter[str]())
        values = {name: number(name) for name in self.names}
        self.numbers = {name: value for name, value in values.items() if value is not None}
        self.not_numbers = [name for name, value in values.items() if value is None]

    def where(self, name: str) -> str:
        """Return the place of the first row that has the label."""
        split = next(split for split, counts in self.counts.items() if name in counts)
        return self.splits[split].where_label(name)

    def sorted_names(self) -> tuple[str, ...]:
        """Return the names by value if all are numbers, else by spelling."""
        if self.not_numbers:
            return tuple(sorted(self.names))
        return tuple(sorted(self.names, key=self.numbers.__getitem__))

    def check_variety(self) -> None:
        """Refuse a column with fewer than two different labels."""
        if len(self.names) >= 2:
            return
        content = f"all are {brief(next(iter(self.names)))}" if self.names else "no row has any"
        raise DataError(f"The label column {brief(self.title)} tells nothing apart: {content}; two labels are the least.")

    def check_holds_labels(self, kind: KindName) -> None:
        """Refuse a column with too many different values: identifiers, texts, or numbers with a few mistakes."""
        rows = len(self.train)
        most = MOST_LABELS
        if kind != "multilabel":
            most = min(most, int(max(FEW, rows / 2)))
        if len(self.names) <= most:
            return
        odd = self.not_numbers
        if odd and len(odd) <= (1 - MOSTLY) * len(self.names):
            raise DataError(
                f"{self.where(odd[0])}: the label is {brief(odd[0])}, but {len(self.numbers):,} others are numbers: "
                f"correct or remove it."
            )
        alternative = "" if odd else ", or choose --kind regression"
        raise DataError(
            f"The column {brief(self.title)} has {len(self.names):,} different values in {rows:,} rows "
            f"({listed(self.names, 60)}): it does not look like labels: name another with --label-column{alternative}."
        )

    def check_spelling(self) -> None:
        """Refuse one label in two spellings: a model would learn to tell them apart."""
        for name in sorted(self.names):
            bare = name.strip()
            if bare != name:
                twin = f", and {brief(bare)} in {self.where(bare)}" if bare in self.names else ""
                raise DataError(f"{self.where(name)}: the label is {brief(name)}{twin}: remove the spaces around it.")
        first_spelling: dict[float, str] = {}
        for name, value in sorted(self.numbers.items()):
            first = first_spelling.setdefault(value, name)
            if first != name:
                raise DataError(
                    f"{self.where(name)}: the label is {brief(name)}, and {brief(first)} in {self.where(first)}: the same "
                    f"number in two spellings; write it in one."
                )
        booleans = [name for name in self.names if name.lower() in _BOOLEANS]
        if booleans and self.numbers:
            boolean, numeral = booleans[0], next(iter(self.numbers))
            raise DataError(
                f"{self.where(boolean)}: the label is {brief(boolean)}, and {brief(numeral)} in {self.where(numeral)}: "
                f"booleans beside numbers; write all in one way."
            )

    def check_names(self) -> None:
        """Refuse a label that cannot stand in a table."""
        for name in self.names:
            try:
                check_label(name)
            except DataError as error:
                raise DataError(f"{self.where(name)}: {error}") from None

    def check_known_to_train(self) -> None:
        """Refuse a label of another split that the training set lacks."""
        known = self.counts["train"]
        for split, counts in self.counts.items():
            unknown = next((name for name in counts if name not in known), None)
            if unknown is not None:
                raise DataError(
                    f"{self.splits[split].where_label(unknown)}: the label {brief(unknown)}{did_you_mean(unknown, known)} "
                    f"does not occur in the training data: a model cannot learn it."
                )

    def doubts(self) -> Iterator[str]:
        """Yield sentences about what may be a mistake in the training set, and is taken as it is."""
        counts = self.counts["train"]
        spellings = defaultdict(list)
        for name in sorted(counts):
            spellings[name.casefold()].append(name)
        alike = [names for names in spellings.values() if len(names) > 1]
        for names in alike[:_MOST_CASE_NOTES]:
            counted = " and ".join(f"{brief(name)} ({counts[name]:,})" for name in names)
            yield f"Labels that differ in upper and lower case only are different labels here: {counted}."
        rare = [name for name in sorted(counts) if counts[name] == 1]
        if rare:
            yield f"{len(rare):,} label(s) with a single training example: {listed(rare, 120)}."
        if not self.train.has_label_lists:
            return
        sizes = Counter(map(len, self.train.labels or ()))
        if sizes[0]:
            yield f"{sizes[0]:,} of {len(self.train):,} training rows have no label."
        if max(sizes) <= 1:
            yield "No training row has more than one label."


def _each_name(examples: Examples) -> Iterator[str]:
    labels: Sequence[Any] = examples.labels or ()
    return chain.from_iterable(labels) if examples.has_label_lists else iter(labels)


def _resolve_kind(column: _LabelColumn, requested: KindChoice) -> KindName:
    """Return the requested kind if the labels can be of it; for `auto`, the kind that they look like."""
    has_lists = column.train.has_label_lists
    if has_lists and requested not in ("auto", "multilabel"):
        raise ConfigError(
            f"kind is {requested}, but {brief(column.title)} holds several labels of an example: leave the kind out."
        )
    if requested == "multilabel" and not has_lists:
        raise ConfigError(
            f"kind is multilabel, but {brief(column.title)} holds one label of each example: name what separates several "
            f"with --label-delimiter."
        )
    if has_lists:
        return "multilabel"
    if requested != "auto":
        return requested
    are_few_integers = len(column.names) <= FEW and all(map(float.is_integer, column.numbers.values()))
    return "classification" if column.not_numbers or are_few_integers else "regression"


def _choose_positive(names: Sequence[str], requested: str | None) -> str:
    """Return the requested label, else the only one with a usual name for the positive class, else the last."""
    if requested is None:
        usual = [name for name in names if name.lower() in POSITIVE.split()]
        return usual[0] if len(usual) == 1 else names[-1]
    if requested not in names:
        hint = did_you_mean(requested, names)
        raise ConfigError(f"positive_label is {brief(requested)}{hint}; the labels are {listed(names)}.")
    return requested
