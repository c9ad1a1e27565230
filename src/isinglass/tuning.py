"""Search a task's settings by Optuna: trials that a kill does not lose, and a recipe that `isinglass train` takes.

DIR/
  study.db      Optuna's database: all trials, the scores after each epoch, and the settings that they share
  trials.tsv    the finished trials, one a line
  recipe.toml   the best trial's settings: `isinglass train TASK --config DIR/recipe.toml`

The state of the sampler is a function of (seed, finished trials): a study that was killed goes on as if it had not been.
Several trials at once (`Elsewhere`) begin before they know of each other: then the order in which they end counts too.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

from isinglass.bench.local import Executor
from isinglass.bench.worker import Answers, TrainingRequest, serve
from isinglass.config import PLACES, TrainConfig, as_dict, resolve, without_places
from isinglass.data import open_data
from isinglass.data.custom.holdout import divide
from isinglass.data.source import LoadedSplits, Source
from isinglass.errors import (
    ConfigError,
    MissingDependencyError,
    OutputExistsError,
    RunFailedError,
    StorageError,
    TrainingDivergedError,
)
from isinglass.metrics import LOWER_IS_BETTER
from isinglass.names import brief, did_you_mean, printable
from isinglass.storage import check_parent, held, replacing
from isinglass.training.best_epoch import selection_metric
from isinglass.training.checkpoints import compare_identity
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import Evaluate, Observer, Observers
from isinglass.training.progress import Progress, ProgressObserver
from isinglass.training.trainer import train

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OptunaTrial
    from optuna.trial import FrozenTrial

DATABASE: Final = "study.db"
STUDY: Final = "isinglass"  # its name in there
RECIPE: Final = "recipe.toml"
TRIALS: Final = "trials.tsv"
LOCK: Final = ".lock"
SETTINGS: Final = ("learning_rate", "epochs", "batch_size", "seed")  # what can be searched, and what a recipe always holds
HELD_OUT: Final = 0.1  # share of a published task's train that scores the trials
STARTUP_TRIALS: Final = 5  # drawn at random, and never pruned, before there is something to learn from
WORKER: Final = "isinglass.tuning"  # what an executor runs for a trial
WHOLE_RUN: Final = 1000  # pruning compares trials after the same share of their epochs, in thousandths

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is searched, and where; None, or for the seed False: as in the config.

    Attributes:
        learning_rate: lowest and highest, drawn on a logarithmic scale.
        epochs: fewest and most.
        batch_size: one of these.
        seed: each trial has one of its own, so that no setting is judged by one lucky seed. It is not learned from.
    """

    learning_rate: tuple[float, float] | None = (1e-5, 5e-4)
    epochs: tuple[int, int] | None = (2, 5)
    batch_size: tuple[int, ...] | None = (16, 32, 64)
    seed: bool = True

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "batch_size"):
            values = getattr(self, name)
            if values is None:
                continue
            is_range = name != "batch_size"
            if not values or (is_range and len(values) != 2) or sorted({*values}) != [*values] or not values[0] > 0:
                expected = "a lower and a higher number" if is_range else "rising whole numbers"
                raise ConfigError(f"The search space of {name} is {brief(values)}; {expected} above 0 were expected.")
            if not math.isfinite(values[-1]):
                raise ConfigError(f"The search space of {name} is {brief(values)}; finite numbers were expected.")
        if self.learning_rate is None and self.epochs is None and self.batch_size is None:
            raise ConfigError("There is nothing to search but the seed: name learning_rate, epochs or batch_size.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Names with commas between them, each with values of its own where the usual ones are not to be searched.

        Example: `learning_rate=1e-5:1e-4,batch_size=8:16:32,seed` leaves the epochs as they are.

        Raises:
            ConfigError: an unknown name, or values of the wrong kind.
        """
        usual = cls()
        chosen: dict[str, Any] = dict.fromkeys(SETTINGS, None) | {"seed": False}
        for part in text.split(","):
            name, sign, values = (one.strip() for one in part.partition("="))
            if name not in chosen:
                hint = did_you_mean(name, SETTINGS)
                raise ConfigError(f"{brief(name)} cannot be searched{hint}; {', '.join(SETTINGS)} can.")
            if not sign:
                chosen[name] = getattr(usual, name)
                continue
            try:
                if name == "seed":
                    raise ValueError
                chosen[name] = tuple((float if name == "learning_rate" else int)(value) for value in values.split(":"))
            except ValueError:
                wanted = "no values" if name == "seed" else "numbers with `:` between them"
                raise ConfigError(f"The search space {brief(part)}: {wanted} were expected.") from None
        return cls(**chosen)

    def suggest(self, trial: "OptunaTrial", config: TrainConfig, number: int) -> TrainConfig:
        """The settings of one trial, the `number`-th of its study from 0."""
        chosen: dict[str, Any] = {}
        if self.learning_rate:
            chosen["learning_rate"] = trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        if self.epochs:
            chosen["epochs"] = trial.suggest_int("epochs", *self.epochs)
        if self.batch_size:
            chosen["batch_size"] = trial.suggest_categorical("batch_size", self.batch_size)
        if self.seed:
            chosen["seed"] = (config.seed + number) % 2**63
        return dataclasses.replace(config, **chosen)


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


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        metric: what the trials are scored by.
        best: of the complete trials, of equal ones the first.
        trials: all finished ones, in their order.
        recipe: the file that `isinglass train --config` takes.
        notes: what a reader must know: on what the trials were scored.
    """

    metric: str
    best: TunedTrial
    trials: tuple[TunedTrial, ...]
    recipe: Path
    notes: tuple[str, ...]


class StoppingExecutor(Executor, Protocol):
    """An executor that can end a trial which is pruned."""

    def stop(self, name: str) -> None:
        """End what was submitted under this name; what it still says is of no interest."""
        ...


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Where trials are trained several at once, if not in this process.

    Attributes:
        executor: whose workers are WORKER's.
        on_progress: of the trial of that number.
    """

    executor: StoppingExecutor
    on_progress: Callable[[int, Progress], None] = lambda _number, _now: None


def tune(
    config: TrainConfig,
    *,
    trials: int,
    directory: Path,
    space: SearchSpace = SearchSpace(),
    on_trial: Callable[[TunedTrial], None] = lambda _: None,
    observers: Observers = (),
    interruption: Interruption | None = None,
    elsewhere: Elsewhere | None = None,
) -> Tuned:
    """Train with one setting after another until `directory` holds so many finished trials; what is there already counts.

    A published task's dev sets are not read: a tenth of train, with each label's share, scores the trials. The user's own
    files have their validation split for that; a test file is not read.

    Args:
        on_trial: called when a trial begins (`running`), and again with what came of it.
        observers: are told how each trial in this process goes on.
        elsewhere: train several trials at once; what is searched next then depends on which of them end first.

    Raises:
        MissingDependencyError: Optuna is not installed.
        ConfigError: the settings do not fit each other, the task, or those that `directory` was made with.
        OutputExistsError: `directory` holds something else, or another process holds it.
        RunFailedError: no trial has a score.
        StorageError: the disk is full, say. The trials so far are kept.
        Interrupted: the process was asked to end. The trials so far are kept.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; it must be at least 1.")
    _check_installed()
    config = dataclasses.replace(config, test_file=())
    data, notes = tuning_data(config)
    if space.seed:
        notes += (
            "Each trial has a seed of its own, and the recipe that of the best one, whose score is in part luck: repeat it "
            "with other seeds (--runs) before it is compared.",
        )
    metric = selection_metric(config, data.task)
    identity = without_places(as_dict(config)) | {
        "search": json.loads(json.dumps(dataclasses.asdict(space))),
        "data (digest)": _digest(data),
    }
    with _held(directory), _opened(directory / DATABASE, metric) as study:
        _check_identity(study, identity, directory)
        search = _Search(study, config, data, space, observers, interruption or Interruption())
        finished = _finished(study)

        def on_end(number: int) -> None:
            finished[:] = _finished(study)
            _write(directory, config, metric, finished, notes)
            on_trial(next(one for one in finished if one.number == number))

        try:
            if elsewhere is None:
                while len(finished) < trials:
                    on_end(search.run_one(on_trial))
            else:
                search.run_elsewhere(elsewhere, trials, on_trial, on_end)
        except Interrupted as interrupted:
            done = f"{len(finished)} of {trials} trials are kept in {directory}"
            raise Interrupted(interrupted.number, f"stopped: {done}, and the same command goes on with them.") from None
        best = _write(directory, config, metric, finished, notes)
    if best is None:
        raise RunFailedError(
            f"No trial has a score ({directory / TRIALS}): search lower learning rates, or look at the data."
        )
    return Tuned(metric=metric, best=best, trials=tuple(finished), recipe=directory / RECIPE, notes=notes)


def tuning_data(config: TrainConfig) -> tuple[Source, tuple[str, ...]]:
    """What the trials train on and, as the one dev set, what they are scored on; and notes on that.

    Raises:
        ConfigError: the task has no training set.
        DataError: the data are missing or damaged.
    """
    data = open_data(config)
    task = data.task
    if task.train is None:
        raise ConfigError(f"{task.title} has no training set to tune on.")
    if config.train_file:
        note = "Scored on the validation split, which chose the settings: its scores are optimistic. No test set was read."
        return data, (*data.notes, note)
    train_part, dev_part, note = divide(data.read(task.train), task, HELD_OUT, config.split_seed)
    dev = dataclasses.replace(task.train, name="dev")
    task = dataclasses.replace(task, dev=(dev,), test=())
    parts = {"train": train_part, "dev": dev_part}
    data = LoadedSplits(task=task, splits=parts, notes=data.notes)
    return data, (*data.notes, f"{note} They are held out of train; the published dev set was not read.")


# ---- trials ------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """What all trials of a study share."""

    study: "Study"
    config: TrainConfig
    data: Source
    space: SearchSpace
    observers: Observers
    interruption: Interruption

    def run_one(self, on_start: Callable[[TunedTrial], None]) -> int:
        """Train once, tell the study what came of it, and return the trial's number."""
        from optuna import TrialPruned
        from optuna.trial import TrialState

        trial, config = self._ask(on_start, under_way=())
        try:
            score = self._score(trial, config)
        except TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except TrainingDivergedError as error:
            self._diverged(trial, str(error))
        else:
            self.study.tell(trial, _worst(self.study) if math.isnan(score) else score)
        return trial.number

    def run_elsewhere(
        self, where: Elsewhere, trials: int, on_start: Callable[[TunedTrial], None], on_end: Callable[[int], None]
    ) -> None:
        """Train as many at once as there is room for, until so many are finished.

        Raises:
            RunFailedError: a trial failed otherwise than by its loss.
        """
        from optuna.trial import TrialState

        under_way: dict[str, tuple[OptunaTrial, TrainConfig]] = {}
        told: dict[str, int] = {}  # epochs; what goes on from a checkpoint tells some of them again
        while under_way or len(_finished(self.study)) < trials:
            while len(under_way) < where.executor.at_once and len(_finished(self.study)) + len(under_way) < trials:
                trial, config = self._ask(on_start, [one for one, _ in under_way.values()])
                name = f"trial-{trial.number}-{hashlib.blake2b(repr(config).encode(), digest_size=4).hexdigest()}"
                watched = dataclasses.replace(config, keep_best=True)
                where.executor.submit(name, "trial", TrainingRequest(config=as_dict(watched)))
                under_way[name] = trial, config
            name, message = where.executor.wait()
            if name not in under_way:  # it was pruned
                continue
            trial, config = under_way[name]
            if "progress" in message:
                where.on_progress(trial.number, Progress(**message["progress"]))
                continue
            if "scores" in message:
                scores = message["scores"]
                if len(scores) <= told.get(name, 0):
                    continue
                told[name] = len(scores)
                if not self._is_behind(trial, config, scores):
                    continue
                where.executor.stop(name)
                self.study.tell(trial, state=TrialState.PRUNED)
            elif "trial" in message:
                scores, error = message["trial"]["scores"], message["trial"]["error"]
                if error is not None:
                    self._diverged(trial, error)
                else:
                    score = self._of_kept_weights(scores, config)
                    self.study.tell(trial, _worst(self.study) if math.isnan(score) else score)
            elif "error" in message:
                raise RunFailedError(f"Trial {trial.number} could not be trained: {message['error']}")
            else:
                continue
            del under_way[name]
            on_end(trial.number)

    def _ask(
        self, on_start: Callable[[TunedTrial], None], under_way: "Sequence[OptunaTrial]"
    ) -> "tuple[OptunaTrial, TrainConfig]":
        """The next trial and its settings, which are drawn by its position: the first that no other trial has."""
        from optuna.samplers import TPESampler

        taken = {*_positions(self.study), *(trial.user_attrs["position"] for trial in under_way)}
        position = next(number for number in itertools.count() if number not in taken)
        seed = int.from_bytes(hashlib.blake2b(f"{self.config.seed} {position}".encode(), digest_size=4).digest())
        apart: dict[str, Any] = {"constant_liar": True} if under_way else {}  # not where a trial is already under way
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, **apart)
        trial = self.study.ask()
        config = self.space.suggest(trial, self.config, position)
        settings = {name: getattr(config, name) for name in SETTINGS}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("position", position)
        on_start(TunedTrial(number=trial.number, state="running", settings=settings))
        return trial, config

    def _diverged(self, trial: "OptunaTrial", error: str) -> None:
        from optuna.trial import TrialState

        logger.warning("Trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", error)
        self.study.tell(trial, state=TrialState.FAIL)

    def _is_behind(self, trial: "OptunaTrial", config: TrainConfig, scores: Sequence[float]) -> bool:
        """Report the newest of the scores after each epoch: whether to end the trial for being worse than most."""
        # after one of two epochs as after two of four: there the schedule stands at the same learning rate
        trial.report(scores[-1], round(WHOLE_RUN * len(scores) / config.epochs))
        return len(scores) < config.epochs and trial.should_prune()

    def _score(self, trial: "OptunaTrial", config: TrainConfig) -> float:
        watched = dataclasses.replace(config, keep_best=True)
        pruning = _Pruning(lambda scores: self._is_behind(trial, config, scores))
        train(watched, [*self.observers, pruning], data=self.data, interruption=self.interruption)
        return self._of_kept_weights(pruning.scores, config)

    def _of_kept_weights(self, scores: Sequence[float], config: TrainConfig) -> float:
        """The score of the weights that such a run keeps: the last epoch's, or the best one's where that is asked for."""
        known = [score for score in scores if not math.isnan(score)] or [math.nan]
        lower = self.study.direction.name == "MINIMIZE"
        return (min(known) if lower else max(known)) if config.picks_best else scores[-1]


class _Pruning(Observer):
    """Ends a trial after an epoch that leaves it behind the others, and keeps its scores so far."""

    def __init__(self, is_behind: Callable[[Sequence[float]], bool]) -> None:
        self.scores: tuple[float, ...] = ()
        self._is_behind = is_behind

    def on_evaluate(self, event: Evaluate) -> None:
        from optuna import TrialPruned

        self.scores = event.epoch_scores
        if self._is_behind(self.scores):
            raise TrialPruned


def _worst(study: "Study") -> float:
    return math.inf if study.direction.name == "MINIMIZE" else -math.inf


def _finished(study: "Study") -> list[TunedTrial]:
    """The trials that came to an end; one that was killed, or failed without being told why, is none."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        state: Any = states.get(trial.state.name)
        if state is None or (state == "failed" and "error" not in trial.user_attrs):
            continue
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        settings, score = trial.user_attrs["settings"], _score_of(trial, _worst(study))
        found.append(TunedTrial(number=trial.number, state=state, settings=settings, score=score, seconds=seconds))
    return found


def _positions(study: "Study") -> list[int]:
    """Of the finished trials; those of a study from before there were positions have them in their order."""
    attributes = {trial.number: trial.user_attrs for trial in study.get_trials(deepcopy=False)}
    return [attributes[trial.number].get("position", place) for place, trial in enumerate(_finished(study))]


def _score_of(trial: "FrozenTrial", worst: float) -> float | None:
    if trial.state.name == "FAIL":
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)] if trial.state.name == "PRUNED" else trial.value
    return math.nan if value == worst else value


# ---- the directory -----------------------------------------------------


@contextmanager
def _held(directory: Path) -> Iterator[None]:
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
def _opened(database: Path, metric: str) -> Iterator["Study"]:
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
        if not _finished(study):  # nothing is lost by beginning anew, and its settings may have been mistaken
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


def _check_identity(study: "Study", identity: Mapping[str, Any], directory: Path) -> None:
    """Keep what the trials of a new study share; refuse to go on with an old one under anything else."""
    if "identity" in study.user_attrs:
        compare_identity(study.user_attrs["identity"], identity, directory, remedy="name another --output")
    else:
        study.set_user_attr("identity", identity)


def _digest(data: Source) -> str:
    """Of the texts and labels that the trials see: scores on other data tell nothing."""
    digest = hashlib.blake2b(digest_size=16)
    for split in (data.task.train, *data.task.dev):
        assert split is not None
        examples = data.read(split)
        assert examples.labels is not None
        for row in zip(*examples.texts, examples.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _write(
    directory: Path, config: TrainConfig, metric: str, finished: Sequence[TunedTrial], notes: Sequence[str]
) -> TunedTrial | None:
    """Write the table of trials and, if there is one with a score, the best one's recipe; return that trial."""
    scored = [(one, one.score) for one in finished if one.state == "complete" and one.score is not None]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    best, _ = max(
        ((one, score) for one, score in scored if not math.isnan(score)),
        key=lambda pair: sign * pair[1],
        default=(None, 0.0),
    )
    try:
        with replacing(directory / TRIALS) as path, open(path, "w", encoding="utf-8", newline="") as lines:
            table = csv.writer(lines, delimiter="\t", lineterminator="\n")
            table.writerow(["number", "state", *SETTINGS, metric, "seconds"])
            for one in finished:
                score = "" if one.score is None else "NaN" if math.isnan(one.score) else f"{one.score:.6g}"
                settings = (repr(one.settings[name]) for name in SETTINGS)
                table.writerow([one.number, one.state, *settings, score, f"{one.seconds:.1f}"])
        if best is not None:
            with replacing(directory / RECIPE) as path:
                text = _recipe(config, metric, best, len(finished), notes)
                path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"{directory} cannot be written ({error.strerror}): make room and run it again.") from error
    return best


def _recipe(config: TrainConfig, metric: str, best: TunedTrial, trials: int, notes: Sequence[str]) -> str:
    """TOML that `isinglass train --config` takes: the searched settings, and those that differ from the usual ones."""
    usual = as_dict(resolve(task=config.task))
    given = {
        name: value
        for name, value in as_dict(config).items()
        if name not in ("task", *PLACES, *SETTINGS) and value != usual[name]
    }
    comments = [
        f"{config.task}, {config.model}: trial {best.number} is the best of {trials} by {metric}, {best.score:.4f}.",
        *notes,
    ]
    values = {**best.settings, **given}
    lines = [*(f"# {printable(one)}" for one in comments), *(f"{name} = {_toml(value)}" for name, value in values.items())]
    return "".join(f"{line}\n" for line in lines)


def _toml(value: str | bool | float) -> str:
    """A plain value in TOML, whose basic strings are JSON's but for what JSON writes as two halves."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "Tuning needs Optuna, which is not installed: `pip install 'isinglass[tune]'`."
        ) from None


# ---- a trial in a process of its own -----------------------------------


class _TellScores(Observer):
    """Tells the scores after each epoch as they come, and keeps them."""

    def __init__(self, answers: Answers) -> None:
        self.scores: list[float] = []
        self._answers = answers

    def on_evaluate(self, event: Evaluate) -> None:
        self.scores = [*event.epoch_scores]
        self._answers.send(scores=self.scores)


def _perform_trial(values: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """Train once; the scores after each epoch are told as they come, and in the end."""
    request = TrainingRequest(**values)
    config = request.located()
    data, _ = tuning_data(config)
    scores = _TellScores(answers)
    error = None
    try:
        train(
            config,
            [ProgressObserver(answers.progress), scores],
            data=data,
            first_weights=request.first_weights,
            checkpoints=request.kept(),
        )
    except TrainingDivergedError as diverged:
        error = str(diverged)
    return {"trial": {"scores": scores.scores, "error": error}}


if __name__ == "__main__":
    serve({"trial": _perform_trial})
