"""Facts about the data that a user should know before training: duplicates, leaks, contradictions, balance, lengths."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import numpy as np
from jaxtyping import Int64

from isinglass.data.examples import Examples, encode_labels
from isinglass.data.tokenization import TokenizedTexts
from isinglass.names import brief
from isinglass.tasks import MULTILABEL, REGRESSION, Task

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")

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
    scans = _of_each(_scan, splits)
    labelled = {split: examples for split, examples in splits.items() if examples.labels is not None}
    is_regression = task.kind is REGRESSION
    duplicates, conflicts, leaks = Finding(), Finding(), dict[str, Finding]()
    if "train" in scans:
        duplicates, conflicts = _find_duplicates(scans["train"])
        leaks = _of_each(partial(_find_leak, train=scans["train"]), scans)
        del leaks["train"]
    return DataFacts(
        kind=task.kind.name,
        rows=_of_each(len, splits),
        labels=_of_each(_frequencies, {} if is_regression else labelled),
        unlabelled=_of_each(_count_unlabelled, labelled if task.kind is MULTILABEL else {}),
        scores=_of_each(partial(_score_range, task=task), labelled if is_regression else {}),
        characters=_of_each(_quantiles, scans),
        duplicates=duplicates,
        conflicts=conflicts,
        leaks=leaks,
        short=_of_each(_find_short, scans),
    )


def cut_shares(tokens: Mapping[str, TokenizedTexts]) -> dict[str, float]:
    """Return for each split the share of its examples that were cut, without splits in windows, which cut nothing."""
    return {split: texts.truncated / len(texts) for split, texts in tokens.items() if texts.source is None}


def _of_each(look: Callable[[_Value], _Result], splits: Mapping[str, _Value]) -> dict[str, _Result]:
    """Return what `look` returns for each split."""
    return {split: look(value) for split, value in splits.items()}


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """Facts about N examples.

    Attributes:
        hashes: of an example's texts.
        characters: of an example's texts together.
        shortest: characters of the shorter text.
    """

    examples: Examples
    hashes: Int64[np.ndarray, " N"]
    characters: Int64[np.ndarray, " N"]
    shortest: Int64[np.ndarray, " N"]


def _scan(examples: Examples) -> _Scan:
    count = len(examples)
    hashes = np.fromiter(map(hash, zip(*examples.texts, strict=True)), np.int64, count)
    lengths = np.array([np.fromiter(map(len, column), np.int64, count) for column in examples.texts])
    return _Scan(examples=examples, hashes=hashes, characters=lengths.sum(0), shortest=lengths.min(0))


def _find_duplicates(train: _Scan) -> tuple[Finding, Finding]:
    """Return the rows whose texts an earlier row has, and those among them that have another label than it."""
    examples = train.examples
    _, first_rows, group = np.unique(train.hashes, return_index=True, return_inverse=True)
    original = first_rows[group]  # the earliest row with the same texts
    repeated = np.flatnonzero(original < np.arange(len(original)))
    duplicates = _finding(examples, repeated, examples, original[repeated])
    if examples.labels is None:
        return duplicates, Finding()
    labels = [*map(frozenset, examples.labels)] if examples.has_label_lists else examples.labels
    pairs = zip(repeated.tolist(), original[repeated].tolist(), strict=True)
    differs = np.array([labels[row] != labels[first] for row, first in pairs], bool)
    contradictory = repeated[differs]
    return duplicates, _finding(examples, contradictory, examples, original[contradictory])


def _find_leak(scan: _Scan, train: _Scan) -> Finding:
    """Return the rows whose texts are in the training set."""
    order = np.argsort(train.hashes, kind="stable")
    ranks = np.searchsorted(train.hashes, scan.hashes, sorter=order)
    candidates = order[np.minimum(ranks, len(order) - 1)]
    leaked = np.flatnonzero(train.hashes[candidates] == scan.hashes)
    return _finding(scan.examples, leaked, train.examples, candidates[leaked])


def _find_short(scan: _Scan) -> Finding:
    rows = np.flatnonzero(scan.shortest <= SHORT)
    return Finding(rows=len(rows), first=tuple(map(scan.examples.where, rows[:NAMED].tolist())))


def _finding(
    examples: Examples, rows: Int64[np.ndarray, " K"], others: Examples, equal_rows: Int64[np.ndarray, " K"]
) -> Finding:
    """Return the rows with the places of the first few, each beside that of the row of `others` with the same texts."""
    pairs = zip(rows[:NAMED].tolist(), equal_rows[:NAMED].tolist(), strict=True)
    first = tuple(f"{examples.where(row)} = {others.where(equal)}" for row, equal in pairs)
    return Finding(rows=len(rows), first=first)


def _count_unlabelled(examples: Examples) -> int:
    return [*map(len, examples.labels or ())].count(0)


def _frequencies(examples: Examples) -> dict[str, int]:
    return dict(Counter(examples.each_label()).most_common())


def _score_range(examples: Examples, task: Task) -> dict[str, float]:
    scores = encode_labels(examples, task, None)
    return {"min": float(scores.min()), "mean": float(scores.mean()), "max": float(scores.max())}


def _quantiles(scan: _Scan) -> dict[str, int]:
    low, median, high, most = np.percentile(scan.characters, [0, 50, 95, 100], method="higher").tolist()
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
