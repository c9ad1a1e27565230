"""Facts about the data that a user should know before training: duplicates, leaks, contradictions, balance, lengths."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    rows: dict[str, int]
    labels: dict[str, dict[str, int]]
    unlabelled: dict[str, int]
    scores: dict[str, dict[str, float]]
    characters: dict[str, dict[str, int]]
    duplicates: Finding
    conflicts: Finding
    leaks: dict[str, Finding]
    short: dict[str, Finding]
    truncated: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the facts as sentences, one a line."""
        return [*self._content_lines(), *self._flaw_lines()]

    def _content_lines(self) -> Iterator[str]:
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

    def _flaw_lines(self) -> Iterator[str]:
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
    scans = {split: _scan(examples) for split, examples in splits.items()}
    labelled = {split: examples for split, examples in splits.items() if examples.labels is not None}
    scores = labelled if task.kind is REGRESSION else {}
    named = {} if task.kind is REGRESSION else labelled
    several = labelled if task.kind is MULTILABEL else {}
    duplicates, conflicts, leaks = Finding(), Finding(), {}
    if "train" in splits:
        train, hashes = splits["train"], scans["train"].hashes
        duplicates, conflicts = _find_duplicates(train, hashes)
        others = [split for split in splits if split != "train"]
        leaks = {split: _find_leak(splits[split], scans[split].hashes, train, hashes) for split in others}
    return DataFacts(
        kind=task.kind.name,
        rows={split: len(examples) for split, examples in splits.items()},
        labels={split: _frequencies(examples) for split, examples in named.items()},
        unlabelled={split: [*map(len, examples.labels or ())].count(0) for split, examples in several.items()},
        scores={split: _score_range(examples, task) for split, examples in scores.items()},
        characters={split: _quantiles(scan.characters) for split, scan in scans.items()},
        duplicates=duplicates,
        conflicts=conflicts,
        leaks=leaks,
        short={split: _find_short(splits[split], scan) for split, scan in scans.items()},
    )


def cut_shares(tokens: Mapping[str, TokenizedTexts]) -> dict[str, float]:
    """Return for each split the share of its examples that were cut, without splits in windows, which cut nothing."""
    return {split: texts.truncated / len(texts) for split, texts in tokens.items() if texts.source is None}


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """Facts about N examples.

    Attributes:
        hashes: of an example's texts.
        characters: of an example's texts together.
        shortest: characters of the shorter text.
    """

    hashes: Int64[np.ndarray, " N"]
    characters: Int64[np.ndarray, " N"]
    shortest: Int64[np.ndarray, " N"]


def _scan(examples: Examples) -> _Scan:
    count = len(examples)
    hashes = np.fromiter(map(hash, zip(*examples.texts, strict=True)), np.int64, count)
    lengths = np.array([np.fromiter(map(len, column), np.int64, count) for column in examples.texts])
    return _Scan(hashes=hashes, characters=lengths.sum(0), shortest=lengths.min(0))


def _find_duplicates(train: Examples, hashes: Int64[np.ndarray, " N"]) -> tuple[Finding, Finding]:
    """Return the rows whose texts an earlier row has, and those among them that have another label than it."""
    _, first_rows, group = np.unique(hashes, return_index=True, return_inverse=True)
    original = first_rows[group]  # the earliest row with the same texts
    repeated = np.flatnonzero(original < np.arange(len(original)))
    duplicates = _finding(train, repeated, train, original[repeated])
    if train.labels is None:
        return duplicates, Finding()
    labels = [*map(frozenset, train.labels)] if train.has_label_lists else train.labels
    differs = [
        labels[row] != labels[first] for row, first in zip(repeated.tolist(), original[repeated].tolist(), strict=True)
    ]
    contradictory = repeated[np.array(differs, bool)]
    return duplicates, _finding(train, contradictory, train, original[contradictory])


def _find_leak(
    examples: Examples, hashes: Int64[np.ndarray, " N"], train: Examples, train_hashes: Int64[np.ndarray, " M"]
) -> Finding:
    """Return the rows whose texts are in the training set."""
    order = np.argsort(train_hashes, kind="stable")
    ranks = np.searchsorted(train_hashes, hashes, sorter=order)
    candidates = order[np.minimum(ranks, len(order) - 1)]
    leaked = np.flatnonzero(train_hashes[candidates] == hashes)
    return _finding(examples, leaked, train, candidates[leaked])


def _find_short(examples: Examples, scan: _Scan) -> Finding:
    rows = np.flatnonzero(scan.shortest <= SHORT)
    return Finding(rows=len(rows), first=tuple(map(examples.where, rows[:NAMED].tolist())))


def _finding(
    examples: Examples, rows: Int64[np.ndarray, " K"], others: Examples, equal_rows: Int64[np.ndarray, " K"]
) -> Finding:
    """Return the rows with the places of the first few, each beside that of the row of `others` with the same texts."""
    pairs = zip(rows[:NAMED].tolist(), equal_rows[:NAMED].tolist(), strict=True)
    first = tuple(f"{examples.where(row)} = {others.where(equal)}" for row, equal in pairs)
    return Finding(rows=len(rows), first=first)


def _frequencies(examples: Examples) -> dict[str, int]:
    return dict(Counter(examples.each_label()).most_common())


def _score_range(examples: Examples, task: Task) -> dict[str, float]:
    scores = encode_labels(examples, task, None)
    return {"min": float(scores.min()), "mean": float(scores.mean()), "max": float(scores.max())}


def _quantiles(characters: Int64[np.ndarray, " N"]) -> dict[str, int]:
    low, median, high, most = np.percentile(characters, [0, 50, 95, 100], method="higher").tolist()
    return {"min": low, "median": median, "p95": high, "max": most}


def _counted(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})"


def _shares(counts: Mapping[str, int], rows: int) -> str:
    ranked = [*counts.items()]
    shares = ", ".join(f"{brief(label)} {_counted(count, rows)}" for label, count in ranked[:LISTED])
    if len(ranked) <= LISTED:
        return shares
    rarest, least = ranked[-1]
    return f"{shares}, and {len(ranked) - LISTED:,} more down to {brief(rarest)} {_counted(least, rows)}"
