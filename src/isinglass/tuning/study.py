"""Optuna's study on disk."""

import functools
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from isinglass.errors import (
    MissingDependencyError,
    OutputExistsError,
    StorageError,
)
from isinglass.metrics import LOWER_IS_BETTER
from isinglass.names import brief
from isinglass.storage import check_parent, held
from isinglass.training.checkpoints import compare_identity

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

DATABASE: Final = "study.db"
STUDY: Final = "isinglass"  # its name in there
STARTUP_TRIALS: Final = 5  # drawn at random, and never pruned, before there is something to learn from
LOCK: Final = ".lock"


@dataclass(frozen=True, kw_only=True)
class TunedTrial:
    """One trial.

    Attributes:
        number: in Optuna's database; one that a kill cut off has left a gap.
        state: `running` while it is, `pruned` if it was ended for being worse than most, `failed` if its loss diverged.
        settings: the values of SETTINGS.
        score: what the trial is judged by, NaN included; of a pruned one that of its last epoch; None: there is none.
        seconds: from its start to its end.
    """

    number: int
    state: Literal["running", "complete", "pruned", "failed"]
    settings: Mapping[str, Any]
    score: float | None = None
    seconds: float = 0.0


def worst(study: "Study") -> float:
    """Return the score that stands for NaN, which Optuna's database lacks."""
    return math.inf if study.direction.name == "MINIMIZE" else -math.inf


def finished_trials(study: "Study") -> list[TunedTrial]:
    """The trials that came to an end; one that was killed, or failed without being told why, is none."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        state: Any = states.get(trial.state.name)
        if state is None or (state == "failed" and "error" not in trial.user_attrs):
            continue
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        settings, score = trial.user_attrs["settings"], _score_of(trial, worst(study))
        found.append(TunedTrial(number=trial.number, state=state, settings=settings, score=score, seconds=seconds))
    return found


def positions(study: "Study") -> list[int]:
    """Of the finished trials; those of a study from before there were positions have them in their order."""
    attributes = {trial.number: trial.user_attrs for trial in study.get_trials(deepcopy=False)}
    return [attributes[trial.number].get("position", place) for place, trial in enumerate(finished_trials(study))]


def _score_of(trial: "FrozenTrial", worst: float) -> float | None:
    if trial.state.name == "FAIL":
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)] if trial.state.name == "PRUNED" else trial.value
    return math.nan if value == worst else value


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold a study's directory, made if need be."""
    if directory.is_file() or (
        directory.is_dir() and any(directory.iterdir()) and not any((directory / name).exists() for name in (DATABASE, LOCK))
    ):
        raise OutputExistsError(f"{directory} holds something other than a search: name a new directory by --output.")
    check_parent(directory, option="--output")
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / LOCK, f"The search in {directory}"):
        yield


@contextmanager
def opened(database: Path, metric: str) -> Iterator["Study"]:
    """The study in a database, made if need be; a trial that a killed process left behind counts as failed.

    Raises:
        StorageError: the file is no such database, or cannot be read or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    try:
        # by a creator, since a path may hold what an URL or a template gives a meaning to
        options = {"creator": lambda: sqlite3.connect(database)}
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
        make = functools.partial(
            optuna.create_study,
            storage=storage,
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize" if metric in LOWER_IS_BETTER else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_min_trials=2),
        )
        study = make()
        if not finished_trials(study):  # nothing is lost by beginning anew, and its settings may have been mistaken
            optuna.delete_study(study_name=STUDY, storage=storage)
            study = make()
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        yield study
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise StorageError(f"{database} cannot be read or written ({brief(reason)}).") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)


def check_identity(study: "Study", identity: Mapping[str, Any], directory: Path) -> None:
    """Keep what the trials of a new study share; refuse to go on with an old one under anything else."""
    if "identity" in study.user_attrs:
        compare_identity(study.user_attrs["identity"], identity, directory, remedy="name another --output")
    else:
        study.set_user_attr("identity", identity)


def check_installed() -> None:
    """Raise MissingDependencyError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "Tuning needs Optuna, which is not installed: `pip install 'isinglass[tune]'`."
        ) from None
