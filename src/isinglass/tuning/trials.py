"""The trials of a search: one after another in this process, or several at the same time on a cluster."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig, as_dict
from isinglass.data.examples import Source
from isinglass.errors import RunFailedError, StorageError, TrainingDivergedError
from isinglass.executors.messages import (
    EpochScored,
    Failed,
    Message,
    Progressed,
    RunInputs,
    TrialFinished,
    TrialRequest,
)
from isinglass.executors.protocol import Executor
from isinglass.metrics import Metric
from isinglass.runs.perform import perform
from isinglass.training.interruption import Interruption
from isinglass.training.observers import Observer, Progress, ProgressObserver, RunState
from isinglass.tuning.recipe import best_trial, write_recipe, write_table
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import Study, Trial, TunedTrial


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


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trials of a search, in its directory.

    Attributes:
        config: the settings that all trials share.
        metric: what the trials are scored by.
        trials: number of finished trials to reach.
        notes: what a reader of the recipe must know.
    """

    directory: Path
    study: Study
    space: SearchSpace
    config: TrainConfig
    metric: Metric
    trials: int
    notes: tuple[str, ...]
    observer: TuningObserver

    @property
    def missing(self) -> int:
        """Return the number of trials to finish."""
        return max(0, self.trials - len(self.study.finished()))

    def begin(self, running: Sequence[Trial] = ()) -> Trial:
        """Return a new trial to train. `running` are the trials under way."""
        trial = self.study.ask(self.space, self.config, running)
        self.observer.on_trial_begin(TunedTrial(number=trial.number, state="running", settings=trial.settings))
        return trial

    def end(self, trial: Trial) -> None:
        """Write the files anew after a trial whose outcome the study knows."""
        finished = self.study.finished()
        self.write(finished)
        self.observer.on_trial_end(next(each for each in finished if each.number == trial.number))

    def write(self, finished: Sequence[TunedTrial]) -> TunedTrial | None:
        """Write the table of trials and the recipe of the best one. Return that trial; None if no trial has a score.

        Raises:
            StorageError: the disk is full, say.
        """
        best = best_trial(finished, self.metric)
        try:
            write_table(self.directory, finished, self.metric)
            if best is not None:
                write_recipe(self.directory, self.config, best, metric=self.metric, trials=len(finished), notes=self.notes)
        except OSError as error:
            reason = f"{self.directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        return best


class PrunedError(Exception):
    """A trial is worse than most, and ends."""


class Pruning(Observer):
    """Collects the scores of a trial after each epoch, and ends it by PrunedError if it is worse than most."""

    def __init__(self, study: Study, trial: Trial) -> None:
        self.scores: Sequence[float] = ()
        self._study = study
        self._trial = trial

    def on_evaluate(self, state: RunState) -> None:
        """Report the scores so far."""
        self.scores = state.epoch_scores
        if self._study.is_behind(self._trial, self.scores):
            raise PrunedError


def train_in_turn(search: Search, data: Source, interruption: Interruption) -> None:
    """Train one trial after another in this process, until the search has enough."""
    while search.missing:
        trial = search.begin()
        pruning = Pruning(search.study, trial)
        progress = ProgressObserver(partial(search.observer.on_progress, trial.number))
        try:
            perform(
                scored_each_epoch(trial.config),
                observers=[progress, pruning],
                data=data,
                interruption=interruption,
                group=SingleProcess(),
            )
        except PrunedError:
            search.study.prune(trial)
        except TrainingDivergedError as error:
            search.study.fail(trial, str(error))
        else:
            search.study.complete(trial, pruning.scores)
        search.end(trial)


class ParallelTrials:
    """Trials that an executor trains, as many at the same time as it has room for."""

    def __init__(self, search: Search, executor: Executor) -> None:
        self._search = search
        self._study = search.study
        self._executor = executor
        self._pending: dict[str, Trial] = {}  # by name
        self._reported: dict[str, int] = {}  # name -> number of epochs that the study knows the score of

    def train(self) -> None:
        """Train trials until the search has enough.

        Raises:
            RunFailedError: a trial failed for another reason than its loss.
        """
        while self._pending or self._search.missing:
            self._submit()
            name, message = self._executor.wait()
            trial = self._pending.get(name)
            if trial is not None:  # a pruned trial may still send messages
                self._handle(name, trial, message)

    def _submit(self) -> None:
        while len(self._pending) < min(self._executor.at_once, self._search.missing):
            trial = self._search.begin([*self._pending.values()])
            digest = hashlib.blake2b(repr(trial.config).encode(), digest_size=4).hexdigest()
            name = f"trial-{trial.number}-{digest}"
            config = as_dict(scored_each_epoch(trial.config))
            self._executor.submit(name, TrialRequest(runs=(RunInputs(config=config),)))
            self._pending[name] = trial

    def _handle(self, name: str, trial: Trial, message: Message) -> None:
        match message:
            case Progressed(progress=progress):
                self._search.observer.on_progress(trial.number, progress)
            case EpochScored(scores=scores):
                self._report(name, trial, scores)
            case TrialFinished(scores=scores, error=None):
                self._study.complete(trial, scores)
                self._end(name)
            case TrialFinished(error=str(error)):
                self._study.fail(trial, error)
                self._end(name)
            case Failed(error=error):
                raise RunFailedError(f"Trial {trial.number} could not be trained: {error}")

    def _report(self, name: str, trial: Trial, scores: Sequence[float]) -> None:
        """Report the scores after an epoch, and prune a trial that is behind."""
        if len(scores) <= self._reported.get(name, 0):  # a run that continues from a checkpoint repeats epochs
            return
        self._reported[name] = len(scores)
        if self._study.is_behind(trial, scores):
            self._executor.stop(name)
            self._study.prune(trial)
            self._end(name)

    def _end(self, name: str) -> None:
        self._search.end(self._pending.pop(name))


def scored_each_epoch(config: TrainConfig) -> TrainConfig:
    """Return the settings by which a trial is scored after each epoch."""
    return dataclasses.replace(config, keep_best=True)
