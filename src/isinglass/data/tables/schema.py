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
    named = [name for name in (config.text_column, config.text_column2, config.label_column) if name is not None]
    if config.text_column is None and config.text_column2 is not None:
        raise ConfigError("text_column2 is the second text of a pair: name text_column too.")
    if len({*named}) < len(named):
        raise ConfigError(f"The columns {listed(named)} are named for two purposes: a column serves for one.")
    table.require(named)
    unnamed = [name for name in table.columns if name not in named]
    texts = [name for name in named if name != config.label_column] or _guess_pair(unnamed) or _guess(unnamed, TEXTS)
    labels = [name for name in named if name == config.label_column] or _guess(unnamed, LABELS)
    rest = [name for name in table.columns if name not in (*texts, *labels)]
    if len(table.columns) == 2 and len(rest) == 1:  # the other one of two
        texts, labels = texts or rest, labels or rest
    options = {"text (--text-column, for pairs --text-column2 too)": texts, "label (--label-column)": labels}
    unknown = [option for option, chosen in options.items() if not chosen]
    if unknown:
        doubt = f"it is not plain which column is {' and which is '.join(unknown)}"
        raise DataError(f"{table.origin}: {doubt}; its first row names {listed(table.columns)}.")
    columns = Columns(texts=tuple(texts), label=labels[0])
    table.require(columns.names)
    if len(named) == len(columns.names):
        return columns, ()
    return columns, (f"Columns: text {listed(texts)}, label {brief(columns.label)} (guessed).",)


def _guess_pair(columns: Sequence[str]) -> list[str]:
    """Return the one pair of text columns; nothing if there are several or a column for a single text."""
    by_plain_name = {_plain(name): name for name in columns}
    pairs = [pair for pair in PAIRS if by_plain_name.keys() >= {*pair}]
    if len(pairs) != 1 or by_plain_name.keys() & TEXTS[0].split():
        return []
    return [by_plain_name[name] for name in pairs[0]]


def _guess(columns: Sequence[str], ranks: Sequence[str]) -> list[str]:
    """Return the only column of the first rank that matches any; nothing if several match or none does."""
    matches = ([name for name in columns if _plain(name) in rank.split()] for rank in ranks)
    first = next(filter(None, matches), [])
    return first if len(first) == 1 else []


def _plain(name: str) -> str:
    return name.strip().lower().translate(_WITHOUT_SEPARATORS)
