"""The schema of a user's tables: which columns are the texts and which one is the label."""

from collections.abc import Sequence
from typing import Final

from isinglass.config import TrainConfig
from isinglass.data.tables.table import Columns, Table
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, listed

# Names of columns, without case, spaces, `_` and `-`. The first rank of TEXTS or LABELS that matches any column must match
# exactly one.
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
_WITHOUT_SEPARATORS: Final = str.maketrans("", "", "_- ")


def choose_columns(table: Table, config: TrainConfig) -> tuple[Columns, tuple[str, ...]]:
    """Choose the columns of text and label: those that the config names, and the others by their names.

    Returns:
        The columns, and sentences about what was guessed.

    Raises:
        DataError: a named column is missing, or there are no candidates or several.
        ConfigError: a column is named for two purposes.
    """
    named = _named_columns(config)
    table.require(named)
    unnamed = [name for name in table.columns if name not in named]
    texts = [name for name in (config.text_column, config.text_column2) if name is not None] or _guess_texts(unnamed)
    label = config.label_column or _guess(unnamed, LABELS)
    if len(table.columns) == 2:
        texts, label = _complete_by_elimination(table.columns, texts, label)
    if not texts or label is None:
        raise DataError(_describe_doubt(table, texts, label))
    table.require([*texts, label])
    columns = Columns(texts=tuple(texts), label=label)
    if len(named) == len(columns.names):
        return columns, ()
    return columns, (f"Columns: text {listed(texts)}, label {brief(label)} (guessed).",)


def _named_columns(config: TrainConfig) -> list[str]:
    """Return the columns that the config names."""
    if config.text_column2 is not None and config.text_column is None:
        raise ConfigError("text_column2 is the second text of a pair: name text_column too.")
    names = [name for name in (config.text_column, config.text_column2, config.label_column) if name is not None]
    if len({*names}) < len(names):
        raise ConfigError(f"The columns {listed(names)} are named for two purposes: a column serves for one.")
    return names


def _guess_texts(columns: Sequence[str]) -> list[str]:
    """Return the one pair of text columns if there is no single text, else the one text column, else nothing."""
    by_plain_name = {_plain(name): name for name in columns}
    pairs = [pair for pair in PAIRS if by_plain_name.keys() >= {*pair}]
    has_single_text = not by_plain_name.keys().isdisjoint(TEXTS[0].split())
    if len(pairs) == 1 and not has_single_text:
        return [by_plain_name[name] for name in pairs[0]]
    text = _guess(columns, TEXTS)
    return [] if text is None else [text]


def _guess(columns: Sequence[str], ranks: Sequence[str]) -> str | None:
    """Return the only column of the first rank that matches any; None if several match or none does."""
    for rank in ranks:
        matches = [name for name in columns if _plain(name) in rank.split()]
        if matches:
            return matches[0] if len(matches) == 1 else None
    return None


def _plain(name: str) -> str:
    return name.strip().lower().translate(_WITHOUT_SEPARATORS)


def _complete_by_elimination(columns: Sequence[str], texts: list[str], label: str | None) -> tuple[list[str], str | None]:
    """Of two columns, take the other one for what is still unknown if exactly one of text and label is known."""
    others = [name for name in columns if name not in texts and name != label]
    if len(others) != 1:
        return texts, label
    if label is None:
        return texts, others[0]
    return texts or others, label


def _describe_doubt(table: Table, texts: Sequence[str], label: str | None) -> str:
    unknown = []
    if not texts:
        unknown.append("text (--text-column, for pairs --text-column2 too)")
    if label is None:
        unknown.append("label (--label-column)")
    return (
        f"{table.origin}: it is not plain which column is {' and which is '.join(unknown)}; its first row names "
        f"{listed(table.columns)}."
    )
