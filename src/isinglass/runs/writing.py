"""What a finished run writes into its directory."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError

from isinglass.errors import StorageError
from isinglass.models.checkpoint import save_checkpoint
from isinglass.results import RunResult
from isinglass.runs.directory import MODEL, RESULT, TASK, check_output, partial_directory, real_path
from isinglass.runs.prediction_files import Rows, prediction_rows, write_rows
from isinglass.storage import take_place
from isinglass.tasks import TASKS, custom
from isinglass.training.card import CARD, model_card
from isinglass.training.checkpoints import CHECKPOINTS
from isinglass.training.trainer import TrainedRun


def write_run(
    run: TrainedRun,
    directory: Path,
    *,
    overwrite: bool,
    with_model: bool = True,
    predictions: Mapping[str, Rows] | None = None,
) -> RunResult:
    """Write a run beside `directory`, then rename: readers see either the complete run directory or nothing.

    Args:
        predictions: name of a split that was not scored -> its predictions, the header first.

    Returns:
        The result, which now names its prediction files.

    Raises:
        OutputExistsError, ConfigError: as `check_output`.
        StorageError: the disk is full, say. Nothing is left of the run but its checkpoints.
    """
    check_output(directory, overwrite=overwrite)
    scored = {one.split.name: list(prediction_rows(one.outputs, one.label_order, run.task)) for one in run.scored}
    place = real_path(directory)
    partial = partial_directory(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if with_model:
            _write_model(run, partial / MODEL)
        result = _write_records(run, partial, scored | dict(predictions or {}))
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors' writer lets the owner alone read its files
        take_place(partial, place)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        saved = any((directory / CHECKPOINTS).glob("*"))
        left = "its checkpoints stay: make room and go on with --resume" if saved else "nothing is left of it"
        raise StorageError(f"The run could not be written to {directory} ({reason}), and {left}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _write_model(run: TrainedRun, directory: Path) -> None:
    """Write the model, its card, and the user's own task."""
    directory.mkdir()
    save_checkpoint(run.model, run.weights, directory)
    if run.task.name not in TASKS:
        (directory / TASK).write_text(custom.to_json(run.task), encoding="utf-8")
    card = model_card(run.result, run.task, run.model.label_names, base_model=run.result.model, license=None)
    (directory / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")


def _write_records(run: TrainedRun, directory: Path, predictions: Mapping[str, Rows]) -> RunResult:
    """Write the steps, the predictions and the result, and return the result."""
    with open(directory / "steps.jsonl", "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(dataclasses.asdict(step)) + "\n" for step in run.steps)
    files = {name: f"predictions-{name}.tsv" for name in predictions}
    for name, rows in predictions.items():
        write_rows(rows, directory / files[name])
    result = dataclasses.replace(run.result, predictions=files)
    # a path in the settings need not be UTF-8: its bytes become JSON's \udcff
    (directory / RESULT).write_text(result.to_json() + "\n", encoding="utf-8", errors="backslashreplace")
    return result
