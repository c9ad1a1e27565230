"""X of an estimator: whatever holds texts or pairs of texts, as columns of strings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isinglass.errors import DataError
from isinglass.names import brief

Texts = tuple[list[str], ...]
"""One column of texts, or two for pairs."""


def text_columns(X: Any, *, to_train: bool = False) -> Texts:
    """Return X as one column of texts, or two.

    Args:
        to_train: whether to refuse texts of nothing but spaces, from which there is nothing to learn.

    Raises:
        DataError: X is something else; the message names the row, counted from 0.
    """
    if isinstance(X, str | bytes):
        raise DataError(f"X is a single text, {brief(X)}; a list of texts was expected: write [text].")
    if isinstance(X, Mapping | set | frozenset):
        raise DataError(f"X is a {type(X).__name__}; texts in an order were expected: a list, say.")
    columns = _columns(X)
    if not columns[0]:
        raise DataError("X holds no text (0 samples, while a minimum of 1 is required).")
    for column in columns:
        for row, text in enumerate(column):
            _check_text(text, row, to_train=to_train)
    return tuple([str(text) for text in column] for column in columns)  # NumPy's own strings become Python's


def check_lengths(texts: Texts, rows: int) -> None:
    """Refuse X and y of different lengths.

    Raises:
        DataError: they are.
    """
    if len(texts[0]) != rows:
        raise DataError(f"X has {len(texts[0]):,} texts and y {rows:,} labels; as many of each were expected.")


def plain(values: Any) -> Any:
    """Return a Series, a DataFrame or an Arrow array as a NumPy array or a list of Python's values; a list as it is.

    Raises:
        DataError: it is a single value.
    """
    if hasattr(values, "to_pylist"):
        return values.to_pylist()
    if isinstance(values, list | tuple) or not hasattr(values, "__array__"):
        return values
    array = np.asarray(values)
    if array.ndim == 0:
        raise DataError(f"{brief(values)} is a single value; a list was expected.")
    return array


def _check_text(text: object, row: int, *, to_train: bool) -> None:
    if not isinstance(text, str):
        raise DataError(f"X, row {row}: {brief(text)} ({type(text).__name__}) was found; a text was expected.")
    if to_train and not text.strip():
        raise DataError(f"X, row {row}: the text is empty: fill it in, or leave the row out.")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"X, row {row}: {ascii(text)[:60]} holds half of a surrogate pair, which is no character.") from None


def _columns(X: Any) -> Sequence[list[Any]]:
    """Return the columns of X, one or two, with values of any type."""
    if hasattr(X, "column_names") and hasattr(X, "columns"):  # a table of Arrow
        columns = [column.to_pylist() for column in X.columns]
    else:
        rows = _rows(X)
        if not rows or isinstance(rows[0], str) or not isinstance(rows[0], list | tuple | np.ndarray):
            return (rows,)
        columns = _transposed(rows)
    if len(columns) not in (1, 2):
        raise DataError(f"X has {len(columns)} columns; one of texts, or two for pairs, were expected.")
    return columns


def _rows(X: Any) -> list[Any]:
    rows = plain(X)
    try:
        return [*rows.tolist()] if isinstance(rows, np.ndarray) else [*rows]
    except TypeError as error:
        raise DataError(f"X is {type(X).__name__}; a list of texts was expected ({error}).") from None


def _transposed(rows: Sequence[Any]) -> list[list[Any]]:
    width = len(rows[0])
    for row, texts in enumerate(rows):
        if not isinstance(texts, list | tuple | np.ndarray) or len(texts) != width:
            raise DataError(f"X, row {row}: {brief(texts)} was found; {width} texts, as in row 0, were expected.")
    return [list(column) for column in zip(*rows, strict=True)]
