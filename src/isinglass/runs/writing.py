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
from isinglass.runs.prediction_files import Rows, prediction_rows
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
    """Write beside `directory`, then rename: whoever looks sees the whole run or none.

    Args:
        predictions: of further splits, by name, each with its header.

    Returns:
        The result, which now names its prediction files.

    Raises:
        OutputExistsError, ConfigError: as `check_output`.
        StorageError: the disk is full, say. Nothing is left of the run but its checkpoints.
    """
    check_output(directory, overwrite=overwrite)
    try:
        return _write(run, real_path(directory), with_model=with_model, predictions=predictions or {})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        saved = any((directory / CHECKPOINTS).glob("*"))
        left = "its checkpoints stay: make room and go on with --resume" if saved else "nothing is left of it"
        raise StorageError(f"The run could not be written to {directory} ({reason}), and {left}.") from error


def _write(run: TrainedRun, directory: Path, *, with_model: bool, predictions: Mapping[str, Rows]) -> RunResult:
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_directory(directory)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        if with_model:
            (partial / MODEL).mkdir()
            save_checkpoint(run.model, run.weights, partial / MODEL)
            if run.task.name not in TASKS:
                (partial / MODEL / TASK).write_text(custom.to_json(run.task), encoding="utf-8")
            card = model_card(run.result, run.task, run.model.label_names, base_model=run.result.model, license=None)
            (partial / MODEL / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")
        with open(partial / "steps.jsonl", "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(dataclasses.asdict(step)) + "\n" for step in run.steps)
        answers = {one.split.name: list(prediction_rows(one.outputs, one.label_order, run.task)) for one in run.scored}
        files = {name: f"predictions-{name}.tsv" for name in (*answers, *predictions)}
        for name, rows in (*answers.items(), *predictions.items()):
            with open(partial / files[name], "w", encoding="utf-8") as lines:
                lines.writelines("\t".join(row) + "\n" for row in rows)
        result = dataclasses.replace(run.result, predictions=files)
        # a path in the settings need not be UTF-8: its bytes become JSON's \udcff
        (partial / RESULT).write_text(result.to_json() + "\n", encoding="utf-8", errors="backslashreplace")
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors' writer leaves its files to the owner alone
        take_place(partial, directory)
        return result
    finally:
        shutil.rmtree(partial, ignore_errors=True)
