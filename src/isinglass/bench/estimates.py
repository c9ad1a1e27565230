"""How long the runs of a bench are likely to take: a few timed steps of each engine, measured once for a directory."""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from isinglass.bench.plan import PlannedRun
from isinglass.config import TrainConfig, as_dict
from isinglass.executors.local import LocalExecutor
from isinglass.executors.messages import Answer, Calibration, CalibrationRequest, Failed, Message, RunInputs, Started
from isinglass.executors.ray.executor import RayExecutor
from isinglass.storage import replacing

logger = logging.getLogger(__name__)

CALIBRATION: Final = "calibration.json"
EVALUATION_SHARE: Final = 1 / 3  # of the operations of a training step: the forward pass alone
OVERHEAD_SECONDS: Final = 10.0  # for the start of a process, its imports, loading, scoring and writing


def engine(config: TrainConfig) -> str:
    """Return a text of all that decides a run's speed and tokens. Runs with the same text share a calibration."""
    tokens = (config.max_length, config.overlap, config.max_train_examples)
    return repr((config.model, config.backend, config.precision, config.xla, config.compile, *tokens))


def estimates(runs: Sequence[PlannedRun], calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Return key -> seconds that the run is likely to take; NaN if its engine has no calibration.

    Args:
        calibrations: engine -> its calibration.
    """
    seconds = {}
    for run in runs:
        calibration = calibrations.get(engine(run.config))
        if calibration is None:
            seconds[run.key] = math.nan
            continue
        task = run.config.task
        tokens = calibration.train_tokens[task] * run.config.epochs + calibration.dev_tokens[task] * EVALUATION_SHARE
        seconds[run.key] = tokens / calibration.tokens_per_second + calibration.compile_seconds + OVERHEAD_SECONDS
    return seconds


def calibrate(runs: Sequence[PlannedRun], directory: Path, executor: LocalExecutor | RayExecutor) -> dict[str, Calibration]:
    """Return the calibration of each engine that the runs need; an engine that fails has none.

    What an earlier call measured is read from `calibration.json`, unless the runs have tasks that were not measured then.
    """
    path = directory / CALIBRATION
    known: dict[str, Calibration] = {}
    file_format = TypeAdapter(dict[str, Calibration])
    with suppress(FileNotFoundError, ValueError):  # otherwise it is measured again
        known = file_format.validate_json(path.read_bytes())
    by_engine: dict[str, dict[str, RunInputs]] = {}
    for run in runs:
        tasks = by_engine.setdefault(engine(run.config), {})
        tasks.setdefault(run.config.task, RunInputs(config=as_dict(run.config)))
    for key, tasks in by_engine.items():
        if key in known and tasks.keys() <= known[key].train_tokens.keys():
            continue
        executor.submit("calibration", CalibrationRequest(runs=tuple(tasks.values())))
        message: Message = Started()
        while not isinstance(message, Answer):  # the only request that is pending
            _, message = executor.wait()
        if isinstance(message, Calibration):
            known[key] = message
            with replacing(path) as partial:
                partial.write_bytes(file_format.dump_json(known))
        if isinstance(message, Failed):
            logger.warning("No estimate for %s: %s", " and ".join(sorted(tasks)), message.error)
    return {key: known[key] for key in by_engine if key in known}
