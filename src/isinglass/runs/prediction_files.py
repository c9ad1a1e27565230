"""Predictions as rows of text, and files of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from isinglass.errors import OutputExistsError, StorageError
from isinglass.storage import check_parent, replacing
from isinglass.tasks import Task

Rows = list[tuple[str, ...]]
"""The rows of a predictions file, the header first."""


def prediction_rows(
    outputs: Float32[np.ndarray, "N outputs"], label_order: Sequence[str] | None, task: Task
) -> Iterator[tuple[str, ...]]:
    """Yield a header and one row for each example: its index from 0, the label's name (or the value), the probabilities.

    The labels of a multi-label example are joined by `|`.

    Args:
        label_order: name of each output; None for regression.
    """
    order = label_order or ()
    yield ("index", "prediction", *(f"probability:{name}" for name in order))
    for i, shares in enumerate(task.kind.probabilities(outputs)):
        yield (str(i), task.kind.names(shares, order), *(f"{share:.6g}" for share in shares[: len(order)]))


def write_rows(rows: Sequence[tuple[str, ...]], path: Path) -> None:
    """Write the rows to a file, their cells separated by tabs."""
    with open(path, "w", encoding="utf-8") as lines:
        lines.writelines("\t".join(row) + "\n" for row in rows)


def check_predictions(path: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, a path that the predictions cannot or must not be written to.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false, or is a directory or a device.
        ConfigError: `path` cannot be made.
    """
    if path.exists() and not path.is_file():
        raise OutputExistsError(f"{path} is a directory or a device; --output names a file.")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another --output, or replace it with --overwrite.")
    check_parent(path, option="--output")


def write_predictions(rows: Sequence[tuple[str, ...]], path: Path, *, overwrite: bool) -> None:
    """Write the rows to a file: all of them, or nothing.

    Raises:
        OutputExistsError, ConfigError: as `check_predictions`.
        StorageError: the disk is full, say. Nothing is left of the rows.
    """
    check_predictions(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            write_rows(rows, partial)
    except OSError as error:
        raise StorageError(f"{path} could not be written and nothing is left of it: {error.strerror}.") from error
