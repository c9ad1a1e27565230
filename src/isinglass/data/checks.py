"""Facts about the data that a user should know before training: doubles, leaks, contradictions, balance, lengths."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples, encode_labels
from isinglass.data.tokenization import TokenizedTexts
from isinglass.names import brief
from isinglass.tasks import Task

NAMED: Final = 3  # rows that a finding names
LISTED: Final = 10  # labels that a line lists
SHORT: Final = 2  # characters of a text that hardly says anything


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Rows that share a flaw.

    Attributes:
        rows: how many.
        first: the first few, in words.
    """

    rows: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What `inspect_data` finds, as plain values; the keys of all mappings are names of splits.

    Attributes:
        kind: of the task.
        rows: examples.
        labels: label -> how often, the most frequent first; empty for a regression, and where labels are hidden.
        unlabelled: multi-label: rows without any label.
        scores: regression: `min`, `mean` and `max`.
        characters: of an example's text, or two texts: `min`, `median`, `p95` and `max`.
        duplicates: rows of the training set whose texts an earlier row has.
        conflicts: those of them that have another label than the first row with the same texts.
        leaks: rows of another set whose texts are in the training set.
        short: rows with a text of at most two characters.
        truncated: share of examples that are longer than the model reads: `cut_shares`, once the texts are tokens.
    """

    kind: str
    rows: dict[str, int]
    labels: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    scores: dict[str, dict[str, float]]
    characters: dict[str, dict[str, float]]
    duplicates: Finding
    conflicts: Finding
    leaks: dict[str, Finding]
    short: dict[str, Finding]
    truncated: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The facts as sentences, one a line."""
        said = ["Rows: " + ", ".join(f"{name} {count:,}" for name, count in self.rows.items()) + "."]
        for name, counts in self.labels.items():
            said.append(f"Labels of {name}: {_shares(counts, self.rows[name])}.")
            if self.unlabelled.get(name):
                said[-1] += f" {_counted(self.unlabelled[name], self.rows[name])} without any label."
        for name, found in self.scores.items():
            said.append(f"Scores of {name}: from {found['min']:g} to {found['max']:g}, {found['mean']:.4g} on average.")
        for name, found in self.characters.items():
            said.append(
                f"Characters of {name}: from {found['min']:,.0f} to {found['max']:,.0f}, half have {found['median']:,.0f} "
                f"or fewer, 95 % have {found['p95']:,.0f} or fewer."
            )
        for name, share in self.truncated.items():
            said.append(f"Longer than the model reads, and cut, in {name}: {share:.1%} of the examples.")
        train = self.rows.get("train", 0)
        said += _told(self.duplicates, train, "of train have the texts of an earlier row")
        said += _told(self.conflicts, train, "of train have the texts of an earlier row, but another label")
        for name, leak in self.leaks.items():
            said += _told(leak, self.rows[name], f"of {name} are in train too, so that scores on it are too good")
        for name, short in self.short.items():
            said += _told(short, self.rows[name], f"of {name} have a text of at most {SHORT} characters")
        return said


def inspect_data(splits: Mapping[str, Examples], task: Task) -> DataFacts:
    """Look at each example once.

    Texts are compared exactly, by 64-bit hashes.

    Args:
        splits: by name; the one that the others must not leak from is `train`.

    Raises:
        DataError: a score of a regression is no number.
    """
    scanned = {name: _scan(examples) for name, examples in splits.items()}
    labelled = {name: examples for name, examples in splits.items() if examples.labels is not None}
    duplicates, conflicts, leaks = Finding(), Finding(), {}
    if "train" in splits:
        train, hashes = splits["train"], scanned["train"].hashes
        _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        first = first[place]  # the earliest row with the same texts
        again = np.flatnonzero(first < np.arange(len(first)))
        duplicates = _finding(train, again, first[again], train)
        if train.labels is not None:
            labels = [frozenset(label) if isinstance(label, tuple) else label for label in train.labels]
            odd = np.array([row for row in again.tolist() if labels[row] != labels[first[row]]], np.int64)
            conflicts = _finding(train, odd, first[odd], train)
        order = np.argsort(hashes, kind="stable")
        for name in [name for name in splits if name != "train"]:
            found = np.searchsorted(hashes, scanned[name].hashes, sorter=order)
            beside = order[np.minimum(found, len(order) - 1)]
            leaked = np.flatnonzero(hashes[beside] == scanned[name].hashes)
            leaks[name] = _finding(splits[name], leaked, beside[leaked], train)
    return DataFacts(
        kind=task.kind,
        rows={name: len(examples) for name, examples in splits.items()},
        labels={} if task.is_regression else {name: _counts(examples) for name, examples in labelled.items()},
        unlabelled={name: sum(not label for label in examples.labels or ()) for name, examples in labelled.items()}
        if task.is_multilabel
        else {},
        scores={name: _range(examples, task) for name, examples in labelled.items()} if task.is_regression else {},
        characters={name: _lengths(one.characters) for name, one in scanned.items()},
        duplicates=duplicates,
        conflicts=conflicts,
        leaks=leaks,
        short={name: _finding(splits[name], np.flatnonzero(one.shortest <= SHORT)) for name, one in scanned.items()},
    )


def cut_shares(tokens: Mapping[str, TokenizedTexts]) -> dict[str, float]:
    """Split -> share of its examples that were cut; without the splits that are read in windows, of which nothing is."""
    return {name: one.truncated / len(one) for name, one in tokens.items() if one.source is None}


@dataclass(frozen=True, kw_only=True)
class _Scanned:
    """Of N examples: the hash of their texts, their characters in all, and those of the shorter text."""

    hashes: Int64[np.ndarray, " N"]
    characters: Int64[np.ndarray, " N"]
    shortest: Int64[np.ndarray, " N"]


def _scan(examples: Examples) -> _Scanned:
    count = len(examples)
    hashes = np.fromiter(map(hash, zip(*examples.texts, strict=True)), np.int64, count)
    lengths = np.array([np.fromiter(map(len, column), np.int64, count) for column in examples.texts])
    return _Scanned(hashes=hashes, characters=lengths.sum(0), shortest=lengths.min(0))


def _finding(
    examples: Examples,
    rows: Int64[np.ndarray, " M"],
    same: Int64[np.ndarray, " M"] | None = None,
    others: Examples | None = None,
) -> Finding:
    """The rows, the first few by their places, with that of the row of `others` that each is the same as."""
    first = []
    for i, row in enumerate(rows[:NAMED].tolist()):
        place = examples.where(row)
        if others is not None and same is not None:
            place += f" = {others.where(int(same[i]))}"
        first.append(place)
    return Finding(rows=len(rows), first=tuple(first))


def _counts(examples: Examples) -> dict[str, int]:
    labels: Sequence[Any] = examples.labels or ()
    are_lists = bool(labels) and isinstance(labels[0], tuple)
    return dict(Counter(chain.from_iterable(labels) if are_lists else labels).most_common())


def _range(examples: Examples, task: Task) -> dict[str, float]:
    scores = encode_labels(examples, task, None)
    return {"min": float(scores.min()), "mean": float(scores.mean()), "max": float(scores.max())}


def _lengths(characters: Int64[np.ndarray, " N"]) -> dict[str, float]:
    low, median, high, most = np.percentile(characters, [0, 50, 95, 100], method="higher").tolist()
    return {"min": low, "median": median, "p95": high, "max": most}


def _counted(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})"


def _shares(counts: Mapping[str, int], rows: int) -> str:
    shown = [f"{brief(label)} {_counted(count, rows)}" for label, count in [*counts.items()][:LISTED]]
    rest = len(counts) - len(shown)
    if not rest:
        return ", ".join(shown)
    rarest, least = [*counts.items()][-1]
    return ", ".join(shown) + f", and {rest:,} more down to {brief(rarest)} {_counted(least, rows)}"


def _told(finding: Finding, rows: int, what: str) -> list[str]:
    if not finding.rows:
        return []
    more = " and others" if finding.rows > len(finding.first) else ""
    return [f"{_counted(finding.rows, rows)} rows {what}: {'; '.join(finding.first)}{more}."]
