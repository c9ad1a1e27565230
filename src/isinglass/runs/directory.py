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
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from isinglass.config import TrainConfig, as_dict, without_places
from isinglass.errors import OutputExistsError
from isinglass.results import RunResult
from isinglass.storage import check_parent, held
from isinglass.training.checkpoints import CHECKPOINTS, compare_identity

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
    real, working = real_path(directory), Path.cwd()
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
    real = real_path(directory)
    made = [path for path in (real, *real.parents) if not path.exists()]
    real.mkdir(parents=True, exist_ok=True)
    try:
        with held(real / LOCK, str(directory)):
            check_output(directory, overwrite=overwrite, resume=resume)
            shutil.rmtree(partial_directory(real), ignore_errors=True)  # of a process that was killed while it wrote
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


def partial_directory(directory: Path) -> Path:
    """Where a run is written before it takes its place."""
    return directory.with_name(f".{directory.name}.partial")


def real_path(path: Path) -> Path:
    """Absolute, symbolic links followed: what a link points to is replaced, not the link."""
    return Path(os.path.realpath(path))
