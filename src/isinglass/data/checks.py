"""Facts about the data that a user should know before training: duplicates, leaks, contradictions, balance, lengths."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples, encode_labels
from isinglass.data.tokenization import TokenizedTexts
from isinglass.names import brief
from isinglass.tasks import MULTILABEL, REGRESSION, Task

NAMED: Final = 3  # rows that a finding names
LISTED: Final = 10  # labels that a line lists
SHORT: Final = 2  # characters of a text that hardly says anything


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Rows that share a flaw.

    Attributes:
        rows: how many.
        first: the places of the first few, for messages.
    """

    rows: int = 0
    first: tuple[str, ...] = ()

    def lines(self, total: int, flaw: str) -> Iterator[str]:
        """Yield one sentence if there are any such rows.

        Args:
            total: rows of the split.
            flaw: what the rows have in common.
        """
        if self.rows:
            more = " and others" if self.rows > len(self.first) else ""
            yield f"{_counted(self.rows, total)} rows {flaw}: {'; '.join(self.first)}{more}."


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What `inspect_data` finds, as plain values; the keys of all mappings are names of splits.

    Attributes:
        kind: the kind of task.
        rows: number of examples.
        labels: label -> its frequency, the most frequent first; empty for a regression, and where labels are hidden.
        unlabelled: multi-label: rows without any label.
        scores: regression: `min`, `mean` and `max`.
        characters: of an example's one or two texts: `min`, `median`, `p95` and `max`.
        duplicates: rows of the training set that repeat the texts of an earlier row.
        conflicts: duplicates whose label differs from that of the first row with the same texts.
        leaks: rows of another split whose texts are in the training set.
        short: rows with a text of at most two characters.
        truncated: share of examples that are longer than the model reads: `cut_shares`, once the texts are tokens.
    """

    kind: str
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    characters: dict[str, dict[str, int]] = field(default_factory=dict)
    duplicates: Finding = Finding()
    conflicts: Finding = Finding()
    leaks: dict[str, Finding] = field(default_factory=dict)
    short: dict[str, Finding] = field(default_factory=dict)
    truncated: dict[str, float] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the facts as sentences, one a line."""
        yield "Rows: " + ", ".join(f"{split} {count:,}" for split, count in self.rows.items()) + "."
        for split, counts in self.labels.items():
            line = f"Labels of {split}: {_shares(counts, self.rows[split])}."
            if self.unlabelled.get(split):
                line += f" {_counted(self.unlabelled[split], self.rows[split])} without any label."
            yield line
        for split, score in self.scores.items():
            yield f"Scores of {split}: from {score['min']:g} to {score['max']:g}, {score['mean']:.4g} on average."
        for split, length in self.characters.items():
            yield (
                f"Characters of {split}: from {length['min']:,.0f} to {length['max']:,.0f}, half have "
                f"{length['median']:,.0f} or fewer, 95 % have {length['p95']:,.0f} or fewer."
            )
        for split, share in self.truncated.items():
            yield f"Longer than the model reads, and cut, in {split}: {share:.1%} of the examples."
        train = self.rows.get("train", 0)
        yield from self.duplicates.lines(train, "of train have the texts of an earlier row")
        yield from self.conflicts.lines(train, "of train have the texts of an earlier row, but another label")
        for split, leak in self.leaks.items():
            yield from leak.lines(self.rows[split], f"of {split} are in train too, so that scores on it are too good")
        for split, short in self.short.items():
            yield from short.lines(self.rows[split], f"of {split} have a text of at most {SHORT} characters")


def inspect_data(splits: Mapping[str, Examples], task: Task) -> DataFacts:
    """Look at each example once.

    Texts are compared exactly, by 64-bit hashes.

    Args:
        splits: by name; the one that must not leak into the others is `train`.

    Raises:
        DataError: a score of a regression is not a number.
    """
    facts = DataFacts(kind=task.kind.name)
    hashes = {split: _hash_texts(examples) for split, examples in splits.items()}
    for split, examples in splits.items():
        facts.rows[split] = len(examples)
        lengths = np.array([np.fromiter(map(len, column), np.int64, len(examples)) for column in examples.texts])
        quantiles = np.percentile(lengths.sum(0), [0, 50, 95, 100], method="higher").tolist()
        facts.characters[split] = dict(zip(("min", "median", "p95", "max"), quantiles, strict=True))
        facts.short[split] = _finding(np.flatnonzero(lengths.min(0) <= SHORT).tolist(), examples.where)
        if split != "train" and "train" in splits:
            originals = _find_equal(hashes[split], hashes["train"])
            facts.leaks[split] = _repeats(examples, np.flatnonzero(originals >= 0).tolist(), splits["train"], originals)
        if examples.labels is not None:
            _inspect_labels(facts, split, examples, task)
    if "train" not in splits:
        return facts
    duplicates, conflicts = _find_duplicates(splits["train"], hashes["train"])
    return replace(facts, duplicates=duplicates, conflicts=conflicts)


def cut_shares(tokens: Mapping[str, TokenizedTexts]) -> dict[str, float]:
    """Return for each split the share of its examples that were cut, without splits in windows, which cut nothing."""
    return {split: texts.truncated / len(texts) for split, texts in tokens.items() if texts.source is None}


def _inspect_labels(facts: DataFacts, split: str, examples: Examples, task: Task) -> None:
    """Add the range of a split's scores, or how often each of its labels occurs."""
    if task.kind is REGRESSION:
        scores = encode_labels(examples, task, None)
        facts.scores[split] = {"min": float(scores.min()), "mean": float(scores.mean()), "max": float(scores.max())}
        return
    facts.labels[split] = dict(Counter(examples.each_label()).most_common())
    if task.kind is MULTILABEL:
        facts.unlabelled[split] = [*map(len, examples.labels or ())].count(0)


def _hash_texts(examples: Examples) -> Int64[np.ndarray, " N"]:
    return np.fromiter(map(hash, zip(*examples.texts, strict=True)), np.int64, len(examples))


def _find_equal(hashes: Int64[np.ndarray, " N"], others: Int64[np.ndarray, " M"]) -> Int64[np.ndarray, " N"]:
    """Return for each hash the first of `others` that equals it, or -1."""
    distinct, first = np.unique(others, return_index=True)
    candidates = np.minimum(np.searchsorted(distinct, hashes), len(distinct) - 1)
    return np.where(distinct[candidates] == hashes, first[candidates], -1)


def _find_duplicates(train: Examples, hashes: Int64[np.ndarray, " N"]) -> tuple[Finding, Finding]:
    """Return the rows whose texts an earlier row has, and those among them that have another label than it."""
    originals = _find_equal(hashes, hashes)
    repeated = np.flatnonzero(originals < np.arange(len(originals))).tolist()
    duplicates = _repeats(train, repeated, train, originals)
    if train.labels is None:
        return duplicates, Finding()
    labels = [*map(frozenset, train.labels)] if train.has_label_lists else train.labels
    contradictory = [row for row in repeated if labels[row] != labels[originals[row]]]
    return duplicates, _repeats(train, contradictory, train, originals)


def _repeats(examples: Examples, rows: Sequence[int], others: Examples, originals: Int64[np.ndarray, " N"]) -> Finding:
    """Return the rows, each named beside its original, which is a row of `others`."""
    return _finding(rows, lambda row: f"{examples.where(row)} = {others.where(int(originals[row]))}")


def _finding(rows: Sequence[int], place: Callable[[int], str]) -> Finding:
    """Return the rows with the places of the first few."""
    return Finding(rows=len(rows), first=tuple(map(place, rows[:NAMED])))


def _counted(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})"


def _shares(counts: Mapping[str, int], rows: int) -> str:
    ranked = [*counts.items()]
    shares = ", ".join(f"{brief(label)} {_counted(count, rows)}" for label, count in ranked[:LISTED])
    if len(ranked) <= LISTED:
        return shares
    rarest, least = ranked[-1]
    return f"{shares}, and {len(ranked) - LISTED:,} more down to {brief(rarest)} {_counted(least, rows)}"
