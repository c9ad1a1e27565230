"""Search a task's settings: one trial after another in this process, or several at the same time on a cluster."""

import dataclasses
import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from isinglass.config import TrainConfig, as_dict, changed, identifying
from isinglass.config.settings import ClusterSettings
from isinglass.data import open_data
from isinglass.data.custom import divide
from isinglass.data.examples import LoadedSplits, Source, digest_of
from isinglass.errors import ConfigError, MissingDependencyError, RunFailedError, TrainingDivergedError
from isinglass.executors.messages import EpochScored, Failed, Message, Progressed, RunInputs, TrialFinished, TrialRequest
from isinglass.executors.ray.executor import RayExecutor, connected
from isinglass.executors.training import Send, train_requested
from isinglass.metrics import Metric
from isinglass.storage import locked_output
from isinglass.training.checkpoints import compare_identity
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import Observer, RunState
from isinglass.training.preparation import selection_metric
from isinglass.tuning.search import (
    DATABASE,
    RECIPE,
    TRIALS,
    Search,
    SearchSpace,
    Trial,
    TunedTrial,
    TuningObserver,
    opened_study,
)

HELD_OUT: Final = 0.1  # share of a published task's train that scores the trials
SEED_NOTE: Final = (
    "Each trial has a seed of its own, and the recipe that of the best one, whose score is in part luck: repeat it with "
    "other seeds (--runs) before it is compared."
)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        metric: what the trials are scored by.
        best: the complete trial with the best score, the first of equal ones.
        trials: all finished trials, in their order.
        recipe: the file that `isinglass train --config` takes.
        notes: what a reader must know: on what the trials were scored, and the seed.
    """

    metric: Metric
    best: TunedTrial
    trials: tuple[TunedTrial, ...]
    recipe: Path
    notes: tuple[str, ...]


def tune(
    config: TrainConfig,
    *,
    trials: int,
    directory: Path,
    space: SearchSpace = SearchSpace(),  # noqa: B008  # it is frozen
    observer: TuningObserver = TuningObserver(),  # noqa: B008  # it has no state
    cluster: ClusterSettings | None = None,
    interruption: Interruption | None = None,
) -> Tuned:
    """Train with one setting after another until `directory` holds `trials` finished trials; earlier calls count.

    The dev sets of a published task, and a test file of your own, are not read: see `tuning_data`.

    Args:
        cluster: the cluster that trains several trials at the same time; None: this process, one after another. On a
            cluster the order in which trials end decides what is searched next.
        interruption: tells that the process was asked to end.

    Raises:
        MissingDependencyError: Optuna is not installed.
        ConfigError: the settings do not fit each other, the task, the cluster, or those that `directory` was made with.
        OutputExistsError: `directory` holds something else, or another process holds it.
        RunFailedError: no trial has a score.
        StorageError: the disk is full, say. Finished trials are kept.
        Interrupted: the process was asked to end. Finished trials are kept.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; it must be at least 1.")
    try:
        import optuna  # noqa: F401
    except ImportError:
        text = "Tuning needs Optuna, which is not installed: `pip install 'isinglass[tune]'`."
        raise MissingDependencyError(text) from None
    config = dataclasses.replace(config, test_file=())
    data, notes = tuning_data(config)
    if space.seed:
        notes += (SEED_NOTE,)
    metric = selection_metric(config, data.task)
    identity = identifying(as_dict(config)) | {
        "search": json.loads(json.dumps(dataclasses.asdict(space))),  # as it is read back
        "data (digest)": digest_of(*(data.read(split) for split in data.task.splits)),
    }
    with ExitStack() as stack:
        executor = None
        if cluster is not None:
            executor = stack.enter_context(connected(cluster, directory))
            observer.on_connect(executor.summary)
        stack.enter_context(locked_output(directory, "search", DATABASE))
        study = stack.enter_context(opened_study(directory / DATABASE, metric))
        if "identity" in study.user_attrs:
            compare_identity(study.user_attrs["identity"], identity, directory, remedy="name another --output")
        else:
            study.set_user_attr("identity", identity)
        search = Search(
            directory=directory, study=study, space=space, config=config, metric=metric, notes=notes, observer=observer
        )
        try:
            if executor is None:
                _train_in_turn(search, trials, data, interruption)
            else:
                _train_on(executor, search, trials)
        except Interrupted as interrupted:
            kept = f"{len(search.finished())} of {trials} trials are kept in {directory}"
            text = f"stopped: {kept}, and the same command continues with them."
            raise Interrupted(interrupted.number, text) from None
        best = search.write()
        finished = tuple(search.finished())
    if best is None:
        raise RunFailedError(
            f"No trial has a score ({directory / TRIALS}): search lower learning rates, or look at the data."
        )
    return Tuned(metric=metric, best=best, trials=finished, recipe=directory / RECIPE, notes=notes)


def tuning_data(config: TrainConfig) -> tuple[Source, tuple[str, ...]]:
    """Return what the trials are trained on, with what scores them as the only dev set, and notes about it.

    The dev sets of a published task are not read: a tenth of its train, with each label's share, scores the trials. Your own
    files have a validation split for that.

    Raises:
        ConfigError: the task has no training set.
        DataError: the data are missing or damaged.
    """
    data = open_data(config, with_test=False)
    task = data.task
    if task.train is None:
        raise ConfigError(f"{task.title} has no training set to tune on.")
    if config.has_own_data:
        note = "Scored on the validation split, which chose the settings: its scores are optimistic. No test set was read."
        return data, (*data.notes, note)
    train_part, dev_part, note = divide(data.read(task.train), task, HELD_OUT, config.split_seed)
    dev = dataclasses.replace(task.train, name="dev")
    task = dataclasses.replace(task, dev=(dev,), test=())
    parts = LoadedSplits(task=task, splits={"train": train_part, "dev": dev_part}, notes=data.notes)
    return parts, (*data.notes, f"{note} They are held out of train; the published dev set was not read.")


# ---- the loops ---------------------------------------------------------


def _train_in_turn(search: Search, trials: int, data: Source, interruption: Interruption | None) -> None:
    """Train one trial after another in this process, until the search has enough."""
    from optuna import TrialPruned

    def receive(trial: Trial, message: Message) -> None:
        if _is_ended_by(message, trial, search) and isinstance(message, EpochScored):
            raise TrialPruned

    while len(search.finished()) < trials:
        trial = search.begin()
        send = partial(receive, trial)
        with suppress(TrialPruned):
            send(perform_trial(_request(trial), search.directory, send, data, interruption))


def _train_on(executor: RayExecutor, search: Search, trials: int) -> None:
    """Train as many trials at the same time as the executor has room for, until the search has enough.

    Raises:
        RunFailedError: a trial failed for another reason than its loss.
    """
    pending: dict[str, Trial] = {}
    while (missing := trials - len(search.finished())) > 0:
        while len(pending) < min(executor.at_once, missing):
            trial = search.begin()
            digest = hashlib.blake2b(repr(trial.config).encode(), digest_size=4).hexdigest()
            name = f"trial-{trial.optuna.number}-{digest}"
            executor.submit(name, _request(trial))
            pending[name] = trial
        name, message = executor.wait()
        # a pruned trial may still send messages
        if name in pending and _is_ended_by(message, pending[name], search):
            executor.stop(name)
            del pending[name]


def _request(trial: Trial) -> TrialRequest:
    """Return the request to train a trial, which is scored after each epoch."""
    config = changed(trial.config, keep_best=True)
    return TrialRequest(runs=(RunInputs(config=as_dict(config)),))


def _is_ended_by(message: Message, trial: Trial, search: Search) -> bool:
    """Record what a message says of a trial, and return whether the trial is ended.

    Raises:
        RunFailedError: the trial failed for another reason than its loss.
    """
    match message:
        case Progressed(progress=progress):
            search.observer.on_progress(trial.optuna.number, progress)
        case EpochScored(scores=scores):
            return search.prune(trial, scores)
        case TrialFinished(scores=scores, error=None):
            search.complete(trial, scores)
        case TrialFinished(error=str(error)):
            search.fail(trial, error)
        case Failed(error=error):
            raise RunFailedError(f"Trial {trial.optuna.number} could not be trained: {error}")
    return isinstance(message, TrialFinished)


# ---- one trial ---------------------------------------------------------


class ScoreMessages(Observer):
    """Sends the scores of a trial after each epoch, and keeps them."""

    def __init__(self, send: Send) -> None:
        self.scores: tuple[float, ...] = ()
        self._send = send

    def on_evaluate(self, state: RunState) -> None:
        """Send the scores so far."""
        self.scores = state.epoch_scores
        self._send(EpochScored(scores=self.scores))


def perform_trial(
    request: TrialRequest,
    _directory: Path,
    send: Send,
    data: Source | None = None,
    interruption: Interruption | None = None,
) -> TrialFinished:
    """Train one trial, in this process or as a worker does. A loss that diverges is an outcome like others.

    Args:
        data: what `tuning_data` returns; None: it is read.
    """
    config = request.runs[0].resolve()
    if data is None:
        data, _ = tuning_data(config)
    scores = ScoreMessages(send)
    error = None
    try:
        train_requested(request, config, data, send, scores, interruption=interruption)
    except TrainingDivergedError as diverged:
        error = str(diverged)
    return TrialFinished(scores=scores.scores, error=error)
