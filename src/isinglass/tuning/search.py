"""A search in its directory: trials that Optuna proposes and remembers, and two files for people.

DIR/
  study.db      Optuna's database: all trials, their scores after each epoch, and the settings that they share
  trials.tsv    the finished trials, one a line
  recipe.toml   the best trial's settings: `isinglass train TASK --config DIR/recipe.toml`

The sampler's state is a function of the seed and the finished trials: a study that was killed continues as if it had not
been. Trials that are trained at the same time begin before they know each other's scores: then the order in which they end
counts too.
"""

import csv
import hashlib
import itertools
import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from isinglass.config import PLACES, TrainConfig, as_dict, changed, resolve
from isinglass.errors import ConfigError, StorageError
from isinglass.metrics import Metric
from isinglass.names import brief, did_you_mean, printable
from isinglass.storage import replacing
from isinglass.training.observers import Progress

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DATABASE: Final = "study.db"
TRIALS: Final = "trials.tsv"
RECIPE: Final = "recipe.toml"
STUDY: Final = "isinglass"  # the study's name in its database
STARTUP_TRIALS: Final = 5  # are drawn at random and never pruned: before them there is nothing to learn from
COMPLETE_RUN: Final = 1000  # steps in Optuna's sense: trials are compared after the same share of their epochs

SETTINGS: Final = ("learning_rate", "epochs", "batch_size", "seed")  # that can be searched; every recipe has them
_STATES: Final[Mapping[str, str]] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The settings that are searched, and their values. None, or False for the seed: the setting stays as it is.

    Attributes:
        learning_rate: lowest and highest; drawn on a logarithmic scale.
        epochs: lowest and highest.
        batch_size: the values to choose from.
        seed: give each trial a seed of its own, so that no setting is judged by one lucky seed. It is not learned from.

    Raises:
        ConfigError: values are out of order or range, or nothing is searched.
    """

    learning_rate: tuple[float, float] | None = (1e-5, 5e-4)
    epochs: tuple[int, int] | None = (2, 5)
    batch_size: tuple[int, ...] | None = (16, 32, 64)
    seed: bool = True

    def __post_init__(self) -> None:
        values_of = {"learning_rate": self.learning_rate, "epochs": self.epochs, "batch_size": self.batch_size}
        searched = {name: values for name, values in values_of.items() if values is not None}
        if not searched:
            raise ConfigError("There is nothing to search but the seed: name learning_rate, epochs or batch_size.")
        for name, values in searched.items():
            is_range = name != "batch_size"
            is_rising = [*values] == sorted({*values}) and min(values, default=0) > 0
            if not is_rising or (is_range and len(values) != 2):
                expected = "a lower and a higher number" if is_range else "rising whole numbers"
                raise ConfigError(f"The search space of {name} is {brief(values)}; {expected} above 0 were expected.")
            if not math.isfinite(values[-1]):
                raise ConfigError(f"The search space of {name} is {brief(values)}; finite numbers were expected.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the space of a text: names between commas, each with values if the default ones are not to be searched.

        Example: `learning_rate=1e-5:1e-4,batch_size=8:16:32,seed` leaves the epochs as they are.

        Raises:
            ConfigError: an unknown name, or values of the wrong kind.
        """
        default = cls()
        chosen: dict[str, Any] = dict.fromkeys(SETTINGS) | {"seed": False}
        for part in text.split(","):
            name, equals_sign, values = (piece.strip() for piece in part.partition("="))
            if name not in chosen:
                hint = did_you_mean(name, SETTINGS)
                raise ConfigError(f"{brief(name)} cannot be searched{hint}; {', '.join(SETTINGS)} can.")
            if not equals_sign:
                chosen[name] = getattr(default, name)
                continue
            if name == "seed":
                raise ConfigError(f"The search space {brief(part)}: no values were expected.")
            number = float if name == "learning_rate" else int
            try:
                chosen[name] = tuple(map(number, values.split(":")))
            except ValueError:
                expected = "numbers with `:` between them were expected"
                raise ConfigError(f"The search space {brief(part)}: {expected}.") from None
        return cls(**chosen)

    def suggest(self, trial: "optuna.Trial", config: TrainConfig, position: int) -> TrainConfig:
        """Return the settings of the trial at a position of its search, counted from 0."""
        chosen: dict[str, Any] = {}
        if self.learning_rate:
            chosen["learning_rate"] = trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        if self.epochs:
            chosen["epochs"] = trial.suggest_int("epochs", *self.epochs)
        if self.batch_size:
            chosen["batch_size"] = trial.suggest_categorical("batch_size", self.batch_size)
        if self.seed:
            chosen["seed"] = (config.seed + position) % 2**63
        return changed(config, **chosen)


@dataclass(frozen=True, kw_only=True)
class TunedTrial:
    """One trial of a search.

    Attributes:
        number: in Optuna's database. A trial that a kill cut off leaves a gap.
        state: `running`, `complete`, `pruned` if it was ended because it was worse than most, `failed` if its loss diverged.
        settings: the values of SETTINGS.
        score: the value that is optimized, which can be NaN; a pruned trial has the score of its last epoch; None: no score.
        seconds: wall clock from its start to its end.
    """

    number: int
    state: str
    settings: Mapping[str, Any]
    score: float | None = None
    seconds: float = 0.0


class TuningObserver:
    """Base class of a search's observers: every method does nothing until it is overridden."""

    def on_connect(self, summary: str) -> None:
        """Called when a cluster is ready; `summary` says in one line what it has."""

    def on_trial_begin(self, trial: TunedTrial) -> None:
        """Called when a trial begins: it has settings, and no score."""

    def on_progress(self, number: int, progress: Progress) -> None:
        """Called while the trial of that number is trained and evaluated."""

    def on_trial_end(self, trial: TunedTrial) -> None:
        """Called when a trial is finished, with its state and score."""


@dataclass
class Trial:
    """A trial under way: Optuna's, the settings that it is trained with, and the number of epochs whose score is known."""

    optuna: "optuna.Trial"
    config: TrainConfig
    epochs_reported: int = 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trials of a search, as Optuna knows them, and the files about them.

    Attributes:
        config: the settings that all trials share.
        metric: what the trials are scored by.
        notes: what a reader of the recipe must know.
    """

    directory: Path
    study: "optuna.Study"
    space: SearchSpace
    config: TrainConfig
    metric: Metric
    notes: tuple[str, ...]
    observer: TuningObserver

    def begin(self) -> Trial:
        """Return the next trial. Its settings are drawn by its position, the first that no other trial has."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # early versions stored no positions: there the order counts
        begun = [*_finished(self.study), *running]
        taken = {trial.user_attrs.get("position", order) for order, trial in enumerate(begun)}
        position = next(number for number in itertools.count() if number not in taken)
        seed = int.from_bytes(hashlib.blake2b(f"{self.config.seed} {position}".encode(), digest_size=4).digest())
        # keeps away from the settings of trials under way; without any the option would change what is drawn
        options: dict[str, Any] = {"constant_liar": True} if running else {}
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, **options)
        asked = self.study.ask()
        trial = Trial(asked, self.space.suggest(asked, self.config, position))
        settings = {name: getattr(trial.config, name) for name in SETTINGS}
        asked.set_user_attr("settings", settings)
        asked.set_user_attr("position", position)
        self.observer.on_trial_begin(TunedTrial(number=asked.number, state="running", settings=settings))
        return trial

    def prune(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Report the last of the scores after each epoch. End the trial, and return True, if it is worse than most."""
        epochs = trial.config.epochs
        if len(scores) <= trial.epochs_reported:  # a run that continues from a checkpoint repeats epochs
            return False
        trial.epochs_reported = len(scores)
        # after one of two epochs as after two of four: both schedules are then at the same learning rate
        trial.optuna.report(scores[-1], round(COMPLETE_RUN * len(scores) / epochs))
        is_behind = len(scores) < epochs and trial.optuna.should_prune()
        if is_behind:
            self._end(trial, "PRUNED")
        return is_behind

    def complete(self, trial: Trial, scores: Sequence[float]) -> None:
        """Record the score of the weights that the trial leaves: its last epoch's, or its best one's if that is kept."""
        score = max(scores, key=self.metric.rank) if trial.config.picks_best else scores[-1]
        self._end(trial, "COMPLETE", _worst(self.metric) if math.isnan(score) else score)

    def fail(self, trial: Trial, error: str) -> None:
        """Record that the loss of a trial diverged."""
        logger.warning("Trial %d failed: %s", trial.optuna.number, error)
        trial.optuna.set_user_attr("error", error)
        self._end(trial, "FAIL")

    def _end(self, trial: Trial, state: str, score: float | None = None) -> None:
        from optuna.trial import TrialState

        ended = self.study.tell(trial.optuna, score, TrialState[state])
        self.write()
        self.observer.on_trial_end(self._tuned(ended))

    def finished(self) -> list[TunedTrial]:
        """Return the finished trials. A trial that was killed, or failed without an error of its own, is not finished."""
        return [*map(self._tuned, _finished(self.study))]

    def _tuned(self, trial: "FrozenTrial") -> TunedTrial:
        score = trial.value  # of a pruned trial the last one
        if trial.state.name != "FAIL" and score in (None, _worst(self.metric)):
            score = math.nan
        state, settings = _STATES[trial.state.name], trial.user_attrs["settings"]
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        return TunedTrial(number=trial.number, state=state, settings=settings, score=score, seconds=seconds)

    def write(self) -> TunedTrial | None:
        """Write the table of trials, and the recipe of the complete one with the best score, the first of equal ones.

        Returns:
            the best trial; None if no trial has a score.

        Raises:
            StorageError: the disk is full, say.
        """
        trials = self.finished()
        scored = [each for each in trials if each.state == "complete" and math.isfinite(self.metric.rank(each.score))]
        best = max(scored, key=lambda trial: self.metric.rank(trial.score), default=None)
        try:
            self._write_table(trials)
            if best is not None:
                self._write_recipe(best, len(trials))
        except OSError as error:
            reason = f"{self.directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        return best

    def _write_table(self, trials: Sequence[TunedTrial]) -> None:
        with replacing(self.directory / TRIALS) as path, open(path, "w", encoding="utf-8", newline="") as lines:
            table = csv.writer(lines, delimiter="\t", lineterminator="\n")
            table.writerow(["number", "state", *SETTINGS, self.metric, "seconds"])
            for trial in trials:
                settings = [repr(trial.settings[name]) for name in SETTINGS]
                score = "" if trial.score is None else f"{trial.score:.6g}".replace("nan", "NaN")
                table.writerow([trial.number, trial.state, *settings, score, f"{trial.seconds:.1f}"])

    def _write_recipe(self, best: TunedTrial, trials: int) -> None:
        """Write the settings that were searched, and those of the search that are not the task's defaults."""
        config = self.config
        defaults = as_dict(resolve(task=config.task))
        left_out = {"task", "dataset", "subset", *PLACES, *SETTINGS}
        settings = as_dict(config).items()
        changed = {name: value for name, value in settings if name not in left_out and value != defaults[name]}
        result = f"trial {best.number} is the best of {trials} by {self.metric}, {best.score:.4f}."
        comments = [f"{config.task}, {config.model}: {result}", *self.notes]
        lines = [f"# {printable(comment)}\n" for comment in comments]
        for name, value in {**best.settings, **changed}.items():
            # TOML's basic strings are those of JSON, except DEL, which must be escaped
            plain = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{name} = {plain}\n")
        with replacing(self.directory / RECIPE) as path:
            path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def _finished(study: "optuna.Study") -> list["FrozenTrial"]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in _STATES]
    return [trial for trial in trials if trial.state.name != "FAIL" or "error" in trial.user_attrs]


def _worst(metric: Metric) -> float:
    """Return what stands for NaN in the database, which has no NaN."""
    return math.inf if metric.lower_is_better else -math.inf


@contextmanager
def opened_study(database: Path, metric: Metric) -> Iterator["optuna.Study"]:
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
        create = partial(
            optuna.create_study,
            storage=storage,
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize" if metric.lower_is_better else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_min_trials=2),
        )
        study = create()
        if not _finished(study):  # nothing is lost by a new start, and the settings may have been a mistake
            optuna.delete_study(study_name=STUDY, storage=storage)
            study = create()
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
