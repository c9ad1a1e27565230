"""A task as a value: its files, columns, labels and metrics. Nothing here reads a file.

`label` columns and `labels` are names, never numbers: which integer a model uses for which name is the checkpoint's
business (`id2label`), and matching them by name is what keeps a finished model's scores from being scrambled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isinglass.errors import ConfigError
from isinglass.metrics import Metric
from isinglass.tasks.kinds import CLASSIFICATION, Kind

GENERIC_LABEL: Final = "LABEL_"  # what `transformers` writes into id2label when nobody named the labels


@dataclass(frozen=True, kw_only=True)
class Split:
    """One file of a task.

    Attributes:
        name: how results and options call it: `train`, `dev`, `dev_matched`, `test`, ...
        text_columns: the columns with one text (single sentences) or two (pairs): names if the file has a header,
            else 0-based positions.
        label_column: the column with the label, or None where labels are hidden.
        file: path of a published task's TSV below its folder.
        rows: rows that the published data set has: for the overview, and for a submission of its test sets; never used to
            check what a user trains on.
    """

    name: str
    text_columns: tuple[str, ...] | tuple[int, ...]
    label_column: str | int | None
    file: str = ""
    rows: int = 0

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns."""
        return isinstance(self.text_columns[0], str)

    @property
    def hub_split(self) -> str:
        """The name of a published split on the hub."""
        return self.name.replace("dev", "validation")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification or regression task over single texts or pairs: a published one, or the user's own.

    Attributes:
        name: the spelling on the command line, lower case: `mrpc`.
        title: the spelling in tables: `MRPC`.
        folder: the folder of its files in GLUE's layout.
        hub_text_columns: the text columns of its files on the hub, where they differ from those of `splits[0]`.
        hub_labels: names in the order of the hub's integers (MNLI's differs from that of the files).
        labels: names as the files write them; None for regression.
        kind: what is predicted for each example.
        label_words: other names of the same labels, in the same order, as published checkpoints write them.
        train, dev, test: the splits; `train` is None for a diagnostic set; MNLI has two dev and two test sets.
        metrics: in the order in which GLUE's table prints them.
        positive_label: the label that F1 counts.
        score_range: lowest and highest value of a regression label.
        dev_majority: the score on each dev set of always answering its most frequent label, for the overview (each
            result carries the one computed from the data); keyed like `metrics`, empty for regression.
        predicted_by: the name of the task whose model predicts this one, which has no train set.
        warning: what a reader of the result must know.
        skips_short_rows: rows with too few columns are left out, with a warning, instead of refused.
        citation: where the task comes from.
    """

    name: str
    title: str
    folder: str = ""
    hub_text_columns: tuple[str, ...] = ()
    labels: tuple[str, ...] | None
    kind: Kind = CLASSIFICATION
    hub_labels: tuple[str, ...] | None = None
    label_words: tuple[str, ...] | None = None
    train: Split | None
    dev: tuple[Split, ...] = ()
    test: tuple[Split, ...] = ()
    metrics: tuple[Metric, ...]
    positive_label: str = "1"
    score_range: tuple[float, float] = (0.0, 5.0)
    dev_majority: tuple[tuple[float, ...], ...] = ()
    predicted_by: str | None = None
    warning: str | None = None
    skips_short_rows: bool = False
    citation: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the text columns in a table: the hub's or the user's."""
        return self.hub_text_columns or tuple(map(str, self.splits[0].text_columns))

    @property
    def is_pair(self) -> bool:
        """Whether an example is two texts."""
        return len(self.splits[0].text_columns) == 2

    @property
    def num_outputs(self) -> int:
        """Width of the model's output: the number of labels, 1 for regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def splits(self) -> tuple[Split, ...]:
        """All splits: train, dev, test."""
        return (*((self.train,) if self.train else ()), *self.dev, *self.test)

    def split(self, name: str) -> Split:
        """Return the split of that name.

        Raises:
            ConfigError: the task has none of that name; the message lists those it has.
        """
        for split in self.splits:
            if split.name == name:
                return split
        raise ConfigError(f"{self.title} has no split {name!r}; it has {', '.join(s.name for s in self.splits)}.")

    def match_labels(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Translate a checkpoint's label names, in its order, into this task's: None if they do not name the same set.

        Case and the choice between `-`, `_` and space do not matter. `LABEL_0`, `LABEL_1` stand for the labels `0`
        and `1` of a task that is labelled so, and name nothing elsewhere.

        Example: MNLI (`contradiction`, `entailment`, `neutral`) matches `["ENTAILMENT", "NEUTRAL", "CONTRADICTION"]`
        as `("entailment", "neutral", "contradiction")`: logit 0 of that checkpoint is entailment.
        """
        if self.labels is None:
            return None
        if sorted(names) == sorted(self.labels):  # a user's own may differ in nothing but case
            return tuple(names)

        def plain(name: str) -> str:
            return name.lower().replace("-", "_").replace(" ", "_")

        known = {plain(name): name for name in self.labels}
        known |= {plain(word): name for word, name in zip(self.label_words or (), self.labels, strict=False)}
        known |= {plain(GENERIC_LABEL + name): name for name in self.labels if name.isdigit()}
        found = tuple(known.get(plain(name), "") for name in names)
        return found if sorted(found) == sorted(self.labels) else None
