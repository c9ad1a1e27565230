"""Trials: their settings, their training here or elsewhere, their pruning."""

import dataclasses
import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig, as_dict
from isinglass.data.source import Source
from isinglass.errors import (
    RunFailedError,
    TrainingDivergedError,
)
from isinglass.executors.local import Executor
from isinglass.executors.worker import TrainingRequest
from isinglass.runs.perform import perform
from isinglass.training.interruption import Interruption
from isinglass.training.observers import Observer, Observers, Progress, RunState
from isinglass.tuning.search_space import SETTINGS, SearchSpace
from isinglass.tuning.study import STARTUP_TRIALS, TunedTrial, finished_trials, positions, worst

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OptunaTrial

WORKER: Final = "isinglass.tuning.worker"  # what an executor runs for a trial
WHOLE_RUN: Final = 1000  # pruning compares trials after the same share of their epochs, in thousandths


logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Search:
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
            self.study.tell(trial, worst(self.study) if math.isnan(score) else score)
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
        while under_way or len(finished_trials(self.study)) < trials:
            while len(under_way) < where.executor.at_once and len(finished_trials(self.study)) + len(under_way) < trials:
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
                    self.study.tell(trial, worst(self.study) if math.isnan(score) else score)
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

        taken = {*positions(self.study), *(trial.user_attrs["position"] for trial in under_way)}
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
        perform(
            watched,
            observers=[*self.observers, pruning],
            data=self.data,
            interruption=self.interruption,
            group=SingleProcess(),
        )
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

    def on_evaluate(self, state: RunState) -> None:
        from optuna import TrialPruned

        self.scores = state.epoch_scores
        if self._is_behind(self.scores):
            raise TrialPruned
