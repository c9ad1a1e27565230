"""Training, read from top to bottom: prepare, run the steps, evaluate."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, check_installed, create_backend, parts_of_step
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.examples import Source
from isinglass.errors import ConfigError, DeviceMemoryError, StorageError, TrainingDivergedError
from isinglass.metrics import Metric
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.models.vocabulary import restore_vocabulary, trim_vocabulary, used_vocabulary
from isinglass.packing import PackedBatch, num_steps, plan_epoch, shard_step
from isinglass.results import RunResult
from isinglass.tasks import Task
from isinglass.training.checkpoints import Checkpoints, TrainingState, arrays_digest, run_identity
from isinglass.training.evaluation import Scored, make_result, predict_splits, score
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import REPORT_SECONDS, Observers, Progress, ProgressObserver, RunState, StepRecord
from isinglass.training.preparation import Index, Packer, PreparedRun, PreparedSplit, prepare_run

FP16_OVERFLOWS: Final = 20  # losses in a row: the loss scale begins at 2^16 and is halved at each
SMOOTHED_LOSSES: Final = 20  # finite ones, whose mean is reported
_PREFIX: Final = "best."  # of the names of the best epoch's weights in a checkpoint

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
    trainer = Trainer(config, prepared, observers if group.rank == 0 else (), checkpoints, interruption, group)
    trainer.begin()
    with trainer.saves_when_interrupted(), interruption.deferred():
        trainer.run_steps()
        scored = trainer.predict(prepared.scored)
    return trainer.finish(scored)


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
        self._loop = Loop(config, self._backend, self._packer, self.prepared.train, self.group, self.observers)
        self._best = BestEpoch(self.prepared.metric, config.early_stopping)
        self._identity: dict[str, Any] = {}
        self._newest_checkpoint: Path | None = None
        self._saved_at = time.monotonic()  # when the newest checkpoint was written

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
            _check_alike(group, state and state.step, "checkpoints: --output-dir must lie on storage that all hosts share")
            if state is not None:
                self._loop.restore(state)
                self._best.restore(state.epoch_scores, state.arrays)
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
        observers = self.observers
        if self.group.size == 1:  # several processes stop together, between two steps
            observers = (*observers, ProgressObserver(lambda _: self.interruption.check()))
        return predict_splits(self._backend, self._packer, splits, observers, self.group)

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
        state = replace(state, epoch_scores=self._best.scores, arrays={**state.arrays, **self._best.arrays()})
        self._newest_checkpoint = checkpoints.save(state, self._identity)
        for observer in self.observers:
            observer.on_save(self._state())


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
    """

    def __init__(self, metric: Metric, patience: int | None = None) -> None:
        self.metric = metric
        self.scores: list[float | None] = []
        self.weights: Weights = {}
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

    def restore(self, scores: Sequence[float | None], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the scores and weights of a checkpoint."""
        self.scores = [*scores]
        self.weights = {name.removeprefix(_PREFIX): a for name, a in arrays.items() if name.startswith(_PREFIX)}

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


@dataclass(eq=False)
class Loop:
    """The training steps of a run.

    Attributes:
        state: what is done so far. Its newest losses and seconds are on the device, its arrays in `snapshot` only.
    """

    config: TrainConfig
    backend: Backend
    packer: Packer
    split: PreparedSplit
    group: ProcessGroup = ProcessGroup()
    observers: Observers = ()

    def __post_init__(self) -> None:
        self.steps_per_epoch = num_steps(len(self.split.tokens), self.config.batch_size)
        self.total_steps = self.steps_per_epoch * self.config.epochs
        self.state = TrainingState()
        self.clock = EpochClock(self.backend.synchronize, self.state.epoch_seconds)
        self._labels = self.split.labels_of_rows()
        self._lengths = self.split.tokens.lengths
        self._imbalances: list[float] = []  # of each step of this process: tokens of the largest shard over the mean
        self._began = self._reported = 0.0  # readings of the clock
        self._first_tokens = 0
        self._reported_steps = 0

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether the last step of an epoch has just been done."""
        return self.state.step % self.steps_per_epoch == 0

    def run(self) -> Iterator[None]:
        """Do the remaining steps. Yield after each: outside of the clock after the last step of an epoch."""
        self._began = self._reported = time.perf_counter()
        self._first_tokens = self.state.tokens
        for epoch in range(self.state.step // self.steps_per_epoch, self.config.epochs):
            done = self.state.step - epoch * self.steps_per_epoch
            with self.clock.running(epoch):
                for index in self._plan(epoch)[done:]:
                    self._train_on(index)
                    if self.state.step == self.total_steps or time.perf_counter() - self._reported >= REPORT_SECONDS:
                        self.report()
                    if not self.is_at_epoch_end:
                        yield
            yield

    def report(self) -> None:
        """Read the losses of all steps from the device, and tell the observers about the steps since the last report."""
        self._take_losses()
        if self._reported_steps == self.state.step:
            return
        self._reported = time.perf_counter()
        recent = [loss for loss in self.state.losses[-SMOOTHED_LOSSES:] if math.isfinite(loss)]
        progress = Progress(
            stage="train",
            epoch=(self.state.step - 1) // self.steps_per_epoch,
            epochs=self.config.epochs,
            done=self.state.step,
            total=self.total_steps,
            loss=float(np.mean(recent)) if recent else float("nan"),
            tokens_per_second=(self.state.tokens - self._first_tokens) / (self._reported - self._began),
        )
        steps = self.records(self._reported_steps)
        self._reported_steps = self.state.step
        for observer in self.observers:
            observer.on_step_end(progress, steps)

    def records(self, first: int = 0) -> list[StepRecord]:
        """Return the steps from `first` on whose loss is known."""
        return [
            StepRecord(epoch=step // self.steps_per_epoch, step=step, learning_rate=self._learning_rate(step), loss=loss)
            for step, loss in enumerate(self.state.losses[first:], first)
        ]

    def snapshot(self) -> TrainingState:
        """Return what the remaining steps depend on, and what the result tells about those done."""
        self.clock.read()
        self._take_losses()
        return replace(
            self.state,
            compile_seconds=self.backend.compile_seconds,
            processes=self.group.size,
            device=self.backend.device,
            arrays=self.backend.state(),
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a state that another process left."""
        self.backend.restore(state.arrays)
        self.backend.compile_seconds += state.compile_seconds
        self.state = replace(state, resumed_at=[*state.resumed_at, state.step], arrays={})
        self.clock = EpochClock(self.backend.synchronize, self.state.epoch_seconds)
        self._reported_steps = state.step
        if state.parts > 1:
            self.backend.parallel_batches = 1
        if state.processes != self.group.size:
            self.state.notes.append(
                f"Processes that share a step: {state.processes} up to step {state.step}, {self.group.size} from there on. "
                f"Each has dropout masks of its own."
            )
        if state.device not in ("", self.backend.device):
            self.state.notes.append(
                f"On {state.device} up to step {state.step}, on {self.backend.device} from there on: not bit for bit a run "
                f"on either."
            )

    def closing_notes(self) -> list[str]:
        """Return all notes, those on shared steps and on resuming included."""
        notes = list(self.state.notes)
        if self._imbalances:
            excess = 100 * (sum(self._imbalances) / len(self._imbalances) - 1)
            notes.append(
                f"{self.group.size} processes shared each step, whose tokens were dealt out evenly: the fullest shard has "
                f"{excess:.2f} % more than the mean, on average over the steps."
            )
        if self.state.resumed_at:
            steps = ", ".join(map(str, self.state.resumed_at))
            notes.append(f"Resumed after step {steps}: seconds are summed over all parts, and each part compiled again.")
        return notes

    def _plan(self, epoch: int) -> Sequence[Index]:
        return plan_epoch(len(self.split.tokens), self.config.batch_size, seed=self.config.seed, epoch=epoch)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.config, step, self.total_steps)

    def _train_on(self, index: Index) -> None:
        """Do one step, in smaller and smaller parts until it fits into memory."""
        state = self.state
        rate = self._learning_rate(state.step)
        shard, share = self._shard(index)
        while True:
            try:
                self.backend.train_step(self._pack(shard), step=state.step, learning_rate=rate, share=share)
                break
            except DeviceMemoryError as error:
                if state.parts >= len(index) or self.group.size > 1:  # the other processes wait for the complete shard
                    raise
                self._cut_steps(error)
        state.step += 1
        state.tokens += int(self._lengths[index].sum())

    def _pack(self, shard: Index) -> list[PackedBatch]:
        """Return a shard of a step as micro-batches: small enough for the memory, and enough to run in parallel."""
        parts = max(self.state.parts, parts_of_step(int(self._lengths[shard].sum()), self.backend.parallel_batches))
        return self.packer.pack_parts(self.split.tokens, shard, self._labels, parts)

    def _cut_steps(self, error: DeviceMemoryError) -> None:
        """Cut all further steps into twice as many parts, because memory is short."""
        self.state.parts *= 2
        self.backend.parallel_batches = 1
        note = f"Step {self.state.step}: {error} Steps are cut into {self.state.parts} micro-batches from here on."
        logger.warning(note)
        self.state.notes.append(note)

    def _shard(self, index: Index) -> tuple[Index, float]:
        """Return this process's examples of the step, and their share of it.

        Where there are too few examples for all processes, it is one example with a share of 0.
        """
        group, lengths = self.group, self._lengths[index]
        if group.size == 1:
            return index, 1.0
        shards = shard_step(lengths, group.size)
        tokens = [int(lengths[shard].sum()) for shard in shards]
        self._imbalances.append(max(tokens) / (sum(tokens) / group.size))
        own = index[shards[group.rank]]
        if len(own) == 0:
            return index[:1], 0.0
        return own, len(own) / len(index)

    def _take_losses(self) -> None:
        """Read the losses of the newest steps from the device.

        Raises:
            TrainingDivergedError: a loss is NaN or infinite; in fp16, too many in a row for the loss scale to be the reason.
        """
        tolerated = FP16_OVERFLOWS if self.backend.precision == "fp16" else 1
        for loss in self.backend.take_losses():
            self.state.losses.append(loss)
            if not any(map(math.isfinite, self.state.losses[-tolerated:])):
                step = len(self.state.losses) - 1
                index = self._plan(step // self.steps_per_epoch)[step % self.steps_per_epoch]
                raise TrainingDivergedError(
                    f"The loss is {loss} at step {step}, at a learning rate of {self._learning_rate(step):.3g}, on "
                    f"{self.split.where(index)}: lower the learning rate, or use --precision fp32."
                )


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of step `step`, counted from 0 over all epochs.

    It rises linearly from 0 over the first `warmup_ratio` of all steps (rounded up). Then it falls linearly so that it would
    reach 0 at step `total_steps`, or it stays constant.

    Example: 4 steps at 2e-5 without warm-up: 2e-5, 1.5e-5, 1e-5, 5e-6.
    """
    warmup = -int(-config.warmup_ratio * total_steps // 1)
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (total_steps - step) / (total_steps - warmup)


class EpochClock:
    """A stopwatch of epochs.

    Args:
        synchronize: waits until the device has finished all its work.
        seconds: of each epoch so far. Those of new epochs are added to the list; what an unfinished one took counts.
    """

    def __init__(self, synchronize: Callable[[], None], seconds: list[float]) -> None:
        self._synchronize = synchronize
        self._seconds = seconds
        self._read_at: float | None = None  # while an epoch runs

    @contextmanager
    def running(self, epoch: int) -> Iterator[None]:
        """Count the time of the block for an epoch."""
        if epoch == len(self._seconds):
            self._seconds.append(0.0)
        self._synchronize()
        self._read_at = time.perf_counter()
        try:
            yield
        finally:
            self.read()
            self._read_at = None

    def read(self) -> None:
        """Add the time since the last reading to the running epoch, if there is one."""
        if self._read_at is None:
            return
        self._synchronize()
        now = time.perf_counter()
        self._seconds[-1] += now - self._read_at
        self._read_at = now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        self.read()
        try:
            yield
        finally:
            if self._read_at is not None:
                self._read_at = time.perf_counter()
