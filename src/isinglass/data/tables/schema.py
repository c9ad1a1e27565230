"""Which columns of a table are the texts and the label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isinglass.config import TrainConfig
from isinglass.data.tables.file import TableFile
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed

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


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns that are read."""

    texts: tuple[str, ...]
    label: str


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
