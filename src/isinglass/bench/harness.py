"""Perform a bench: the runs that are left, each after the run that it starts from, and one record for each.

Killing a bench loses the runs in flight only.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from isinglass.bench.own_data import OwnData, read_own_data, settle
from isinglass.bench.plan import Plan, PlannedRun, Selection, left_to_do, make_plan
from isinglass.config import TrainConfig, as_dict
from isinglass.config.settings import ClusterSettings
from isinglass.errors import ConfigError
from isinglass.executors.messages import (
    Answer,
    Calibration,
    CalibrationRequest,
    Failed,
    Message,
    Progressed,
    RunFinished,
    RunInputs,
    RunRequest,
    Started,
)
from isinglass.executors.ray.executor import RayExecutor, connected
from isinglass.executors.worker import LocalExecutor
from isinglass.results import RESULTS, FailedRun, RunResult, append_record, read_records
from isinglass.storage import locked_output, replacing
from isinglass.training.observers import Progress

DAMAGED: Final = "results.damaged.jsonl"
LOCK_SECONDS: Final = 10.0  # the worker of a killed bench ends within this time
CALIBRATION: Final = "calibration.json"
EVALUATION_SHARE: Final = 1 / 3  # of the operations of a training step: the forward pass alone
OVERHEAD_SECONDS: Final = 10.0  # for the start of a process, its imports, loading, scoring and writing

logger = logging.getLogger(__name__)


class BenchObserver:
    """Base class of a bench's observers: every method does nothing until it is overridden."""

    def on_connect(self, summary: str) -> None:
        """Called when a cluster is ready; `summary` says in one line what it has."""

    def on_data(self, data: OwnData) -> None:
        """Called with what is known about your own files, before they are trained on."""

    def on_plan(self, plan: Plan, estimates: Mapping[str, float], at_once: int) -> None:
        """Called before the first run.

        Args:
            estimates: key of each remaining run -> seconds that it is likely to take; NaN where that is not known.
            at_once: the number of runs that are performed at the same time.
        """

    def on_run_begin(self, run: PlannedRun, number: int, total: int) -> None:
        """Called when a run begins: the `number`-th, from 1, of `total` remaining runs."""

    def on_progress(self, run: PlannedRun, progress: Progress) -> None:
        """Called while a run is trained and evaluated."""

    def on_run_end(self, run: PlannedRun, record: RunResult | FailedRun) -> None:
        """Called when the record of a run is written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a bench has done: its plan, the number of runs that were left to do, and the number of them that failed."""

    plan: Plan
    performed: int
    failed: int


def run(
    selection: Selection,
    directory: Path,
    *,
    data_dir: str | None = None,
    cluster: ClusterSettings | None = None,
    dry_run: bool = False,
    observer: BenchObserver = BenchObserver(),  # noqa: B008  # it has no state
) -> Outcome:
    """Perform all runs of a selection that `directory` has no result of.

    Args:
        data_dir: a directory in GLUE's layout; None: the hub.
        cluster: the cluster that performs the runs; None: this machine, one run after another.
        dry_run: only plan the runs, and estimate how long they will take.

    Raises:
        ConfigError: the selection, or the cluster, cannot be used.
        OutputExistsError: `directory` holds something else, or another process holds it.
        DataError: your own files are damaged, or differ from those of earlier runs.
    """
    plan = make_plan(selection, data_dir)
    # mistakes in the files are found before anything is started
    own_data = read_own_data(plan.runs[0].config) if selection.has_own_files else None
    if selection.predict_test and own_data is not None and "test" not in own_data.facts.rows:
        raise ConfigError("--predict-test predicts a test set, and the data set has none: name one with --test-file.")
    with ExitStack() as stack:
        executor: LocalExecutor | RayExecutor | None = None
        if cluster is not None:
            executor = stack.enter_context(connected(cluster, directory))
            observer.on_connect(executor.summary)
        lock = stack.enter_context(locked_output(directory, "bench", RESULTS, wait_seconds=LOCK_SECONDS))
        if executor is None:
            executor = stack.enter_context(closing(LocalExecutor(directory, lock)))
        results = _finished_runs(directory)
        if own_data is not None:
            settle(own_data.description, directory, results)
            observer.on_data(own_data)
        remaining = left_to_do(plan, results, directory)
        seconds = estimates(remaining, calibrate(remaining, directory, executor))
        observer.on_plan(plan, seconds, executor.at_once)
        failed = 0 if dry_run else Harness(directory, remaining, executor, observer).run_all()
    return Outcome(plan=plan, performed=len(remaining), failed=failed)


def _finished_runs(directory: Path) -> list[RunResult]:
    """Return the results of the finished runs; none if there is no file of them.

    The damaged lines of `results.jsonl` are moved to `results.damaged.jsonl`, so that their runs are performed again. A line
    that a kill cut off is damaged, or lacks only its line feed, which is added.
    """
    path = directory / RESULTS
    if not path.exists():
        return []
    records = read_records(directory)
    damaged = {line.number for line in records.damaged}
    content = path.read_bytes()
    lines = [(number, line + b"\n") for number, line in enumerate(content.split(b"\n"), start=1) if line]
    if damaged:
        with open(directory / DAMAGED, "ab") as aside:
            aside.writelines(line for number, line in lines if number in damaged)
    rest = b"".join(line for number, line in lines if number not in damaged)
    if rest != content:
        with replacing(path) as partial:
            partial.write_bytes(rest)
    for line in records.damaged:
        reason = f"is no record ({line.reason}) and was set aside in {DAMAGED}: its run is made again."
        logger.warning("%s, line %d %s", path, line.number, reason)
    return records.results


class Harness:
    """The remaining runs of a bench while they are performed."""

    def __init__(
        self, directory: Path, remaining: list[PlannedRun], executor: LocalExecutor | RayExecutor, observer: BenchObserver
    ) -> None:
        self._directory = directory
        self._executor = executor
        self._observer = observer
        self._total = len(remaining)
        self._begun = 0
        self._waiting = [*remaining]
        self._pending: dict[str, PlannedRun] = {}  # by name
        self._failed: list[PlannedRun] = []

    def run_all(self) -> int:
        """Perform all runs, and return the number of those that failed."""
        while self._waiting or self._pending:
            unfinished = [*self._waiting, *self._pending.values()]
            for run in [run for run in self._waiting if run.start_from not in unfinished]:
                if len(self._pending) < self._executor.capacity:
                    self._waiting.remove(run)
                    self._submit(run)
            if self._pending:
                name, message = self._executor.wait()
                self._handle(self._pending[name], message)
        return len(self._failed)

    def _submit(self, run: PlannedRun) -> None:
        source = run.start_from
        if source is not None and source in self._failed:
            self._begin(run)
            self._fail(run, f"{source.title} failed, and this run starts from its model.")
            return
        model = None if source is None else str(source.model_in(self._directory))
        request = RunRequest(
            runs=(RunInputs(config=as_dict(run.config), first_weights=model),),
            name=run.name,
            start_from=run.start_task,
            keep_model=run.keep_model,
            predict_test=run.predict_test,
        )
        self._executor.submit(run.name, request)
        self._pending[run.name] = run

    def _handle(self, run: PlannedRun, message: Message) -> None:
        if isinstance(message, Answer):
            del self._pending[run.name]
        match message:
            case Started():
                self._begin(run)
            case Progressed(progress=progress):
                self._observer.on_progress(run, progress)
            case RunFinished(result=result):
                self._end(run, result)
            case Failed(error=error):
                self._fail(run, error)

    def _begin(self, run: PlannedRun) -> None:
        self._begun += 1
        self._observer.on_run_begin(run, self._begun, self._total)

    def _fail(self, run: PlannedRun, error: str) -> None:
        self._failed.append(run)
        self._end(run, FailedRun(config=as_dict(run.config), start_from=run.start_task, error=error))

    def _end(self, run: PlannedRun, record: RunResult | FailedRun) -> None:
        append_record(self._directory, record)
        self._observer.on_run_end(run, record)


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
        epochs = calibration.epochs.get(task, run.config.epochs)
        tokens = calibration.train_tokens[task] * epochs + calibration.dev_tokens[task] * EVALUATION_SHARE
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
