"""Training and evaluation, read from top to bottom: prepare, run the steps, evaluate."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, Objective
from isinglass.backends.registry import check_installed, create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.examples import Source
from isinglass.errors import ConfigError, StorageError
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.vocabulary import restore_vocabulary, trim_vocabulary, used_vocabulary
from isinglass.results import RunResult
from isinglass.tasks import Split, Task
from isinglass.training.checkpoints import Checkpoints, TrainingState, arrays_digest, run_identity
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.loop import Loop
from isinglass.training.observers import Observers, ProgressObserver, RunState, StepRecord
from isinglass.training.prediction import predict
from isinglass.training.preparation import Packer, PreparedRun, PreparedSplit, label_order, prepare_run, prepare_split
from isinglass.training.scoring import BestEpoch, Scored, make_result, score

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A trained and scored run.

    Attributes:
        model: the trained model, its labels named as the task names them.
        steps: the training steps.
        scored: the splits that the result has scores of.
    """

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
    first_weights: str | None = None,
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
    trainer = Trainer(config, prepared, observers, checkpoints, interruption, group)
    trainer.begin()
    with trainer.saves_when_interrupted(), interruption.deferred():
        trainer.run_steps()
        scored = trainer.predict(prepared.scored)
    return trainer.finish(scored)


def evaluate(
    config: TrainConfig,
    model: Checkpoint,
    split_names: Sequence[str] | None = None,
    observers: Observers = (),
    *,
    data: Source | None = None,
) -> tuple[RunResult, list[Scored]]:
    """Score a finished model on labelled splits of its task. Labels are matched by name, through the model's `id2label`.

    Args:
        split_names: None: the dev sets.
        data: the task and its examples; None: what `config` names.

    Raises:
        ConfigError: there is no such split, or its labels are hidden.
        CheckpointError: the model's labels are not the task's.
    """
    check_installed(config.backend)
    data = data or open_data(config)
    model = replace(model, label_names=label_order(model, data.task))
    splits = [prepare_split(data, split, config, model) for split in _labelled_splits(data.task, split_names)]
    for split in splits:
        if split.labels is None:
            raise ConfigError(f"{split.examples.origin} has no labels to score by: use `isinglass predict`.")
    backend = create_backend(config, model, Objective.of(data.task))
    scored = _predict_splits(backend, Packer.of(config, model), splits, model.label_names, observers)
    notes = [*data.notes, *(note for split in splits for note in split.notes)]
    return make_result(config, data.task, backend, scored, splits, notes, TrainingState()), scored


def _predict_splits(
    backend: Backend,
    packer: Packer,
    splits: Sequence[PreparedSplit],
    order: tuple[str, ...] | None,
    observers: Observers,
    group: ProcessGroup = ProcessGroup(),
) -> list[Scored]:
    scored = []
    for split in splits:
        started = time.perf_counter()
        outputs = predict(backend, packer, split.tokens, split.name, observers, group)
        scored.append(Scored(split=split, outputs=outputs, label_order=order, seconds=time.perf_counter() - started))
    return scored


def _labelled_splits(task: Task, names: Sequence[str] | None) -> Sequence[Split]:
    splits = task.dev if names is None else [task.split(name) for name in names]
    for split in splits:
        if split.label_column is None:
            raise ConfigError(f"{task.title}'s {split.name} set hides its labels: use `isinglass predict`.")
    if not splits:
        raise ConfigError(f"{task.title} has no labelled set: use `isinglass predict`.")
    return splits


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
        if self.group.rank > 0:
            self.observers = ()
        self._vocabulary = used_vocabulary(config, model.blueprint, [split.tokens for split in self.prepared.splits])
        trimmed = trim_vocabulary(model, self._vocabulary)
        self._backend = create_backend(config, trimmed, self.prepared.objective, self.group)
        self._packer = Packer.of(config, model, self._vocabulary)
        self._loop = Loop(config, self._backend, self._packer, self.prepared.train, self.group, self.observers)
        self._best = BestEpoch(self.prepared.metric, config.early_stopping)
        self._identity: dict[str, Any] = {}
        self._newest_checkpoint: Path | None = None
        self._saved_at = 0.0  # when the newest checkpoint was written

    def begin(self) -> None:
        """Resume from the newest checkpoint, if that is requested and there is one, and tell the observers."""
        group, model = self.group, self.prepared.model
        if self.checkpoints is not None or group.size > 1:
            self._identity = run_identity(self.config, self.prepared, self._vocabulary)
        if group.size > 1:
            weights = arrays_digest(model.weights[name] for name in sorted(model.weights))
            _check_alike(group, [self._identity, weights], "settings, data or model: start all alike, on the same files")
        if self.checkpoints is not None:
            state = self.checkpoints.load(self._identity)
            step = None if state is None else state.step
            _check_alike(group, step, "checkpoints: --output-dir must lie on storage that all hosts share")
            if state is not None:
                self._loop.restore(state)
                self._best.restore(state.epoch_scores, state.arrays)
        for observer in self.observers:
            observer.on_train_begin(self.prepared, self._state())

    def run_steps(self) -> None:
        """Do the remaining steps, with evaluations and checkpoints between them, and load the best epoch's weights."""
        self._saved_at = time.monotonic()
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
        observers = self.observers
        if self.group.size == 1:  # several processes stop together, between two steps
            observers = (*observers, ProgressObserver(lambda _: self.interruption.check()))
        order = self.prepared.model.label_names
        return _predict_splits(self._backend, self._packer, splits, order, observers, self.group)

    def finish(self, scored: list[Scored]) -> TrainedRun:
        """Return the run, its result included."""
        loop, prepared, task = self._loop, self.prepared, self.prepared.task
        state = replace(loop.state, epoch_scores=self._best.scores)
        notes = [*prepared.notes, *self._best.notes(self.config.epochs), *loop.closing_notes()]
        result = make_result(self.config, task, self._backend, scored, prepared.splits, notes, state, self.group)
        result = replace(result, model_commit=prepared.model.commit)
        for observer in self.observers:
            observer.on_train_end(result)
        model = replace(
            prepared.model,
            weights=restore_vocabulary(self._backend.weights(), prepared.model, self._vocabulary),
            config_json={**prepared.model.config_json, "problem_type": task.kind.problem_type},
        )
        return TrainedRun(task=task, result=result, model=model, steps=loop.records(), scored=scored)

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
        values = [score(self.prepared.task, scored)[metric].value for scored in self.predict(self.prepared.dev)]
        self._best.add(_mean(values), self._backend.weights())
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
        state = replace(state, epoch_scores=self._best.scores, arrays={**state.arrays, **self._best.arrays()})
        self._newest_checkpoint = checkpoints.save(state, self._identity)
        for observer in self.observers:
            observer.on_save(self._state())


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of scores; None if one of them is not defined."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None


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
