"""Time a few training steps, and count the tokens of tasks: what a worker does for an estimate."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isinglass.backends.registry import create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.executors.messages import Calibration, CalibrationRequest
from isinglass.executors.worker import Send
from isinglass.packing import plan_epoch
from isinglass.training.preparation import Packer, PreparedRun, PreparedSplit, prepare_run

MOST_SECONDS: Final = 5.0
MOST_STEPS: Final = 20


def calibrate(request: CalibrationRequest, directory: Path, send: Send) -> Calibration:  # noqa: ARG001  # it writes nothing
    """Time a few training steps of the first run, and count the tokens of all runs' tasks."""
    train_tokens, dev_tokens = {}, {}
    for inputs in reversed(request.runs):  # the first run comes last, and is the one that stays in memory
        config = inputs.resolve()
        prepared = prepare_run(config, open_data(config), inputs.first_weights)
        train_tokens[config.task] = _count_tokens([prepared.train])
        dev_tokens[config.task] = _count_tokens(prepared.scored)
    tokens_per_second, compile_seconds = time_steps(config, prepared)
    return Calibration(
        tokens_per_second=tokens_per_second,
        compile_seconds=compile_seconds,
        train_tokens=train_tokens,
        dev_tokens=dev_tokens,
    )


def _count_tokens(splits: Sequence[PreparedSplit]) -> int:
    return sum(int(split.tokens.lengths.sum()) for split in splits)


def time_steps(config: TrainConfig, prepared: PreparedRun) -> tuple[float, float]:
    """Train at most MOST_STEPS steps, or MOST_SECONDS. Return real tokens per second, and seconds of compiling.

    Steps that warm up or compile are not counted.
    """
    tokens_of_train, labels = prepared.train.tokens, prepared.train.labels_of_rows()
    backend = create_backend(config, prepared.model, prepared.objective)
    packer = Packer.of(config, prepared.model)
    seconds, tokens = 0.0, 0
    # more than enough epochs: each has a step
    epochs = (plan_epoch(len(tokens_of_train), config.batch_size, seed=config.seed, epoch=i) for i in range(MOST_STEPS))
    steps = itertools.islice(itertools.chain.from_iterable(epochs), MOST_STEPS)
    for step, index in enumerate(steps):
        compiled_before = backend.compile_seconds
        started = time.perf_counter()
        batches = packer.pack_parts(tokens_of_train, index, labels, backend.parallel_batches)
        backend.train_step(batches, step=step, learning_rate=config.learning_rate)
        backend.synchronize()
        if step > 0 and backend.compile_seconds == compiled_before:
            seconds += time.perf_counter() - started
            tokens += sum(batch.num_tokens for batch in batches)
        if seconds > MOST_SECONDS:
            break
    return tokens / seconds, backend.compile_seconds
