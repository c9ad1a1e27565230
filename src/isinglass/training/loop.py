"""The training steps of a run, and its state between any two of them."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.backends.process_group import ProcessGroup, SingleProcess
from isinglass.backends.protocol import Backend, parts_of_step
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError, TrainingDivergedError
from isinglass.packing import PackedBatch, num_steps, plan_epoch, shard_step
from isinglass.training.checkpoints import TrainingState
from isinglass.training.observers import REPORT_SECONDS, Observers, Progress, StepRecord
from isinglass.training.preparation import Packer, PreparedSplit

FP16_OVERFLOWS: Final = 20  # losses in a row: the loss scale begins at 2^16 and is halved at each
SMOOTHED_LOSSES: Final = 20  # finite ones, whose mean is reported

Index = Int64[np.ndarray, " S"]
"""The examples of a step: their numbers in the tokenized split."""

logger = logging.getLogger(__name__)


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
    """A stopwatch: `with clock:` around each epoch, and `clock.seconds` has one figure for each.

    Args:
        synchronize: waits until the device has finished all its work.
        seconds: of the epochs that an earlier process finished.
        carried: of the epoch that it left unfinished.
    """

    def __init__(self, synchronize: Callable[[], None], seconds: Sequence[float] = (), *, carried: float = 0.0) -> None:
        self.seconds = list(seconds)
        self._carried = carried
        self._started: float | None = None
        self._synchronize = synchronize

    def __enter__(self) -> None:
        self._synchronize()
        self._started = time.perf_counter() - self._carried
        self._carried = 0.0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        now = self.read()
        self._started = None
        if kind is None:
            self.seconds = now
        else:
            self._carried = now[-1]

    def read(self) -> list[float]:
        """Return the seconds of each epoch, those of an unfinished one included."""
        if self._started is None:
            return [*self.seconds, self._carried] if self._carried else list(self.seconds)
        self._synchronize()
        return [*self.seconds, time.perf_counter() - self._started]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out."""
        self._synchronize()
        paused = time.perf_counter()
        try:
            yield
        finally:
            if self._started is not None:
                self._started += time.perf_counter() - paused


class Loop:
    """The training steps of a run.

    Attributes:
        step: number of steps done.
        tokens: number of real tokens trained on.
        clock: seconds of each epoch.
        notes: what a reader of the result should know about the steps.
        parts: number of micro-batches of a step, one after another; more than 1 where memory is short.
        resumed_at: the steps after which the run was resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        backend: Backend,
        packer: Packer,
        split: PreparedSplit,
        group: ProcessGroup | None = None,
        observers: Observers = (),
    ) -> None:
        self.steps_per_epoch = num_steps(len(split.tokens), config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.tokens = 0
        self.clock = EpochClock(backend.synchronize)
        self.notes: list[str] = []
        self._config = config
        self._backend = backend
        self._packer = packer
        self._split = split
        self._labels = split.labels_of_rows()
        self._lengths = split.tokens.lengths
        self._group = group or SingleProcess()
        self._observers = observers
        self._losses: list[float] = []
        self.parts = 1
        self._imbalances: list[float] = []  # of each step of this process: tokens of the largest shard over the mean
        self.resumed_at: list[int] = []
        self._began = self._reported = 0.0  # readings of the clock
        self._first_tokens = 0
        self._reported_steps = 0

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether the last step of an epoch has just been done."""
        return self.step % self.steps_per_epoch == 0

    def run(self) -> Iterator[None]:
        """Do the remaining steps. Yield after each: outside of the clock after the last step of an epoch."""
        self._began = self._reported = time.perf_counter()
        self._first_tokens = self.tokens
        for epoch in range(self.step // self.steps_per_epoch, self._config.epochs):
            done = self.step - epoch * self.steps_per_epoch
            with self.clock:
                for index in self._plan(epoch)[done:]:
                    self._train_on(index)
                    if self.step == self.total_steps or time.perf_counter() - self._reported >= REPORT_SECONDS:
                        self.report()
                    if not self.is_at_epoch_end:
                        yield
            yield

    def report(self) -> None:
        """Read the losses of all steps from the device, and tell the observers about the steps since the last report."""
        self._take_losses()
        if self._reported_steps == self.step:
            return
        self._reported = time.perf_counter()
        recent = [loss for loss in self._losses[-SMOOTHED_LOSSES:] if math.isfinite(loss)]
        progress = Progress(
            stage="train",
            epoch=(self.step - 1) // self.steps_per_epoch,
            epochs=self._config.epochs,
            done=self.step,
            total=self.total_steps,
            loss=float(np.mean(recent)) if recent else float("nan"),
            tokens_per_second=(self.tokens - self._first_tokens) / (self._reported - self._began),
        )
        steps = self.records(self._reported_steps)
        self._reported_steps = self.step
        for observer in self._observers:
            observer.on_step_end(progress, steps)

    def records(self, first: int = 0) -> list[StepRecord]:
        """Return the steps from `first` on whose loss is known."""
        return [
            StepRecord(
                epoch=step // self.steps_per_epoch,
                step=step,
                learning_rate=self._learning_rate(step),
                loss=self._losses[step],
            )
            for step in range(first, len(self._losses))
        ]

    def state(self) -> TrainingState:
        """Return what the remaining steps depend on, and what the result tells about those done."""
        self._take_losses()
        return TrainingState(
            step=self.step,
            losses=self._losses,
            tokens=self.tokens,
            epoch_seconds=self.clock.read(),
            compile_seconds=self._backend.compile_seconds,
            parts=self.parts,
            notes=self.notes,
            resumed_at=self.resumed_at,
            processes=self._group.size,
            device=self._backend.device,
            arrays=self._backend.state(),
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a state that another process left."""
        self._backend.restore(state.arrays)
        self._backend.compile_seconds += state.compile_seconds
        finished_epochs = state.step // self.steps_per_epoch
        self.step, self.tokens, self.notes = state.step, state.tokens, state.notes
        self.clock = EpochClock(
            self._backend.synchronize,
            state.epoch_seconds[:finished_epochs],
            carried=sum(state.epoch_seconds[finished_epochs:]),
        )
        self._losses, self.parts = state.losses, state.parts
        self._reported_steps = state.step
        if self.parts > 1:
            self._backend.parallel_batches = 1
        self.resumed_at = [*state.resumed_at, state.step]
        if state.processes != self._group.size:
            self.notes.append(
                f"Processes that share a step: {state.processes} up to step {state.step}, {self._group.size} from there on. "
                f"Each has dropout masks of its own."
            )
        if state.device not in ("", self._backend.device):
            self.notes.append(
                f"On {state.device} up to step {state.step}, on {self._backend.device} from there on: not bit for bit a run "
                f"on either."
            )

    def closing_notes(self) -> list[str]:
        """Return all notes, those on shared steps and on resuming included."""
        notes = list(self.notes)
        if self._imbalances:
            excess = 100 * (sum(self._imbalances) / len(self._imbalances) - 1)
            notes.append(
                f"{self._group.size} processes shared each step, whose tokens were dealt out evenly: the fullest shard has "
                f"{excess:.2f} % more than the mean, on average over the steps."
            )
        if self.resumed_at:
            steps = ", ".join(map(str, self.resumed_at))
            notes.append(f"Resumed after step {steps}: seconds are summed over all parts, and each part compiled again.")
        return notes

    def _plan(self, epoch: int) -> Sequence[Index]:
        return plan_epoch(len(self._split.tokens), self._config.batch_size, seed=self._config.seed, epoch=epoch)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self._config, step, self.total_steps)

    def _train_on(self, index: Index) -> None:
        """Do one step, in smaller and smaller parts until it fits into memory."""
        shard, share = self._shard(index)
        while True:
            try:
                self._backend.train_step(
                    self._pack(shard), step=self.step, learning_rate=self._learning_rate(self.step), share=share
                )
                break
            except DeviceMemoryError as error:
                if self.parts >= len(index) or self._group.size > 1:  # the other processes wait for the complete shard
                    raise
                self._cut_steps(error)
        self.step += 1
        self.tokens += int(self._lengths[index].sum())

    def _pack(self, shard: Index) -> list[PackedBatch]:
        """Return a shard of a step as micro-batches: small enough for the memory, and enough to run in parallel."""
        parts = max(self.parts, parts_of_step(int(self._lengths[shard].sum()), self._backend.parallel_batches))
        return self._packer.pack_parts(self._split.tokens, shard, self._labels, parts)

    def _cut_steps(self, error: DeviceMemoryError) -> None:
        """Cut all further steps into twice as many parts, because memory is short."""
        self.parts *= 2
        self._backend.parallel_batches = 1
        note = f"Step {self.step}: {error} Steps are cut into {self.parts} micro-batches from here on."
        logger.warning(note)
        self.notes.append(note)

    def _shard(self, index: Index) -> tuple[Index, float]:
        """Return this process's examples of the step, and their share of it.

        Where there are too few examples for all processes, it is one example with a share of 0.
        """
        group, lengths = self._group, self._lengths[index]
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
        tolerated = FP16_OVERFLOWS if self._backend.precision == "fp16" else 1
        for loss in self._backend.take_losses():
            self._losses.append(loss)
            if not any(map(math.isfinite, self._losses[-tolerated:])):
                raise self._diverged(len(self._losses) - 1)

    def _diverged(self, step: int) -> TrainingDivergedError:
        """Return the error that names the loss, learning rate and examples of a step."""
        index = self._plan(step // self.steps_per_epoch)[step % self.steps_per_epoch]
        return TrainingDivergedError(
            f"The loss is {self._losses[step]} at step {step}, at a learning rate of {self._learning_rate(step):.3g}, on "
            f"{self._split.where(index)}: lower the learning rate, or use --precision fp32."
        )
