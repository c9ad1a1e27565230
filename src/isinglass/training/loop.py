"""The training steps of a run: their batches, learning rates, losses and seconds."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, parts_of_step
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError, TrainingDivergedError
from isinglass.packing import PackedBatch, num_steps, plan_epoch, shard_step
from isinglass.training.checkpoints import TrainingState
from isinglass.training.observers import REPORT_SECONDS, Observers, Progress, StepRecord
from isinglass.training.preparation import Index, Packer, PreparedSplit

FP16_OVERFLOWS: Final = 20  # losses in a row: the loss scale begins at 2^16 and is halved at each
SECONDS_TO_ESTIMATE: Final = 2.0  # of training, before its end is foretold
SMOOTHED_LOSSES: Final = 20  # finite ones, whose mean is reported

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Loop:
    """The training steps of a run.

    Attributes:
        state: what is done so far; with arrays, it was left by another process, and is continued. The newest losses and
            seconds, and the arrays, are on the device; `snapshot` has them.
    """

    config: TrainConfig
    backend: Backend
    packer: Packer
    split: PreparedSplit
    group: ProcessGroup = ProcessGroup()
    observers: Observers = ()
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        self.steps_per_epoch = num_steps(len(self.split.tokens), self.config.batch_size)
        self.total_steps = self.steps_per_epoch * self.config.epochs
        self.clock = EpochClock(self.backend.synchronize, self.state.epoch_seconds)
        self._labels = self.split.labels_of_rows()
        self._lengths = self.split.tokens.lengths
        self._imbalances: list[float] = []  # of each step of this process: tokens of the largest shard over the mean
        self._began = self._reported = 0.0  # readings of the clock
        self._first_tokens = self._first_step = 0
        self._reported_steps = self.state.step
        if self.state.arrays:
            self._resume()
        self.state.processes, self.state.device = self.group.size, self.backend.device

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether the last step of an epoch has just been done."""
        return self.state.step % self.steps_per_epoch == 0

    def run(self) -> Iterator[None]:
        """Do the remaining steps. Yield after each: outside of the clock after the last step of an epoch."""
        self._began = self._reported = time.perf_counter()
        self._first_tokens, self._first_step = self.state.tokens, self.state.step
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
            seconds_left=self._seconds_left(),
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
            arrays=self.backend.state(),
        )

    def _resume(self) -> None:
        """Continue from the state that another process left."""
        state = self.state
        self.backend.restore(state.arrays)
        self.backend.compile_seconds += state.compile_seconds
        state.resumed_at.append(state.step)
        if state.parts > 1:
            self.backend.parallel_batches = 1
        if state.processes != self.group.size:
            state.notes.append(
                f"Processes that share a step: {state.processes} up to step {state.step}, {self.group.size} from there on. "
                f"Each has dropout masks of its own."
            )
        if state.device not in ("", self.backend.device):
            state.notes.append(
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

    def _seconds_left(self) -> float | None:
        """Return the time that the remaining steps will take, at the speed so far."""
        seconds = self._reported - self._began
        if seconds < SECONDS_TO_ESTIMATE:
            return None
        return seconds / (self.state.step - self._first_step) * (self.total_steps - self.state.step)

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
