"""The directory of a run: its parts, its lock, what may be written to it, and how; the finished run, loaded and used.

While a run is trained, RUN_DIR holds `checkpoints/` and a lock. Then the finished run takes its place, at one moment:

RUN_DIR/
  result.json             the RunResult, settings included
  steps.jsonl             loss and learning rate of each step
  predictions-dev.tsv     for each example of each scored split: prediction, label, row, texts, probabilities
  model/                  a Hugging Face model directory with its card; for the user's own task, also its labels and
                          columns: task.json (a bench keeps the model only on demand)
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError

from isinglass.backends.protocol import Backend, Objective, check_installed, create_backend
from isinglass.config import TrainConfig, changed, resolve
from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError, OutputExistsError, StorageError
from isinglass.models.checkpoint import CONFIG, Checkpoint, load_checkpoint, save_checkpoint
from isinglass.models.files import read_json
from isinglass.results import RunResult
from isinglass.runs.predictions import Predictions, described_by_source, prediction_columns, write_predictions
from isinglass.storage import LOCK, held, names_to_replace, real_path, take_place
from isinglass.tasks import TASKS, Task, custom, get_task
from isinglass.training.card import CARD, model_card
from isinglass.training.checkpoints import CHECKPOINTS
from isinglass.training.evaluation import Scored, predict
from isinglass.training.observers import Observers
from isinglass.training.preparation import FirstWeights, Packer, prepare_texts
from isinglass.training.trainer import TrainedRun

MODEL: Final = "model"
RESULT: Final = "result.json"
TASK: Final = "task.json"  # the user's own task


class RunNotWrittenError(StorageError):
    """A run was trained and scored, but could not be written; `result` is its result."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message)
        self.result = result


def new_run_name(config: TrainConfig) -> str:
    """Return a directory name of the run's task, model, precision, seed and time of day."""
    model = re.sub(r"[^\w.-]", "_", Path(config.model).name)[:60] or "model"
    return f"{config.task}-{model}-{config.precision}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"


def repetitions(config: TrainConfig, directory: Path, runs: int) -> list[tuple[TrainConfig, Path]]:
    """Return settings and directory of each of several runs, which differ in their seed: `directory/seedN`.

    A single run has `directory` itself.
    """
    if runs == 1:
        return [(config, directory)]
    seeds = range(config.seed, config.seed + runs)
    return [(replace(config, seed=seed), directory / f"seed{seed}") for seed in seeds]


def check_output(directory: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Refuse, before any work is done, to replace anything but a run, or to write where nothing can be written.

    With both `resume` and `overwrite`, the run is resumed.

    Raises:
        OutputExistsError: `directory` is a file, or holds a run and neither `overwrite` nor `resume` is set, or holds
            something that is no run, or cannot be replaced.
        ConfigError: `directory` cannot be made.
    """
    names = names_to_replace(directory, option="--output-dir", example="run") - {LOCK}
    is_unfinished = names == {CHECKPOINTS}
    if not names:
        return
    if not (overwrite or resume):
        if is_unfinished:
            raise OutputExistsError(
                f"{directory} holds an unfinished run: continue it with --resume, or start again with --overwrite."
            )
        raise OutputExistsError(f"{directory} is not empty: choose another --output-dir, or replace it with --overwrite.")
    if not is_unfinished and RESULT not in names:
        option = "there is nothing to --resume" if resume else "--overwrite does not replace it"
        raise OutputExistsError(f"{directory} is not a run directory (no {RESULT}): {option}.")


@contextmanager
def locked_run(directory: Path, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Lock a run's directory, and yield the directory of its checkpoints. Directories that stay empty are removed again.

    Raises:
        OutputExistsError, ConfigError: as `check_output`, or another process holds the lock.
    """
    real = real_path(directory)
    made = [path for path in (real, *real.parents) if not path.exists()]
    real.mkdir(parents=True, exist_ok=True)
    try:
        with held(real / LOCK, str(directory)):
            check_output(directory, overwrite=overwrite, resume=resume)
            _clean_up(real, resume=resume)
            try:
                yield real / CHECKPOINTS
            finally:
                (real / LOCK).unlink(missing_ok=True)
    finally:
        for path in (real / CHECKPOINTS, *made):
            with suppress(OSError):
                path.rmdir()  # if empty


def _clean_up(directory: Path, *, resume: bool) -> None:
    """Remove what a killed process left half written, and the checkpoints of a run that is replaced, not resumed."""
    shutil.rmtree(_partial_directory(directory), ignore_errors=True)
    for partial in (directory / CHECKPOINTS).glob(".*"):
        partial.unlink()
    if not resume:
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)


def write_run(
    run: TrainedRun,
    directory: Path,
    *,
    overwrite: bool,
    with_model: bool = True,
    predictions: Mapping[str, Predictions] | None = None,
) -> RunResult:
    """Write a run beside `directory`, then rename: readers see either the complete run directory or nothing.

    Args:
        predictions: name of a split that was not scored -> its predictions.

    Returns:
        The result, which now names its prediction files.

    Raises:
        OutputExistsError, ConfigError: as `check_output`.
        RunNotWrittenError: the disk is full, say. Nothing is left of the run but its checkpoints.
    """
    check_output(directory, overwrite=overwrite)
    scored = {one.split.name: _predictions_of(one, run.task) for one in run.scored}
    place = real_path(directory)
    partial = _partial_directory(place)
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
        left = "its checkpoints stay: free some space and continue with --resume" if saved else "nothing is left of it"
        message = f"The run could not be written to {directory} ({reason}), and {left}."
        raise RunNotWrittenError(message, run.result) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _predictions_of(scored: Scored, task: Task) -> Predictions:
    described = described_by_source(scored.split.examples)
    threshold = scored.threshold
    return prediction_columns(scored.outputs, scored.label_order, task, described=described, threshold=threshold)


def _write_model(run: TrainedRun, directory: Path) -> None:
    """Write the model, its card, and the user's own task."""
    directory.mkdir()
    save_checkpoint(run.model, run.model.weights, directory)
    if run.task.name not in TASKS:
        (directory / TASK).write_text(custom.to_json(run.task), encoding="utf-8")
    card = model_card(run.result, run.task, run.model.label_names)
    (directory / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")


def _write_records(run: TrainedRun, directory: Path, predictions: Mapping[str, Predictions]) -> RunResult:
    """Write the steps, the predictions and the result, and return the result."""
    with open(directory / "steps.jsonl", "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(vars(step)) + "\n" for step in run.steps)
    files = {name: f"predictions-{name}.tsv" for name in predictions}
    for name, columns in predictions.items():
        write_predictions(columns, directory / files[name])
    result = replace(run.result, predictions=files)
    # a path in the settings need not be UTF-8: its bytes become JSON's \udcff
    (directory / RESULT).write_text(result.to_json() + "\n", encoding="utf-8", errors="backslashreplace")
    return result


def _partial_directory(directory: Path) -> Path:
    """Return the name under which a run is written before it takes the place of `directory`."""
    return directory.with_name(f".{directory.name}.partial")


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """A trained model and the settings under which to use it. It is put on its device when it first predicts."""

    checkpoint: Checkpoint
    config: TrainConfig
    task: Task

    def outputs(
        self, examples: Examples, name: str = "input", observers: Observers = (), *, keep: bool = True
    ) -> Float32[np.ndarray, "N outputs"]:
        """Return the logits of each example (regression: the value), in the order of `label_order`.

        Args:
            name: of the examples, for the observers.
            keep: whether to store the tokens in the cache.
        """
        check_installed(self.config.backend)
        tokens = prepare_texts(examples, self.config, self.checkpoint, keep=keep)
        return predict(self._backend, Packer(self.config, self.checkpoint), tokens, name, observers)

    def warm_up(self) -> None:
        """Put the model on its device and predict one short text: the next prediction takes no longer than later ones."""
        columns = 2 if self.task.is_pair else 1
        example = Examples(texts=(["a"],) * columns, labels=None, origin="warm-up", line_numbers=[1])
        self.outputs(example, keep=False)

    @cached_property
    def _backend(self) -> Backend:
        return create_backend(self.config, self.checkpoint, Objective.of(self.task))

    def __getstate__(self) -> dict[str, object]:
        """Leave the device's copy out of a pickle."""
        return {name: value for name, value in vars(self).items() if name != "_backend"}


def first_weights_of(directory: Path, config: TrainConfig) -> tuple[TrainConfig, FirstWeights]:
    """Return the settings of a run that starts from a finished one, with the model that this began with, and its weights.

    Raises:
        DataError: it is no run directory, or one without its model.
        ConfigError: the settings name another model.
    """
    if not (directory / RESULT).is_file() or not (directory / MODEL / CONFIG).is_file():
        raise DataError(
            f"{directory} is not a run directory with a model ({RESULT} and {MODEL}/), as --start-from needs: name the "
            f"directory of a model with --model."
        )
    result = RunResult.read(directory / RESULT)
    if config.model not in (TrainConfig.model, result.model):
        raise ConfigError(
            f"--start-from {directory} starts from {result.model}, fine-tuned on {result.task}, and --model is "
            f"{config.model}: leave one of them out."
        )
    return changed(config, model=result.model), FirstWeights(str(directory / MODEL), result.task)


def load_run(directory: Path, *, task: str | None = None) -> FinishedModel:
    """Load a run directory, or any model directory together with the name of its task.

    Raises:
        ConfigError: a model directory without `task`.
        DataError: it is neither, or the run's settings are not in its `result.json`.
    """
    if (directory / RESULT).is_file() and (directory / MODEL).is_dir():
        return _load_run_directory(directory, task)
    if (directory / CONFIG).is_file():
        return _load_model_directory(directory, task)
    raise DataError(f"{directory} is neither a run directory ({RESULT} and {MODEL}/) nor a checkpoint ({CONFIG}).")


def _load_run_directory(directory: Path, task: str | None) -> FinishedModel:
    result = RunResult.read(directory / RESULT)
    saved = result.config
    if "task" not in saved:
        raise DataError(f"{directory / RESULT} does not name its task under 'config': it is not what a run writes.")
    name = task or str(saved["task"])
    config = resolve(task=name, flags={key: value for key, value in saved.items() if key != "task"})
    own_task = _own_task(directory / MODEL) if task is None else None
    if own_task is None:
        config = replace(config, train_file=(), validation_file=(), test_file=(), dataset=None, subset=None)
    elif result.dataset is not None:  # the rows that the model was trained on, whatever is the newest
        config = replace(config, dataset=result.dataset.pinned, subset=result.dataset.subset)
    return FinishedModel(checkpoint=load_checkpoint(directory / MODEL), config=config, task=own_task or get_task(name))


def _load_model_directory(directory: Path, task_name: str | None) -> FinishedModel:
    task = _own_task(directory) if task_name is None else get_task(task_name)
    if task is None:
        raise ConfigError(f"{directory} is a checkpoint without a run's settings: name its task with --task.")
    model = load_checkpoint(directory)
    length = min(TrainConfig.max_length, model.blueprint.max_length)
    config = resolve(task=task.name, flags={"model": str(directory), "max_length": length})
    return FinishedModel(checkpoint=model, config=config, task=task)


def _own_task(model: Path) -> Task | None:
    """Return the user's own task that a model was trained on; None if it was a published one."""
    path = model / TASK
    if not os.path.lexists(path):
        return None
    return custom.from_json(read_json(path, limit=custom.MOST_BYTES), str(path))
