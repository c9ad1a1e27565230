"""Time a few training steps, and count the tokens of tasks: what a worker does for an estimate."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.backends.objective import Objective
from isinglass.backends.protocol import Backend
from isinglass.backends.registry import create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.executors.messages import Calibration, CalibrationRequest, RunInputs
from isinglass.executors.worker import Send
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.source import load_model
from isinglass.packing import plan_epoch
from isinglass.tasks import Task
from isinglass.training.labels import with_head_for
from isinglass.training.packer import Packer
from isinglass.training.preparation import PreparedSplit, prepare_split

MOST_SECONDS: Final = 5.0
MOST_STEPS: Final = 20


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """A task with all its labelled splits tokenized. `config` says how."""

    config: TrainConfig
    task: Task
    model: Checkpoint
    train: PreparedSplit
    dev: list[PreparedSplit]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Real tokens per second in training, and the time of tracing and compiling."""

    tokens_per_second: float
    compile_seconds: float


def calibrate(request: CalibrationRequest, directory: Path, send: Send) -> Calibration:  # noqa: ARG001  # it writes nothing
    """Time a few training steps of the first run, and count the tokens of all runs' tasks."""
    train_tokens, dev_tokens = {}, {}
    for inputs in reversed(request.runs):  # the first run comes last, and is the one that stays in memory
        prepared = prepare_task(inputs)
        train_tokens[prepared.task.name] = _count_tokens([prepared.train])
        dev_tokens[prepared.task.name] = _count_tokens(prepared.dev)
    speed = time_steps(prepared)
    return Calibration(
        tokens_per_second=speed.tokens_per_second,
        compile_seconds=speed.compile_seconds,
        train_tokens=train_tokens,
        dev_tokens=dev_tokens,
    )


def prepare_task(inputs: RunInputs) -> PreparedTask:
    """Read and tokenize the labelled splits of a run's task, and load its model."""
    config = inputs.resolve()
    data = open_data(config)
    task = data.task
    assert task.train is not None
    model, _ = with_head_for(load_model(inputs.first_weights or config.model), task)
    order = model.label_names
    labelled = [split for split in task.splits if split.label_column is not None and split is not task.train]
    return PreparedTask(
        config=config,
        task=task,
        model=model,
        train=prepare_split(data, task.train, config, model, order, most=config.max_train_examples),
        dev=[prepare_split(data, split, config, model, order) for split in labelled],
    )


def _count_tokens(splits: list[PreparedSplit]) -> int:
    return sum(int(split.tokens.lengths.sum()) for split in splits)


def time_steps(prepared: PreparedTask) -> Speed:
    """Train at most MOST_STEPS steps, or MOST_SECONDS. A step that warms up or compiles is not counted."""
    config, train = prepared.config, prepared.train
    backend = create_backend(config, prepared.model, Objective.of(prepared.task))
    packer = Packer.of(config, prepared.model)
    seconds, tokens = 0.0, 0
    for step, index in enumerate(itertools.islice(_steps(config, len(train.tokens)), MOST_STEPS)):
        compiled_before = backend.compile_seconds
        started = time.perf_counter()
        tokens_of_step = _train_step(backend, packer, train, index, step=step, learning_rate=config.learning_rate)
        if step > 0 and backend.compile_seconds == compiled_before:
            seconds += time.perf_counter() - started
            tokens += tokens_of_step
        if seconds > MOST_SECONDS:
            break
    return Speed(tokens_per_second=tokens / seconds, compile_seconds=backend.compile_seconds)


def _steps(config: TrainConfig, examples: int) -> Iterator[Int64[np.ndarray, " S"]]:
    """Yield the examples of each step, epoch after epoch, without end."""
    for epoch in itertools.count():
        yield from plan_epoch(examples, config.batch_size, seed=config.seed, epoch=epoch)


def _train_step(
    backend: Backend,
    packer: Packer,
    train: PreparedSplit,
    index: Int64[np.ndarray, " S"],
    *,
    step: int,
    learning_rate: float,
) -> int:
    """Train one step to its end, and return its number of tokens."""
    batches = packer.pack_parts(train.tokens, index, train.labels, backend.parallel_batches)
    backend.train_step(batches, step=step, learning_rate=learning_rate)
    backend.synchronize()
    return sum(batch.num_tokens for batch in batches)
