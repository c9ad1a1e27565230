"""X and y of an estimator, in whatever form they come: columns of texts, and labels or numbers."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.validation import column_or_1d

from isinglass.data.labels import most_labels
from isinglass.errors import DataError
from isinglass.names import brief, listed

Texts = tuple[list[str], ...]
"""One column of texts, or two for pairs."""
_EXPECTED: Final = {1: "a text was", 2: "2 texts, as in row 0, were"}
_SETS: Final = (list, tuple, set, frozenset, np.ndarray)


def text_columns(X: Any, *, to_train: bool = False) -> Texts:
    """Return X as one column of texts, or two. Without a row it is one empty column.

    Args:
        to_train: whether to refuse what there is nothing to learn from: no rows, and texts of nothing but spaces.

    Raises:
        DataError: X is something else; the message names the row, counted from 0.
    """
    rows = [row if isinstance(row, list | tuple | np.ndarray) else [row] for row in _rows(X)]
    if not rows and not to_train:
        return ([],)
    if not rows:
        raise DataError("X holds no text (0 samples, while a minimum of 1 is required).")
    width = len(rows[0])
    if width not in _EXPECTED:
        raise DataError(f"X has {width} columns; one of texts, or two for pairs, were expected.")
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataError(f"X, row {number}: {brief(row)} was found; {_EXPECTED[width]} expected.")
        for text in row:
            _check_text(text, number, to_train=to_train)
    return tuple([str(text) for text in column] for column in zip(*rows, strict=True))  # NumPy's strings become Python's


def _rows(X: Any) -> list[Any]:
    if isinstance(X, str | bytes):
        raise DataError(f"X is a single text, {brief(X)}; a list of texts was expected: write [text].")
    if isinstance(X, Mapping | set | frozenset):
        raise DataError(f"X is a {type(X).__name__}; texts in an order were expected: a list, say.")
    if hasattr(X, "column_names") and hasattr(X, "columns"):  # a table of Arrow
        X = zip(*(column.to_pylist() for column in X.columns), strict=True)
    try:
        return _as_list(plain(X))
    except TypeError as error:
        raise DataError(f"X is {type(X).__name__}; a list of texts was expected ({error}).") from None


def _check_text(text: object, row: int, *, to_train: bool) -> None:
    if not isinstance(text, str):
        raise DataError(f"X, row {row}: {brief(text)} ({type(text).__name__}) was found; a text was expected.")
    if to_train and not text.strip():
        raise DataError(f"X, row {row}: the text is empty: fill it in, or leave the row out.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"X, row {row}: {ascii(text)[:60]} holds half of a surrogate pair, which is no character.") from None


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


def _as_list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else [*values]


def classes_and_labels(y: Any) -> tuple[NDArray[Any], tuple[str, ...], list[Any]]:
    """Find the K classes of the y of a classifier, and whether it is multi-label.

    Returns:
        The classes, sorted; for an array of 0 and 1, the numbers of its columns.
        What the task and the saved model call them: `1` also for 1.0, `true` for True.
        The name of the label of each text; multi-label: a tuple of names.

    Raises:
        DataError: y is not labels.
    """
    y = _given(y)
    rows, is_multilabel, columns = _read_labels(y)
    distinct = _distinct(range(columns) or chain.from_iterable(rows))
    if not is_multilabel and not isinstance(distinct[0], str) and len(distinct) > most_labels(len(rows)):
        found = f"y has {len(distinct):,} different whole numbers in {len(rows):,} rows"
        raise DataError(
            f"{found}: they do not look like classes; TextRegressor learns numbers, and names are always classes."
        )
    are_objects = isinstance(y, np.ndarray) and y.dtype == object and isinstance(distinct[0], str)
    classes = np.array(distinct, dtype=object if are_objects else None)
    names = {label: _name(label) for label in classes.tolist()}
    labels = [tuple(names[label] for label in sorted({*row})) for row in rows]
    return classes, tuple(names.values()), labels if is_multilabel else [*chain.from_iterable(labels)]


def _distinct(labels: Iterable[Any]) -> list[Any]:
    """Return the distinct labels, sorted.

    Raises:
        DataError: they are of two kinds, or fewer than two.
    """
    distinct = {*labels}
    if len({isinstance(label, str) for label in distinct}) > 1:
        found = listed(sorted(distinct, key=str), 100)
        raise DataError(f"y holds {found}; names only, or whole numbers only, were expected.")
    if len(distinct) < 2:
        found = f"one class, {brief(*distinct)}" if distinct else "no class"
        raise DataError(f"y has {found}; two are the least that can be told apart.")
    return sorted(distinct)


def indicator(y: Any, classes: NDArray[Any]) -> Int64[np.ndarray, "N K"]:
    """Return multi-label y as 0 and 1: 1 where the text of that row has the label of that column.

    Raises:
        DataError: y is not multi-label, or has a label that is not among the classes.
    """
    labels, _, columns = _read_labels(_given(y))
    if columns not in (0, len(classes)):
        raise DataError(f"y has {columns} columns; {len(classes)}, one for each class, were expected.")
    known = [*range(columns)] or classes.tolist()
    for row, labels_of_row in enumerate(labels):
        for label in {*labels_of_row}.difference(known):
            raise DataError(f"y, row {row}: the label {brief(label)} is none of {listed(known)}.")
    return np.asarray(MultiLabelBinarizer(classes=known).fit_transform(labels), np.int64)


def numbers(y: Any) -> Float64[np.ndarray, " N"]:
    """Return y as an array of numbers.

    Raises:
        DataError: it is not a number for each text.
    """
    y = _given(y)
    if isinstance(y, np.ndarray) and y.ndim != 1:
        raise DataError(f"y is an array of shape {y.shape}; a number for each text was expected.")
    values = _as_list(y)
    converted = np.full(len(values), math.nan)
    for row, value in enumerate(values):
        with suppress(TypeError, ValueError):
            converted[row] = value
        if not math.isfinite(converted[row]):
            raise DataError(f"y, row {row} is {brief(value)}; a number was expected.")
    return converted


def _given(y: Any) -> Any:
    """Return y as an array of NumPy or a list.

    Raises:
        DataError: it is missing, or a single value.
    """
    if y is None:
        raise DataError("The estimator requires y to be passed, but the target y is None.")
    if isinstance(y, str | bytes | Mapping | set | frozenset):
        raise DataError(f"y is {brief(y)}; a label for each text was expected, in a list, say.")
    y = y.toarray() if hasattr(y, "toarray") else plain(y)  # toarray: a sparse matrix
    if not isinstance(y, np.ndarray):
        return [*y]
    return column_or_1d(y, warn=True) if y.shape[1:] == (1,) else y


def _read_labels(y: Any) -> tuple[list[list[Any]], bool, int]:
    """Return the labels of each text, whether it may have any number of them, and K.

    K is not 0 if y is (N, K) of 0 and 1: the labels are then the numbers of columns.

    Raises:
        DataError: a row is something else.
    """
    rows = _as_list(y)
    if not any(isinstance(row, _SETS) for row in rows):
        return [[_label(value, row)] for row, value in enumerate(rows)], False, 0
    lists = [_labels_of_row(labels, row) for row, labels in enumerate(rows)]
    width = len(lists[0])
    odd = [row for row, labels in enumerate(lists) if len(labels) != width or not {0, 1}.issuperset(labels)]
    if odd and getattr(y, "ndim", 1) == 2:
        raise DataError(f"y, row {odd[0]} is {brief(rows[odd[0]])}; a single label, or 0 and 1 for each, was expected.")
    if odd or width == 1 or isinstance(rows[0], set | frozenset):
        return lists, True, 0
    return [np.flatnonzero(row).tolist() for row in lists], True, width


def _labels_of_row(labels: Any, row: int) -> list[Any]:
    if not isinstance(labels, _SETS):
        raise DataError(f"y, row {row} is {brief(labels)}; a list of labels, as other rows have, was expected.")
    return [_label(label, row) for label in labels]


def _label(value: Any, row: int) -> Any:
    """Return a label as Python's text, boolean or whole number.

    Raises:
        DataError: it is missing, or anything else.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str | int) or (isinstance(value, float) and value % 1 == 0):  # NaN % 1 and infinity % 1 are NaN
        return value
    expected = "names or whole numbers were expected (TextRegressor is for others)"
    raise DataError(f"Unknown label type: y, row {row} is {brief(value)}; {expected}.")


def _name(label: Any) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) else str(label)
