"""How long the runs of a bench are likely to take: a few timed steps of each engine."""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isinglass.backends.objective import Objective
from isinglass.backends.registry import create_backend
from isinglass.bench.plan import PlannedRun
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.executors.worker import CalibrationRequest, config_from
from isinglass.models.source import load_model
from isinglass.packing import plan_epoch
from isinglass.training.labels import with_head_for
from isinglass.training.packer import Packer
from isinglass.training.preparation import prepare_split

EVALUATION_SHARE: Final = 1 / 3  # of a training step's operations: the forward pass alone
OVERHEAD_SECONDS: Final = 10.0  # starting a process, its imports, loading, scoring and writing
CALIBRATION_SECONDS: Final = 5.0
CALIBRATION_STEPS: Final = 20


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a few steps told: real tokens per second in training, and the tokens of each task's train and dev sets."""

    tokens_per_second: float
    compile_seconds: float
    train_tokens: Mapping[str, int]
    dev_tokens: Mapping[str, int]


def engine(config: TrainConfig) -> str:
    """What decides a run's speed, and which tokens it has: runs that share it share a calibration."""
    tokens = (config.max_length, config.overlap, config.max_train_examples)
    return repr((config.model, config.backend, config.precision, config.xla, config.compile, *tokens))


def estimated_seconds(run: PlannedRun, calibration: Calibration) -> float:
    """Training and evaluation at the calibrated speed, compiling, and the start."""
    task = run.config.task
    tokens = calibration.train_tokens[task] * run.config.epochs + calibration.dev_tokens[task] * EVALUATION_SHARE
    return tokens / calibration.tokens_per_second + calibration.compile_seconds + OVERHEAD_SECONDS


def estimates(runs: Sequence[PlannedRun], calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Key -> seconds that the run is likely to take; NaN where its engine has no calibration."""
    known = {run.key: calibrations.get(engine(run.config)) for run in runs}
    return {
        run.key: math.nan if calibration is None else estimated_seconds(run, calibration)
        for run, calibration in zip(runs, known.values(), strict=True)
    }


def calibrate(request: CalibrationRequest) -> Calibration:
    """Train a few steps of the first configuration's task, as many as fit in CALIBRATION_SECONDS."""
    configs = [config_from(values) for values in request.configs]
    train_tokens, dev_tokens = {}, {}
    first = configs[0]
    for config in configs[::-1]:  # the first task's split and checkpoint are what the loop leaves
        data = open_data(config)
        task = data.task
        checkpoint, _ = with_head_for(load_model(config.model), task)
        most = config.max_train_examples
        splits = [
            prepare_split(data, s, config, checkpoint, checkpoint.label_names, most=most if s is task.train else None)
            for s in task.splits
            if s.label_column is not None
        ]
        assert task.train is not None
        train_tokens[task.name] = sum(int(s.tokens.lengths.sum()) for s in splits if s.name == task.train.name)
        dev_tokens[task.name] = sum(int(s.tokens.lengths.sum()) for s in splits if s.name != task.train.name)
    split = next(s for s in splits if task.train is not None and s.name == task.train.name)
    backend = create_backend(first, checkpoint, Objective.of(task))
    packer = Packer.of(first, checkpoint)
    seconds = tokens = 0.0
    epochs = (plan_epoch(len(split.tokens), first.batch_size, seed=first.seed, epoch=epoch) for epoch in itertools.count())
    for step, index in enumerate(itertools.islice(itertools.chain.from_iterable(epochs), CALIBRATION_STEPS)):
        compiling = backend.compile_seconds
        started = time.perf_counter()
        batches = packer.pack_parts(split.tokens, index, split.labels, backend.parallel_batches)
        backend.train_step(batches, step=step, learning_rate=first.learning_rate)
        backend.synchronize()
        if step > 0 and backend.compile_seconds == compiling:  # a step that warms up or compiles is not the run's speed
            seconds += time.perf_counter() - started
            tokens += sum(batch.num_tokens for batch in batches)
        if seconds > CALIBRATION_SECONDS:
            break
    return Calibration(
        tokens_per_second=tokens / seconds,
        compile_seconds=backend.compile_seconds,
        train_tokens=train_tokens,
        dev_tokens=dev_tokens,
    )
