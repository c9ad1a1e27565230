"""Answers of a finished model to a split without labels, or to the user's own sentences."""

from collections.abc import Callable, Sequence
from pathlib import Path

from isinglass.backends.protocol import check_installed, create_backend
from isinglass.data import load_split
from isinglass.data.examples import Examples
from isinglass.data.tsv import read_user_texts
from isinglass.errors import ConfigError, OutputExistsError, StorageError
from isinglass.storage import replacing
from isinglass.tasks import Task, get_task
from isinglass.training.loop import Packer, Progress
from isinglass.training.preparation import label_order, prepare_texts
from isinglass.training.run_dir import FinishedModel, Rows, check_parent, prediction_rows
from isinglass.training.trainer import predict


def predict_split(
    model: FinishedModel, split_name: str | None = None, on_progress: Callable[[Progress], None] = lambda _: None
) -> Rows:
    """Predict a split of the model's task: its test set, or the one named. The first row is the header.

    Raises:
        ConfigError: there are several test sets and none was named.
    """
    task = get_task(model.config.task)
    if split_name is None and len(task.test) != 1:
        names = " or ".join(split.name for split in task.test)
        raise ConfigError(f"{task.title} has {len(task.test)} test sets: name one with --split {names}.")
    split = task.test[0] if split_name is None else task.split(split_name)
    data_dir = model.config.data_dir
    examples = load_split(task, split, None if data_dir is None else Path(data_dir))
    return _predict(model, task, examples, split.name, on_progress)


def predict_texts(model: FinishedModel, path: Path | None, on_progress: Callable[[Progress], None] = lambda _: None) -> Rows:
    """Predict the lines of a text file, or of standard input if `path` is None. The first row is the header."""
    task = get_task(model.config.task)
    return _predict(model, task, read_user_texts(path, is_pair=task.is_pair), "input", on_progress)


def _predict(
    model: FinishedModel, task: Task, examples: Examples, name: str, on_progress: Callable[[Progress], None]
) -> Rows:
    check_installed(model.config.backend)
    order = label_order(model.checkpoint, task)
    tokens = prepare_texts(examples, model.config, model.checkpoint)
    backend = create_backend(model.config, model.checkpoint, num_outputs=task.num_outputs)
    outputs = predict(backend, Packer.of(model.config, model.checkpoint), tokens, name, on_progress)
    return list(prediction_rows(outputs, order))


def check_predictions(path: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, to write where something else stands or where nothing can be written.

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
    """Write the rows tab-separated: all of them, or nothing.

    Raises:
        OutputExistsError, ConfigError: as `check_predictions`.
        StorageError: the disk is full, say. Nothing is left of the rows.
    """
    check_predictions(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as lines:
            lines.writelines("\t".join(row) + "\n" for row in rows)
    except OSError as error:
        raise StorageError(f"{path} could not be written and nothing is left of it: {error.strerror}.") from error
