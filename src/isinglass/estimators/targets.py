"""y of an estimator: labels, sets of labels or numbers, as arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.utils.validation import column_or_1d

from isinglass.errors import DataError
from isinglass.estimators.texts import plain
from isinglass.names import brief, listed

MISSING: Final = ("None", "nan", "NaT", "<NA>")  # how Python, NumPy and pandas write a missing value
Array = np.ndarray[Any, Any]


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

    @staticmethod
    def of(y: Any) -> "Target":
        """Find the classes of y, and whether it is multi-label.

        Raises:
            DataError: y is not labels.
        """
        values = _as_array(y)
        if values.ndim == 2 or _holds_sets(values):
            classes = np.arange(values.shape[1]) if values.ndim == 2 else _sorted(label for row in values for label in row)
            _check_classes(classes)
            return Target(classes=classes, encoded=_indicator(values, classes))
        _check_whole(values)
        classes = _sorted(values) if values.dtype == object else np.unique(values)
        _check_classes(classes)
        position = {label: i for i, label in enumerate(classes.tolist())}
        return Target(classes=classes, encoded=np.array([position[label] for label in values.tolist()], np.int64))


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
    values = _as_array(y)
    if values.ndim != 1:
        raise DataError(f"y is an array of shape {values.shape}; a number for each text was expected.")
    if values.dtype.kind not in "biuf":
        for row, value in enumerate(values.tolist()):
            _check_number(value, row)
    return values.astype(np.float64)


def label_name(label: Any) -> str:
    """Return how the task and the saved model call a label: `1` also for 1.0, `true` for True."""
    if isinstance(label, bool):
        return str(label).lower()
    return str(int(label)) if isinstance(label, float) else str(label)


def _as_array(y: Any) -> Array:
    """Return y as an array (N,), or (N, K) of 0 and 1; lists of labels as objects (N,). Nothing is missing in it.

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
    if values.dtype.kind in "ST":
        values = values.astype(str)
    _check_missing(values)
    if values.ndim == 2:
        _check_zeros_and_ones(values)
    return values


def _from_list(y: list[Any]) -> Array:
    if any(_is_set(row) for row in y):
        return _from_sets(y)
    texts = sum(isinstance(label, str) for label in y)
    mixed = 0 < texts < len(y)
    return np.array(y, dtype=object if mixed else None)  # NumPy would make [1, "a"] two texts


def _from_sets(rows: list[Any]) -> Array:
    """Return lists of labels as objects (N,), or as an array (N, K) where all are equally long and hold only 0 and 1."""
    for row, labels in enumerate(rows):
        if not _is_set(labels):
            raise DataError(f"y, row {row} is {brief(labels)}; a list of labels, as other rows have, was expected.")
    width = len(rows[0])
    if width > 1 and all(_is_indicator_row(row, width) for row in rows):
        return np.array(rows)
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def _is_set(labels: object) -> bool:
    return isinstance(labels, list | tuple | set | frozenset)


def _is_indicator_row(row: Any, width: int) -> bool:
    return isinstance(row, list | tuple) and len(row) == width and {*row} <= {0, 1}


def _holds_sets(values: Array) -> bool:
    return values.dtype == object and len(values) > 0 and _is_set(values[0])


def _indicator(values: Array, classes: Array) -> Int64[np.ndarray, "N K"]:
    if values.ndim == 2:
        if values.shape[1] != len(classes):
            raise DataError(f"y has {values.shape[1]} columns; {len(classes)}, one for each class, were expected.")
        return values.astype(np.int64)
    position = {label: i for i, label in enumerate(classes.tolist())}
    encoded = np.zeros((len(values), len(classes)), np.int64)
    rows = values if _holds_sets(values) else [[label] for label in values]
    for row, labels in enumerate(rows):
        for label in labels:
            if label not in position:
                raise DataError(f"y, row {row}: the label {brief(label)} is none of {listed(position)}.")
            encoded[row, position[label]] = 1
    return encoded


def _sorted(labels: Iterable[Any]) -> Array:
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
    if isinstance(label, bool | np.bool_):
        return bool
    if isinstance(label, str):
        return str
    return int if isinstance(label, int | float | np.number) else None


# ---- checks ------------------------------------------------------------


def _check_classes(classes: Array) -> None:
    if len(classes) < 2:
        found = f"one class, {brief(classes.tolist()[0])}" if len(classes) else "no class"
        raise DataError(f"y has {found}; two are the least that can be told apart.")


def _check_whole(values: Array) -> None:
    """Refuse labels that are numbers with a fraction."""
    if values.dtype.kind != "f":
        return
    fractions = np.flatnonzero(values % 1)
    if fractions.size:
        row = fractions[0]
        raise DataError(
            f"Unknown label type: y, row {row} is {values[row]}; names or whole numbers were expected (TextRegressor is "
            f"for others)."
        )


def _check_missing(values: Array) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = np.argwhere(~np.isfinite(values))[0, 0]
        raise DataError(f"y, row {row} is {values[row]} (NaN or infinite); a label was expected.")
    if values.dtype != object or _holds_sets(values):
        return
    for row, value in enumerate(values.ravel()):
        if not isinstance(value, str) and str(value) in MISSING:
            raise DataError(f"y, row {row} is {value}; a label was expected.")


def _check_zeros_and_ones(values: Array) -> None:
    is_other = ~np.isin(values, (0, 1))
    if is_other.any():
        row = np.argwhere(is_other)[0, 0]
        raise DataError(f"y, row {row} is {brief(values[row].tolist())}; a single label, or 0 and 1 for each, was expected.")


def _check_number(value: Any, row: int) -> None:
    try:
        float(value)
    except (TypeError, ValueError):
        raise DataError(f"y, row {row} is {brief(value)}; a number was expected.") from None
