"""How long the runs of a bench are likely to take: a few timed steps of each engine, measured once for a directory."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from isinglass.bench.plan import PlannedRun
from isinglass.config import TrainConfig, as_dict
from isinglass.executors.messages import Answer, Calibration, CalibrationRequest, Failed, RunInputs
from isinglass.executors.protocol import Executor
from isinglass.storage import replacing

logger = logging.getLogger(__name__)

CALIBRATION: Final = "calibration.json"
EVALUATION_SHARE: Final = 1 / 3  # of the operations of a training step: the forward pass alone
OVERHEAD_SECONDS: Final = 10.0  # for the start of a process, its imports, loading, scoring and writing

Calibrations = Mapping[str, Calibration]
"""Engine -> its calibration."""


def engine(config: TrainConfig) -> str:
    """Return a text of all that decides a run's speed and tokens. Runs with the same text share a calibration."""
    tokens = (config.max_length, config.overlap, config.max_train_examples)
    return repr((config.model, config.backend, config.precision, config.xla, config.compile, *tokens))


def estimates(runs: Sequence[PlannedRun], calibrations: Calibrations) -> dict[str, float]:
    """Return key -> seconds that the run is likely to take; NaN if its engine has no calibration."""
    return {run.key: _seconds(run, calibrations.get(engine(run.config))) for run in runs}


def _seconds(run: PlannedRun, calibration: Calibration | None) -> float:
    if calibration is None:
        return math.nan
    task = run.config.task
    tokens = calibration.train_tokens[task] * run.config.epochs + calibration.dev_tokens[task] * EVALUATION_SHARE
    return tokens / calibration.tokens_per_second + calibration.compile_seconds + OVERHEAD_SECONDS


def calibrate(runs: Sequence[PlannedRun], directory: Path, executor: Executor) -> dict[str, Calibration]:
    """Return the calibration of each engine that the runs need; an engine that fails has none.

    What an earlier call measured is read from `calibration.json`, unless the runs have tasks that were not measured then.
    """
    path = directory / CALIBRATION
    known = _read(path)
    by_engine: dict[str, dict[str, RunInputs]] = {}
    for run in runs:
        tasks = by_engine.setdefault(engine(run.config), {})
        tasks.setdefault(run.config.task, RunInputs(config=as_dict(run.config)))
    for key, tasks in by_engine.items():
        if key in known and tasks.keys() <= known[key].train_tokens.keys():
            continue
        executor.submit("calibration", CalibrationRequest(runs=tuple(tasks.values())))
        answer = _answer(executor)
        if isinstance(answer, Calibration):
            known[key] = answer
            _write(path, known)
        if isinstance(answer, Failed):
            logger.warning("No estimate for %s: %s", " and ".join(sorted(tasks)), answer.error)
    return {key: known[key] for key in by_engine if key in known}


def _answer(executor: Executor) -> Answer:
    """Wait for the answer to the only pending request."""
    while True:
        _, message = executor.wait()
        if isinstance(message, Answer):
            return message


def _read(path: Path) -> dict[str, Calibration]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {key: Calibration(**fields) for key, fields in values.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}  # it is measured again


def _write(path: Path, calibrations: Calibrations) -> None:
    values = {key: asdict(calibration) for key, calibration in calibrations.items()}
    with replacing(path) as partial:
        partial.write_text(json.dumps(values), encoding="utf-8")
