"""The training steps, one after another, and where they stand between any two."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, parts_of_step
from isinglass.config import TrainConfig
from isinglass.errors import DeviceMemoryError, TrainingDivergedError
from isinglass.packing import (
    num_steps,
    plan_epoch,
    shard_step,
)
from isinglass.training.checkpoints import TrainingState
from isinglass.training.packer import Packer
from isinglass.training.preparation import PreparedSplit
from isinglass.training.progress import PROGRESS_SECONDS, Progress, StepRecord
from isinglass.training.schedule import learning_rate
from isinglass.training.timing import EpochClock

FP16_OVERFLOWS: Final = 20  # losses in a row: the loss scale begins at 2^16 and is halved at each
MAX_NAMED: Final = 64  # examples of a batch that a message names

logger = logging.getLogger(__name__)


class Loop:
    """The training steps, and where they stand."""

    def __init__(
        self,
        config: TrainConfig,
        backend: Backend,
        packer: Packer,
        split: PreparedSplit,
        on_progress: Callable[[Progress], None],
        group: ProcessGroup,
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
        self._tokens, self._lengths = split.tokens, split.tokens.lengths
        labels, source = split.labels, split.tokens.source
        self._labels = labels if labels is None or source is None else labels[source]  # a window has its text's
        self._examples, self._source = split.examples, source
        self._on_progress = on_progress
        self._group = group
        self._losses: list[float] = []
        self._parts = 1  # more where memory is short: micro-batches of a step, one after another
        self._fullest: list[float] = []  # of each step in this process's time, tokens of the fullest shard over the mean
        self._resumed_at: list[int] = []

    def run(self) -> Iterator[None]:
        """Do the steps that are left, and yield between any two, and after the last."""
        first_tokens, started = self.tokens, time.perf_counter()
        reported = started
        for epoch in range(self.step // self.steps_per_epoch, self._config.epochs):
            with self.clock:
                for index in self._plan(epoch)[self.step - epoch * self.steps_per_epoch :]:
                    self._train_on(index)
                    if time.perf_counter() - reported >= PROGRESS_SECONDS or self.step == self.total_steps:
                        known = len(self._losses)
                        self._take_losses()
                        reported = time.perf_counter()
                        recent = [loss for loss in self._losses[-20:] if math.isfinite(loss)]
                        self._on_progress(
                            Progress(
                                stage="train",
                                epoch=epoch,
                                epochs=self._config.epochs,
                                done=self.step,
                                total=self.total_steps,
                                loss=float(np.mean(recent)) if recent else float("nan"),
                                tokens_per_second=(self.tokens - first_tokens) / (reported - started),
                                steps=tuple(self.records(known)),
                            )
                        )
                    if self.step < (epoch + 1) * self.steps_per_epoch:
                        yield
            yield

    def records(self, first: int = 0) -> list[StepRecord]:
        """Of the steps from `first` on whose loss is known."""
        return [
            StepRecord(
                epoch=step // self.steps_per_epoch,
                step=step,
                learning_rate=learning_rate(self._config, step, self.total_steps),
                loss=self._losses[step],
            )
            for step in range(first, len(self._losses))
        ]

    def state(self) -> TrainingState:
        """All that the steps to come depend on, and what the result tells of those done."""
        self._take_losses()
        return TrainingState(
            step=self.step,
            losses=self._losses,
            tokens=self.tokens,
            epoch_seconds=self.clock.read(),
            compile_seconds=self._backend.compile_seconds,
            parts=self._parts,
            notes=self.notes,
            resumed_at=self._resumed_at,
            processes=self._group.size,
            device=self._backend.device,
            arrays=self._backend.state(),
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from there."""
        self._backend.restore(state.arrays)
        self._backend.compile_seconds += state.compile_seconds
        whole = state.step // self.steps_per_epoch
        self.step, self.tokens, self.notes = state.step, state.tokens, state.notes
        self.clock = EpochClock(
            self._backend.synchronize, state.epoch_seconds[:whole], carried=sum(state.epoch_seconds[whole:])
        )
        self._losses, self._parts = state.losses, state.parts
        if self._parts > 1:
            self._backend.streams = 1
        self._resumed_at = [*state.resumed_at, state.step]
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

    def sharing(self) -> list[str]:
        """A note, if processes shared the steps."""
        if not self._fullest:
            return []
        more = 100 * (sum(self._fullest) / len(self._fullest) - 1)
        return [
            f"{self._group.size} processes shared each step, whose tokens were dealt out evenly: the fullest shard has "
            f"{more:.2f} % more than the mean, on average over the steps."
        ]

    def resumptions(self) -> list[str]:
        """A note, if the run was taken up again."""
        if not self._resumed_at:
            return []
        steps = ", ".join(map(str, self._resumed_at))
        return [f"Taken up again after step {steps}: seconds are those of the parts together, compiling in each of them."]

    def _plan(self, epoch: int) -> Sequence[Int64[np.ndarray, " S"]]:
        return plan_epoch(len(self._tokens), self._config.batch_size, seed=self._config.seed, epoch=epoch)

    def _train_on(self, index: Int64[np.ndarray, " S"]) -> None:
        """One step, in smaller and smaller parts until it fits into memory."""
        rate = learning_rate(self._config, self.step, self.total_steps)
        mine, share = self._shard(index)
        while True:
            try:
                parts = max(self._parts, parts_of_step(int(self._lengths[mine].sum()), self._backend.streams))
                batches = self._packer.pack_parts(self._tokens, mine, self._labels, parts)
                self._backend.train_step(batches, step=self.step, learning_rate=rate, share=share)
                break
            except DeviceMemoryError as error:
                if self._parts >= len(index) or self._group.size > 1:  # the others wait for the whole shard
                    raise
                self._parts *= 2
                self._backend.streams = 1
                note = f"Step {self.step}: {error} Steps are cut into {self._parts} micro-batches from here on."
                logger.warning(note)
                self.notes.append(note)
        self.step += 1
        self.tokens += int(self._lengths[index].sum())

    def _shard(self, index: Int64[np.ndarray, " S"]) -> tuple[Int64[np.ndarray, " s"], float]:
        """This process's examples of the step, and their share of it; one of share 0 where there are too few for all."""
        group, lengths = self._group, self._lengths[index]
        if group.size == 1:
            return index, 1.0
        shards = shard_step(lengths, group.size)
        tokens = [int(lengths[shard].sum()) for shard in shards]
        self._fullest.append(max(tokens) / (sum(tokens) / group.size))
        mine = index[shards[group.rank]]
        return (mine, len(mine) / len(index)) if len(mine) else (index[:1], 0.0)

    def _take_losses(self) -> None:
        """Read the losses off the device.

        Raises:
            TrainingDivergedError: one is NaN or infinite; in fp16, too many in a row for the loss scale to be the reason.
        """
        for loss in self._backend.take_losses():
            self._losses.append(loss)
            row = FP16_OVERFLOWS if self._backend.precision == "fp16" else 1
            if not any(math.isfinite(one) for one in self._losses[-row:]):
                step = len(self._losses) - 1
                index = self._plan(step // self.steps_per_epoch)[step % self.steps_per_epoch]
                examples = self._examples
                index = index if self._source is None else np.unique(self._source[index])
                named = sorted(index)[:MAX_NAMED]
                if examples.origins:  # several files
                    where = "; ".join(map(examples.where, named))
                else:
                    numbers = ", ".join(str(examples.line_numbers[i]) for i in named)
                    where = f"{examples.origin}, {examples.unit}s {numbers}"
                more = f" and {len(index) - MAX_NAMED} more" if len(index) > MAX_NAMED else ""
                rate = learning_rate(self._config, step, self.total_steps)
                raise TrainingDivergedError(
                    f"The loss is {loss} at step {step}, at a learning rate of {rate:.3g}, on {where}{more}: lower the "
                    f"learning rate, or use --precision fp32."
                )
