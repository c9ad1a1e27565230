"""X and y of an estimator, in whatever form they come: columns of texts, and labels or numbers as arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from sklearn.utils.validation import column_or_1d

from isinglass.errors import DataError
from isinglass.names import brief, listed

MISSING: Final = ("None", "nan", "NaT", "<NA>")  # how Python, NumPy and pandas write a missing value
Array = NDArray[Any]
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


# ---- y -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """y of a classifier, of N examples and K classes.

    Attributes:
        classes: sorted, (K,).
        encoded: int64 (N,), positions in `classes`; multi-label: int64 (N, K) of 0 and 1.
    """

    classes: Array
    encoded: Int64[np.ndarray, "N ..."]

    @property
    def is_multilabel(self) -> bool:
        """Whether a text may have any number of the labels."""
        return self.encoded.ndim == 2

    @property
    def names(self) -> tuple[str, ...]:
        """What the task and the saved model call the classes: `1` also for 1.0, `true` for True."""
        return tuple(map(_name, self.classes.tolist()))

    @staticmethod
    def of(y: Any) -> "Target":
        """Find the classes of y, and whether it is multi-label.

        Raises:
            DataError: y is not labels.
        """
        values = _as_array(y)
        if values.ndim == 2:
            classes = np.arange(values.shape[1])
        elif _holds_sets(values):
            classes = _distinct(label for labels in values for label in labels)
        else:
            classes = _distinct(values) if values.dtype == object else np.unique(values)
        if len(classes) < 2:
            found = f"one class, {brief(classes.tolist()[0])}" if len(classes) else "no class"
            raise DataError(f"y has {found}; two are the least that can be told apart.")
        if values.ndim == 2 or _holds_sets(values):
            return Target(classes=classes, encoded=_indicator(values, classes))
        return Target(classes=classes, encoded=np.searchsorted(classes, values).astype(np.int64))


def indicator(y: Any, classes: Array) -> Int64[np.ndarray, "N K"]:
    """Return multi-label y as 0 and 1: 1 where the text of that row has the label of that column.

    Raises:
        DataError: y is not multi-label, or has a label that is not among the classes.
    """
    return _indicator(_as_array(y), classes)


def numbers(y: Any) -> Float64[np.ndarray, " N"]:
    """Return y as an array of numbers.

    Raises:
        DataError: it is not a number for each text.
    """
    values = _as_array(y, is_class=False)
    if values.ndim != 1:
        raise DataError(f"y is an array of shape {values.shape}; a number for each text was expected.")
    converted = np.empty(len(values))
    for row, value in enumerate(values.tolist()):
        try:
            converted[row] = value
        except (TypeError, ValueError):
            raise DataError(f"y, row {row} is {brief(value)}; a number was expected.") from None
    return converted


def _as_array(y: Any, *, is_class: bool = True) -> Array:
    """Return y as an array (N,), or (N, K) of 0 and 1; lists of labels as objects (N,). Nothing is missing in it.

    Args:
        is_class: whether to refuse numbers with a fraction.

    Raises:
        DataError: y is none of these.
    """
    if y is None:
        raise DataError("The estimator requires y to be passed, but the target y is None.")
    if isinstance(y, str | bytes | Mapping | set | frozenset):
        raise DataError(f"y is {brief(y)}; a label for each text was expected, in a list, say.")
    y = y.toarray() if hasattr(y, "toarray") else plain(y)  # toarray: a sparse matrix
    values: Array = y if isinstance(y, np.ndarray) else _from_list([*y])
    if values.ndim == 2 and values.shape[1] == 1:
        values = column_or_1d(values, warn=True)
    if values.ndim > 2 or values.dtype.kind not in "OUSTbiuf":
        raise DataError(
            f"y is an array of shape {values.shape} and dtype {values.dtype}; a label for each text was expected."
        )
    _check_present(values)
    if values.ndim == 2:
        _refuse(values, ~np.isin(values, (0, 1)), "; a single label, or 0 and 1 for each, was expected")
    elif values.dtype.kind == "f" and is_class:
        expected = "; names or whole numbers were expected (TextRegressor is for others)"
        _refuse(values, values % 1 != 0, expected, "Unknown label type: ")
    return values.astype(str) if values.dtype.kind in "ST" else values


def _check_present(values: Array) -> None:
    """Refuse missing values."""
    if values.dtype.kind == "f":
        _refuse(values, ~np.isfinite(values), " (NaN or infinite); a label was expected")
    elif values.dtype == object and not _holds_sets(values):
        missing = [not isinstance(value, str) and str(value) in MISSING for value in values.ravel()]
        _refuse(values, np.reshape(missing, values.shape), "; a label was expected")


def _refuse(values: Array, wrong: Array, expected: str, prefix: str = "") -> None:
    """Raise DataError about the first row of y with a wrong value, if there is one."""
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        raise DataError(f"{prefix}y, row {row} is {brief(values[row : row + 1].tolist()[0])}{expected}.")


def _from_list(y: list[Any]) -> Array:
    if any(map(_is_set, y)):
        return _from_sets(y)
    texts = sum(isinstance(label, str) for label in y)
    mixed = 0 < texts < len(y)
    return np.array(y, dtype=object if mixed else None)  # NumPy would make [1, "a"] two texts


def _from_sets(y: list[Any]) -> Array:
    """Return lists of labels as objects (N,), or as an array (N, K) where all are rows of 0 and 1."""
    for row, labels in enumerate(y):
        if not _is_set(labels):
            raise DataError(f"y, row {row} is {brief(labels)}; a list of labels, as other rows have, was expected.")
    width = len(y[0])
    if width > 1 and all(isinstance(row, list | tuple) and len(row) == width and {*row} <= {0, 1} for row in y):
        return np.array(y)
    array = np.empty(len(y), dtype=object)
    array[:] = y
    return array


def _is_set(labels: object) -> bool:
    return isinstance(labels, list | tuple | set | frozenset)


def _holds_sets(values: Array) -> bool:
    return values.dtype == object and len(values) > 0 and _is_set(values[0])


def _indicator(values: Array, classes: Array) -> Int64[np.ndarray, "N K"]:
    if values.ndim == 2:
        if values.shape[1] != len(classes):
            raise DataError(f"y has {values.shape[1]} columns; {len(classes)}, one for each class, were expected.")
        return values.astype(np.int64)
    column = {label: i for i, label in enumerate(classes.tolist())}
    encoded = np.zeros((len(values), len(classes)), np.int64)
    for row, labels in enumerate(values):
        for label in labels if _is_set(labels) else [labels]:
            if label not in column:
                raise DataError(f"y, row {row}: the label {brief(label)} is none of {listed(column)}.")
            encoded[row, column[label]] = 1
    return encoded


def _distinct(labels: Iterable[Any]) -> Array:
    """Return the distinct labels in order: as numbers if all are numbers, as objects if all are texts.

    Raises:
        DataError: they are of several kinds, or neither texts nor numbers.
    """
    distinct = {*labels}
    kinds = {_kind(label) for label in distinct}
    if len(kinds) > 1 or None in kinds:
        odd = [label for label in distinct if _kind(label) is None]
        raise DataError(
            f"y holds {listed(odd[:1] or sorted(distinct, key=str), 100)}; names only, or whole numbers only, were expected."
        )
    return np.array(sorted(distinct), dtype=object if kinds == {str} else None)


def _kind(label: object) -> type | None:
    """Return `bool`, `str`, or `int` for any number; None for anything else."""
    kinds: dict[Any, type] = {bool | np.bool_: bool, str: str, int | float | np.number: int}
    return next((kind for types, kind in kinds.items() if isinstance(label, types)), None)


def _name(label: Any) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) else str(label)
