"""Optuna's study of a search, in a database.

The sampler's state is a function of the seed and the finished trials: a study that was killed continues as if it had not
been. Trials that are trained at the same time begin before they know each other's scores: then the order in which they end
counts too.
"""

import hashlib
import itertools
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from isinglass.config import TrainConfig
from isinglass.errors import MissingDependencyError, StorageError
from isinglass.metrics import Metric
from isinglass.names import brief
from isinglass.training.checkpoints import compare_identity
from isinglass.tuning.search_space import SETTINGS, SearchSpace

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY: Final = "isinglass"  # the study's name in its database
STARTUP_TRIALS: Final = 5  # are drawn at random and never pruned: before them there is nothing to learn from
COMPLETE_RUN: Final = 1000  # steps in Optuna's sense: trials are compared after the same share of their epochs
_STATES: Final[Mapping[str, Literal["complete", "pruned", "failed"]]] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TunedTrial:
    """One trial of a search.

    Attributes:
        number: in Optuna's database. A trial that a kill cut off leaves a gap.
        state: `pruned` if it was ended because it was worse than most, `failed` if its loss diverged.
        settings: the values of SETTINGS.
        score: what the trial is judged by, which can be NaN; a pruned trial has the score of its last epoch; None: no score.
        seconds: wall clock from its start to its end.
    """

    number: int
    state: Literal["running", "complete", "pruned", "failed"]
    settings: Mapping[str, Any]
    score: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """A trial under way, and the settings that it is trained with."""

    optuna: "optuna.Trial"
    config: TrainConfig
    position: int

    @property
    def number(self) -> int:
        """Return its number in Optuna's database."""
        return self.optuna.number

    @property
    def settings(self) -> dict[str, Any]:
        """Return the values of SETTINGS."""
        return {name: getattr(self.config, name) for name in SETTINGS}


class Study:
    """The trials of a search, as Optuna knows them."""

    def __init__(self, study: "optuna.Study") -> None:
        self._study = study
        self._lower_is_better = study.direction.name == "MINIMIZE"

    def check_identity(self, identity: Mapping[str, Any], directory: Path) -> None:
        """Store what all trials of a new study share. Refuse to continue an old study under anything else.

        Raises:
            ConfigError: the study was begun with another identity; the message names what differs.
        """
        attributes = self._study.user_attrs
        if "identity" in attributes:
            compare_identity(attributes["identity"], identity, directory, remedy="name another --output")
        else:
            self._study.set_user_attr("identity", identity)

    def ask(self, space: SearchSpace, config: TrainConfig, running: Sequence[Trial]) -> Trial:
        """Return the next trial. Its settings are drawn by its position, the first that no other trial has.

        Args:
            running: the trials under way.
        """
        from optuna.samplers import TPESampler

        taken = {*self._positions(), *(trial.position for trial in running)}
        position = next(number for number in itertools.count() if number not in taken)
        seed = int.from_bytes(hashlib.blake2b(f"{config.seed} {position}".encode(), digest_size=4).digest())
        # keeps away from the settings of trials under way; without any the option would change what is drawn
        options: dict[str, Any] = {"constant_liar": True} if running else {}
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, **options)
        asked = self._study.ask()
        trial = Trial(asked, space.suggest(asked, config, position), position)
        asked.set_user_attr("settings", trial.settings)
        asked.set_user_attr("position", position)
        return trial

    def is_behind(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Report the last of the scores after each epoch, and return whether the trial should end as worse than most."""
        # after one of two epochs as after two of four: both schedules are then at the same learning rate
        epochs = trial.config.epochs
        trial.optuna.report(scores[-1], round(COMPLETE_RUN * len(scores) / epochs))
        return len(scores) < epochs and trial.optuna.should_prune()

    def complete(self, trial: Trial, scores: Sequence[float]) -> None:
        """Record the score of the weights that the trial leaves: its last epoch's, or its best one's if that is kept."""
        score = self._best(scores) if trial.config.picks_best else scores[-1]
        self._study.tell(trial.optuna, self._worst if math.isnan(score) else score)

    def prune(self, trial: Trial) -> None:
        """Record that a trial was ended."""
        from optuna.trial import TrialState

        self._study.tell(trial.optuna, state=TrialState.PRUNED)

    def fail(self, trial: Trial, error: str) -> None:
        """Record that the loss of a trial diverged."""
        from optuna.trial import TrialState

        logger.warning("Trial %d failed: %s", trial.number, error)
        trial.optuna.set_user_attr("error", error)
        self._study.tell(trial.optuna, state=TrialState.FAIL)

    def finished(self) -> list[TunedTrial]:
        """Return the finished trials. A trial that was killed, or failed without an error of its own, is not finished."""
        finished = []
        for trial in self._study.get_trials(deepcopy=False):
            state = _STATES.get(trial.state.name)
            if state is None or (state == "failed" and "error" not in trial.user_attrs):
                continue
            finished.append(
                TunedTrial(
                    number=trial.number,
                    state=state,
                    settings=trial.user_attrs["settings"],
                    score=self._score(trial),
                    seconds=trial.duration.total_seconds() if trial.duration else 0.0,
                )
            )
        return finished

    @property
    def _worst(self) -> float:
        """Return what stands for NaN in the database, which has no NaN."""
        return math.inf if self._lower_is_better else -math.inf

    def _best(self, scores: Sequence[float]) -> float:
        known = [score for score in scores if not math.isnan(score)]
        if not known:
            return math.nan
        return min(known) if self._lower_is_better else max(known)

    def _score(self, trial: "FrozenTrial") -> float | None:
        if trial.state.name == "FAIL":
            return None
        score = trial.value
        if trial.state.name == "PRUNED":
            score = trial.intermediate_values[max(trial.intermediate_values)]
        return math.nan if score == self._worst else score

    def _positions(self) -> list[int]:
        """Return the positions of the finished trials. Early versions stored none: there the order counts."""
        attributes = {trial.number: trial.user_attrs for trial in self._study.get_trials(deepcopy=False)}
        return [attributes[trial.number].get("position", order) for order, trial in enumerate(self.finished())]


@contextmanager
def opened_study(database: Path, metric: Metric) -> Iterator[Study]:
    """Open the study in a database, which is made if it does not exist. A trial that a killed process left counts as failed.

    Raises:
        StorageError: the file is no such database, or cannot be read or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    try:
        # a function makes the connection, because URLs and templates give characters of a path a meaning
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(database)})
        yield _create_study(storage, metric)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise StorageError(f"{database} cannot be read or written ({brief(reason)}).") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)


def _create_study(storage: "optuna.storages.RDBStorage", metric: Metric) -> Study:
    import optuna

    def create() -> "optuna.Study":
        return optuna.create_study(
            storage=storage,
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize" if metric.lower_is_better else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_min_trials=2),
        )

    study = create()
    if not Study(study).finished():  # nothing is lost by a new start, and the settings may have been a mistake
        optuna.delete_study(study_name=STUDY, storage=storage)
        study = create()
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return Study(study)


def check_installed() -> None:
    """Raise MissingDependencyError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "Tuning needs Optuna, which is not installed: `pip install 'isinglass[tune]'`."
        ) from None
