"""Training, read from top to bottom: prepare, run the steps, evaluate."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import check_installed, create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.examples import Source
from isinglass.errors import ConfigError, StorageError
from isinglass.metrics import Metric
from isinglass.models.checkpoint import THRESHOLD, Checkpoint, Weights
from isinglass.models.vocabulary import restore_vocabulary, trim_vocabulary, used_vocabulary
from isinglass.results import RunResult
from isinglass.tasks import MULTILABEL, Task
from isinglass.tasks.kinds import EVEN
from isinglass.training.baselines import train_baselines
from isinglass.training.checkpoints import Checkpoints, TrainingState, arrays_digest, run_identity
from isinglass.training.evaluation import Scored, make_result, predict_splits, score
from isinglass.training.head_start import with_solved_head
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.loop import Loop
from isinglass.training.observers import Observers, ProgressObserver, RunState, StepRecord
from isinglass.training.preparation import FirstWeights, Packer, PreparedRun, PreparedSplit, prepare_run
from isinglass.training.threshold import best_threshold

_PREFIX: Final = "best."  # of the names of the best epoch's weights in a checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A trained and scored run.

    Attributes:
        config: the settings, those that the recipe chose included.
        model: the trained model, its labels named as the task names them.
        steps: the training steps.
        scored: the splits that the result has scores of.
    """

    config: TrainConfig
    task: Task
    result: RunResult
    model: Checkpoint
    steps: list[StepRecord]
    scored: list[Scored]


def train(
    config: TrainConfig,
    observers: Observers = (),
    *,
    data: Source | None = None,
    first_weights: FirstWeights | None = None,
    checkpoints: Checkpoints | None = None,
    interruption: Interruption | None = None,
    group: ProcessGroup = ProcessGroup(),
) -> TrainedRun:
    """Fine-tune on a task's training set. Score its dev sets, and the user's own test set if its labels are known.

    Args:
        observers: are told about the progress of the run; see `isinglass.training.observers`.
        data: the task and its examples; None: what `config` names.
        first_weights: the model to begin with, if it is not `config.model` itself but one fine-tuned from it before.
        checkpoints: where checkpoints are written while training, and found to resume from; None: nowhere.
        interruption: tells that the process was asked to end; then a checkpoint is written, and Interrupted raised.
        group: the processes that share each step, each of which calls this function. Process 0 writes the checkpoints, where
            all processes can read them.

    Raises:
        IsinglassError: of the kind that says what is wrong with the settings, the data or the model.
        Interrupted: the process was asked to end.
    """
    check_installed(config.backend)
    interruption = interruption or Interruption()
    with group.in_turn():
        prepared = prepare_run(config, data or open_data(config), first_weights)
    observers = observers if group.rank == 0 else ()
    if prepared.config.head_start == "solved":
        prepared = with_solved_head(prepared, observers, group)
    trainer = Trainer(prepared.config, prepared, observers, checkpoints, interruption, group)
    trainer.begin()
    with trainer.saves_when_interrupted(), interruption.deferred():
        trainer.run_steps()
        scored = trainer.with_threshold(trainer.predict(prepared.scored))
        result = trainer.result(scored)
    return trainer.finish(scored, result)


@dataclass(eq=False)
class Trainer:
    """One run while it is trained: its model on a device, its steps, its best epoch, its checkpoints."""

    config: TrainConfig
    prepared: PreparedRun
    observers: Observers
    checkpoints: Checkpoints | None
    interruption: Interruption
    group: ProcessGroup

    def __post_init__(self) -> None:
        config, model = self.config, self.prepared.model
        self._vocabulary = used_vocabulary(config, model.blueprint, [split.tokens for split in self.prepared.splits])
        trimmed = trim_vocabulary(model, self._vocabulary)
        self._backend = create_backend(config, trimmed, self.prepared.objective, self.group)
        self._packer = Packer(config, model, self._vocabulary)
        self._identity: dict[str, Any] = {}
        state = self._saved_state() or TrainingState()
        self._loop = Loop(config, self._backend, self._packer, self.prepared.train, self.group, self.observers, state)
        self._best = BestEpoch(self.prepared.metric, config.early_stopping, state)
        state.arrays = {}  # the backend and the best epoch have them now
        self._newest_checkpoint: Path | None = None
        self._saved_at = time.monotonic()  # when the newest checkpoint was written

    def _saved_state(self) -> TrainingState | None:
        """Return the newest checkpoint, if the run is to resume from one. All processes of a group must find the same."""
        group, model = self.group, self.prepared.model
        if self.checkpoints is not None or group.size > 1:
            self._identity = run_identity(self.config, self.prepared, self._vocabulary)
        if group.size > 1:
            weights = arrays_digest(model.weights[name] for name in sorted(model.weights))
            _check_alike(group, [self._identity, weights], "settings, data or model: start all alike, on the same files")
        if self.checkpoints is None:
            return None
        state = self.checkpoints.load(self._identity)
        _check_alike(group, state and state.step, "checkpoints: --output-dir must lie on storage that all hosts share")
        return state

    def begin(self) -> None:
        """Tell the observers that the training begins."""
        for observer in self.observers:
            observer.on_train_begin(self.prepared, self._state())

    def run_steps(self) -> None:
        """Do the remaining steps, with evaluations and checkpoints between them, and load the best epoch's weights."""
        self._evaluate_epoch()  # if the checkpoint was written between the last step of an epoch and its evaluation
        steps = iter(()) if self._best.is_over else self._loop.run()
        for _ in steps:
            if self._loop.is_at_epoch_end:
                for observer in self.observers:
                    observer.on_epoch_end(self._state())
                self._evaluate_epoch()
            self._save_or_stop()
            if self._best.is_over:
                break
        self._loop.report()  # after an early stop there are steps whose losses nobody has read
        if self._best.weights:
            self._backend.load(self._best.weights)

    def predict(self, splits: Sequence[PreparedSplit]) -> list[Scored]:
        """Return the splits with the model's outputs for them."""
        observers = (*self.observers, ProgressObserver(lambda _: self._check_interruption()))
        return predict_splits(self._backend, self._packer, splits, observers, self.group)

    def with_threshold(self, scored: Sequence[Scored]) -> list[Scored]:
        """Return scored splits with the threshold that the dev sets among them choose; 0.5 if that is not requested."""
        kind, names = self.prepared.task.kind, [split.name for split in self.prepared.dev]
        threshold = EVEN
        if self.config.tune_threshold and kind is MULTILABEL and names:
            dev = [one for one in scored if one.split.name in names]
            threshold = best_threshold([one.probabilities_and_truth(kind) for one in dev], self.prepared.metric)
        return [replace(one, threshold=threshold) for one in scored]

    def _check_interruption(self) -> None:
        """End a run by itself if that is requested; several processes stop together, between two steps."""
        if self.group.size == 1:
            self.interruption.check()

    def result(self, scored: list[Scored]) -> RunResult:
        """Return the figures of the run, and of the simple models that it is compared with."""
        loop, prepared, task = self._loop, self.prepared, self.prepared.task
        notes = [*prepared.notes, *self._best.notes(self.config.epochs), *loop.closing_notes()]
        state = replace(loop.state, notes=notes)
        result = make_result(self.config, task, self._backend, scored, prepared.splits, state)
        (peak,) = self.group.largest(result.peak_memory_bytes)
        result = replace(result, peak_memory_bytes=peak, model_commit=prepared.model.commit, dataset=prepared.dataset)
        result = replace(result, start_from=prepared.start_from)
        if not self.config.baselines or not scored:
            return result
        observers = (*self.observers, ProgressObserver(lambda _: self._check_interruption()))
        check = self._check_interruption
        baselines, notes = train_baselines(self.config, prepared, scored, observers, self.group, check)
        return replace(result, baselines=baselines, notes=[*result.notes, *notes])

    def finish(self, scored: list[Scored], result: RunResult) -> TrainedRun:
        """Tell the observers that the run is finished, and return it."""
        loop, prepared, task = self._loop, self.prepared, self.prepared.task
        for observer in self.observers:
            observer.on_train_end(result)
        model = replace(
            prepared.model,
            weights=restore_vocabulary(self._backend.weights(), prepared.model, self._vocabulary),
            config_json=_config_json(prepared.model.config_json, task, result),
        )
        return TrainedRun(config=self.config, task=task, result=result, model=model, steps=loop.records(), scored=scored)

    @contextmanager
    def saves_when_interrupted(self) -> Iterator[None]:
        """Write a checkpoint if the block raises Interrupted, and name it in the message."""
        try:
            yield
        except Interrupted as interrupted:
            if self.checkpoints is None or self.group.rank > 0:
                raise
            self._save(self.checkpoints)
            progress = f"stopped after step {self._loop.state.step} of {self._loop.total_steps}"
            raise Interrupted(interrupted.number, f"{progress}, saved in {self._newest_checkpoint}") from None

    def _state(self) -> RunState:
        loop = self._loop
        return RunState(
            step=loop.state.step,
            total_steps=loop.total_steps,
            epochs_done=loop.state.step // loop.steps_per_epoch,
            epochs=self.config.epochs,
            metric=self.prepared.metric,
            epoch_scores=tuple(math.nan if score is None else score for score in self._best.scores),
            checkpoint=self._newest_checkpoint,
        )

    def _evaluate_epoch(self) -> None:
        """Score the dev sets after an epoch, where the best one is picked and this one has no score yet."""
        next_epoch_end = (len(self._best.scores) + 1) * self._loop.steps_per_epoch
        if not self.config.picks_best or self._loop.state.step != next_epoch_end:
            return
        metric = self.prepared.metric
        dev = self.with_threshold(self.predict(self.prepared.dev))
        values = [score(self.prepared.task, scored)[metric].value for scored in dev]
        numbers = [value for value in values if value is not None]
        mean = sum(numbers) / len(numbers) if len(numbers) == len(values) else None
        self._best.add(mean, self._backend.weights())
        for observer in self.observers:
            observer.on_evaluate(self._state())

    def _save_or_stop(self) -> None:
        """Write a checkpoint if it is time for one, and end the run if that is requested.

        All processes decide alike: by the longest time since a checkpoint, and by any signal.
        """
        seconds = int(time.monotonic() - self._saved_at)
        signal_number, seconds = self.group.largest(self.interruption.number, seconds)
        loop, checkpoints = self._loop, self.checkpoints
        if checkpoints is not None and checkpoints.every.is_due(loop.state.step, loop.steps_per_epoch, seconds):
            try:
                with loop.clock.paused():
                    if self.group.rank == 0:
                        self._save(checkpoints)
            except StorageError as error:
                logger.warning(f"{error} Training continues.")
            self._saved_at = time.monotonic()
        if signal_number:
            raise Interrupted(signal_number)
        if self.group.size == 1:  # several processes learn of a signal that came meanwhile after the next step
            self.interruption.check()

    def _save(self, checkpoints: Checkpoints) -> None:
        state = self._loop.snapshot()
        state.arrays |= self._best.arrays()
        self._newest_checkpoint = checkpoints.save(state, self._identity)
        for observer in self.observers:
            observer.on_save(self._state())


def _config_json(before: Mapping[str, Any], task: Task, result: RunResult) -> dict[str, Any]:
    """Return what the trained model's `config.json` has beside the labels."""
    kept = {name: value for name, value in before.items() if name != THRESHOLD}
    threshold = {} if result.threshold is None else {THRESHOLD: result.threshold}
    return {**kept, **threshold, "problem_type": task.kind.problem_type}


def _check_alike(group: ProcessGroup, value: Any, what: str) -> None:
    """Refuse to continue if the processes of a group have different values.

    Raises:
        ConfigError: it says which process differs, and in what.
    """
    digest = hashlib.blake2b(json.dumps(value).encode()).digest()
    digests = group.gather(np.frombuffer(digest, np.uint8))
    for rank, other in enumerate(digests):
        if not np.array_equal(other, digests[0]):
            raise ConfigError(f"Process {rank} of the {group.size} that share this run has other {what}.")


class BestEpoch:
    """The score after each epoch so far, and the weights of the best epoch: of equal ones the first.

    Args:
        metric: what is compared.
        patience: number of epochs without a better one after which training ends; None: it never ends early.
        state: of the run, from its beginning or a checkpoint. The scores of further epochs are added to it.
    """

    def __init__(self, metric: Metric, patience: int | None, state: TrainingState) -> None:
        self.metric = metric
        self.scores = state.epoch_scores
        self.weights: Weights = {
            name.removeprefix(_PREFIX): array for name, array in state.arrays.items() if name.startswith(_PREFIX)
        }
        self._patience = patience

    def add(self, score: float | None, weights: Weights) -> None:
        """Add one epoch: its score, averaged over the dev sets (None for NaN), and the weights after it."""
        self.scores.append(score)
        if self.best == len(self.scores) - 1:
            self.weights = weights

    @property
    def best(self) -> int:
        """The best epoch, counted from 0. None is worse than any number."""
        ranks = [*map(self.metric.rank, self.scores)]
        return ranks.index(max(ranks))

    @property
    def is_over(self) -> bool:
        """Whether training is to stop, because the last epochs brought nothing better."""
        if self._patience is None or not self.scores:
            return False
        return len(self.scores) - 1 - self.best >= self._patience

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights, under names for a checkpoint."""
        return {f"{_PREFIX}{name}": array for name, array in self.weights.items()}

    def notes(self, epochs: int) -> list[str]:
        """Return what a reader of the result must know."""
        if not self.scores:
            return []
        scores = ", ".join("NaN" if score is None else f"{score:.4f}" for score in self.scores)
        stopped = f", stopped early of {epochs}" if len(self.scores) < epochs else ""
        return [
            f"The weights of epoch {self.best + 1} of {len(self.scores)}{stopped} are kept: the best by {self.metric} on "
            f"dev ({scores}). Scores on the set that chose are optimistic."
        ]
