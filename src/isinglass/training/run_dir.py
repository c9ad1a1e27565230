"""What a run leaves on disk: all of it, or nothing but its checkpoints.

While it trains, RUN_DIR holds `checkpoints/` and a lock; in the end it is, at one moment:

RUN_DIR/
  result.json             the RunResult, settings included
  steps.jsonl             loss and learning rate of each step
  predictions-dev.tsv     the model's answer to each example of each scored split
  model/                  a Hugging Face checkpoint with its card (a bench keeps it only where it is asked for); of the
                          user's own task, also its labels and columns: task.json
"""

import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64
from safetensors import SafetensorError

from isinglass.config import TrainConfig, as_dict, resolve, without_places
from isinglass.errors import ConfigError, DataError, OutputExistsError, StorageError
from isinglass.models.checkpoint import CONFIG, Checkpoint, load_checkpoint, save_checkpoint
from isinglass.models.files import read_json
from isinglass.results import RunResult
from isinglass.storage import held, take_place
from isinglass.tasks import TASKS, Task, custom, get_task
from isinglass.training.card import CARD, model_card
from isinglass.training.checkpoints import CHECKPOINTS, compare_identity
from isinglass.training.trainer import TrainedRun

Rows = list[tuple[str, ...]]  # of a predictions file, the header first

MODEL: Final = "model"
RESULT: Final = "result.json"
TASK: Final = "task.json"  # of the user's own task
TASK_BYTES: Final = 10_000_000
LOCK: Final = ".lock"  # held by the process that trains


def new_run_name(config: TrainConfig) -> str:
    """A directory name that tells the run apart by task, model, precision, seed and time of day."""
    model = re.sub(r"[^\w.-]", "_", Path(config.model).name)[:60] or "model"
    return f"{config.task}-{model}-{config.precision}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"


def repetitions(config: TrainConfig, directory: Path, runs: int) -> list[tuple[TrainConfig, Path]]:
    """Settings and directory of each of several runs: seeds count up, each in a directory of its own below `directory`."""
    if runs == 1:
        return [(config, directory)]
    seeds = range(config.seed, config.seed + runs)
    return [(dataclasses.replace(config, seed=seed), directory / f"seed{seed}") for seed in seeds]


def check_output(directory: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Refuse, before any work is done, to write where something else stands or where nothing can be written.

    Raises:
        OutputExistsError: `directory` is a file, or holds a run and neither `overwrite` nor `resume` is asked for, or holds
            something that is no run, or cannot be replaced.
        ConfigError: `directory` cannot be made.
    """
    real, working = _real(directory), Path.cwd()
    if real in (working, *working.parents) or os.path.ismount(real):
        raise OutputExistsError(
            f"{directory} is the working directory, one above it, or a mount point, and cannot be replaced: name a new "
            f"directory in it, --output-dir {directory / 'run'}."
        )
    if real.is_dir():
        holds = {path.name for path in real.iterdir()} - {LOCK}
        unfinished = holds == {CHECKPOINTS}
        if unfinished and not (overwrite or resume):
            raise OutputExistsError(
                f"{directory} holds an unfinished run: go on with it by --resume, or begin anew with --overwrite."
            )
        if holds and not (overwrite or resume):
            raise OutputExistsError(
                f"{directory} is not empty: choose another --output-dir, or replace it with --overwrite."
            )
        if holds and not unfinished and RESULT not in holds:
            option = "--overwrite does not replace it" if overwrite else "there is nothing to --resume"
            raise OutputExistsError(f"{directory} is not a run directory (no {RESULT}): {option}.")
    elif os.path.lexists(real):
        raise OutputExistsError(f"{directory} is a file: choose another --output-dir.")
    check_parent(directory, option="--output-dir")


@contextmanager
def held_run(directory: Path, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Hold a run's directory, made if need be, and yield where its checkpoints go; nothing is left where none was written.

    Raises:
        OutputExistsError, ConfigError: as `check_output`, or another process holds it.
    """
    real = _real(directory)
    made = [path for path in (real, *real.parents) if not path.exists()]
    real.mkdir(parents=True, exist_ok=True)
    try:
        with held(real / LOCK, str(directory)):
            check_output(directory, overwrite=overwrite, resume=resume)
            shutil.rmtree(_partial(real), ignore_errors=True)  # of a process that was killed while it wrote
            for partial in (real / CHECKPOINTS).glob(".*"):
                partial.unlink()
            if overwrite:
                shutil.rmtree(real / CHECKPOINTS, ignore_errors=True)
            try:
                yield real / CHECKPOINTS
            finally:
                (real / LOCK).unlink(missing_ok=True)
    finally:
        for path in (real / CHECKPOINTS, *made):
            with suppress(OSError):
                path.rmdir()  # if empty


def finished_result(config: TrainConfig, directory: Path) -> RunResult | None:
    """The result in `directory`, if its run is finished; None while it is under way or has not begun.

    Raises:
        ConfigError: it was made with other settings.
    """
    if (directory / CHECKPOINTS).exists() or not (directory / RESULT).is_file():
        return None
    result = RunResult.read(directory / RESULT)
    saved, now = (without_places(one) for one in (result.config, as_dict(config)))
    compare_identity(saved, now, directory / RESULT)
    return result


def _partial(directory: Path) -> Path:
    """Where a run is written before it takes its place."""
    return directory.with_name(f".{directory.name}.partial")


def check_parent(path: Path, *, option: str) -> None:
    """Try out whether `path` can be made, missing directories above it included; nothing is left behind.

    Raises:
        ConfigError: it cannot; the message names the option that says where.
    """
    above = next(parent for parent in _real(path).parents if os.path.lexists(parent))
    try:
        Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=above)).rmdir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be made in {above} ({error.strerror}): choose another {option}.") from None


def _real(path: Path) -> Path:
    """Absolute, symbolic links followed: what a link points to is replaced, not the link."""
    return Path(os.path.realpath(path))


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
        return _write(run, _real(directory), with_model=with_model, predictions=predictions or {})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        saved = any((directory / CHECKPOINTS).glob("*"))
        left = "its checkpoints stay: make room and go on with --resume" if saved else "nothing is left of it"
        raise StorageError(f"The run could not be written to {directory} ({reason}), and {left}.") from error


def _write(run: TrainedRun, directory: Path, *, with_model: bool, predictions: Mapping[str, Rows]) -> RunResult:
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(directory)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        if with_model:
            (partial / MODEL).mkdir()
            save_checkpoint(run.checkpoint, run.weights, partial / MODEL)
            if run.task.name not in TASKS:
                (partial / MODEL / TASK).write_text(custom.to_json(run.task), encoding="utf-8")
            card = model_card(run.result, run.task, run.checkpoint.label_names, base_model=run.result.model, license=None)
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


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """A trained model and the settings under which to use it."""

    checkpoint: Checkpoint
    config: TrainConfig
    task: Task


def load_run(directory: Path, *, task: str | None = None) -> FinishedModel:
    """Load a run directory, or any checkpoint directory together with the name of its task.

    Raises:
        ConfigError: a bare checkpoint without `task`.
        DataError: there is neither, or the run's settings are not in its `result.json`.
    """
    if (directory / RESULT).is_file() and (directory / MODEL).is_dir():
        saved = RunResult.read(directory / RESULT).config
        if not isinstance(saved, dict) or "task" not in saved:
            raise DataError(f"{directory / RESULT} does not name its task under 'config': it is not what a run writes.")
        name = task or str(saved["task"])
        config = resolve(task=name, flags={key: value for key, value in saved.items() if key != "task"})
        known = _own_task(directory / MODEL) if task is None else None
        if known is None:
            known = get_task(name)
            config = dataclasses.replace(config, train_file=(), validation_file=(), test_file=())
        return FinishedModel(checkpoint=load_checkpoint(directory / MODEL), config=config, task=known)
    if (directory / CONFIG).is_file():
        known = _own_task(directory) if task is None else get_task(task)
        if known is None:
            raise ConfigError(f"{directory} is a checkpoint without a run's settings: name its task with --task.")
        checkpoint = load_checkpoint(directory)
        length = min(TrainConfig.max_length, checkpoint.config.max_length)
        config = resolve(task=known.name, flags={"model": str(directory), "max_length": length})
        return FinishedModel(checkpoint=checkpoint, config=config, task=known)
    raise DataError(f"{directory} is neither a run directory ({RESULT} and {MODEL}/) nor a checkpoint ({CONFIG}).")


def _own_task(model: Path) -> Task | None:
    """The user's own task that a model was trained on, if it was one."""
    path = model / TASK
    return custom.from_json(read_json(path, limit=TASK_BYTES), str(path)) if os.path.lexists(path) else None


def probabilities(outputs: Float32[np.ndarray, "N outputs"], task: Task) -> Float64[np.ndarray, "N outputs"]:
    """Softmax over the outputs, or of a multi-label task the logistic function of each, in float64."""
    if task.is_multilabel:
        return 0.5 + 0.5 * np.tanh(0.5 * outputs.astype(np.float64))
    shifted = outputs.astype(np.float64) - outputs.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    chances: Float64[np.ndarray, "N outputs"] = exponentials / exponentials.sum(1, keepdims=True)
    return chances


def prediction_rows(
    outputs: Float32[np.ndarray, "N outputs"], label_order: Sequence[str] | None, task: Task
) -> Iterator[tuple[str, ...]]:
    """A header and one row for each example: its index from 0, the label by name (or the value), each probability.

    The labels of a multi-label task stand side by side with `|` between them.
    """
    if label_order is None:
        yield ("index", "prediction")
        for i, value in enumerate(outputs[:, 0]):
            yield (str(i), f"{value:.6g}")
        return
    yield ("index", "prediction", *(f"probability:{name}" for name in label_order))
    for i, chances in enumerate(probabilities(outputs, task)):
        if task.is_multilabel:
            answer = "|".join(name for name, chance in zip(label_order, chances, strict=True) if chance > 0.5)
        else:
            answer = label_order[int(chances.argmax())]
        yield (str(i), answer, *(f"{chance:.6g}" for chance in chances))
