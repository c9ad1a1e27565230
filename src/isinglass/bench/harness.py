"""Have what is left of a plan run, and append one record for each run: killing it loses the runs in flight only."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from isinglass.bench.calibration import Calibration, engine
from isinglass.bench.plan import Plan, PlannedRun, left_to_do
from isinglass.bench.worker import RunRequest
from isinglass.config import as_dict
from isinglass.errors import OutputExistsError
from isinglass.executors.local import ENDS, Executor, Local, Message
from isinglass.executors.worker import CalibrationRequest
from isinglass.results import RESULTS, DamagedLine, FailedRun, RunResult, append_record, read_records
from isinglass.storage import held
from isinglass.training.observers import Progress

logger = logging.getLogger(__name__)

LOCK: Final = ".lock"
CALIBRATION: Final = "calibration.json"
LOCK_SECONDS: Final = 10.0  # a killed bench's worker ends within that


@dataclass(frozen=True)
class Bench:
    """A bench's directory, held by this process: `lock` is the descriptor that its workers inherit."""

    directory: Path
    lock: int

    def local(self) -> Local:
        """Perform the runs here."""
        return Local(self.directory / "logs", self.lock)


@dataclass(frozen=True, kw_only=True)
class Events:
    """What the caller shows: each called as it happens."""

    on_start: Callable[[PlannedRun, int, int], None] = lambda _run, _number, _total: None
    on_progress: Callable[[PlannedRun, Progress], None] = lambda _run, _now: None
    on_end: Callable[[PlannedRun, RunResult | FailedRun], None] = lambda _run, _record: None


def run_all(plan: Plan, bench: Bench, executor: Executor, events: Events) -> int:
    """Make every run that `results.jsonl` lacks, each after the one that it starts from; how many of them failed."""
    left = left_to_do(plan, records_of(bench.directory), bench.directory)
    waiting, under_way = [*left], dict[str, PlannedRun]()
    unfinished, failed = {run.key for run in left}, set[str]()
    begun = 0

    def end(run: PlannedRun, record: RunResult | FailedRun) -> None:
        unfinished.discard(run.key)
        if isinstance(record, FailedRun):
            failed.add(run.key)
        append_record(bench.directory, record)
        events.on_end(run, record)

    def begin(run: PlannedRun) -> None:
        nonlocal begun
        begun += 1
        events.on_start(run, begun, len(left))

    while waiting or under_way:
        for run in [run for run in waiting if run.start_from is None or run.start_from.key not in unfinished]:
            if not executor.has_room():
                break
            waiting.remove(run)
            source = run.start_from
            if source is not None and source.key in failed:
                begin(run)
                end(run, _failure(run, f"{source.title} failed, and this run starts from its model."))
            else:
                executor.submit(run.name, "run", _request(run, bench))
                under_way[run.name] = run
        if not under_way:
            continue
        name, message = executor.wait()
        run = under_way[name]
        if "started" in message:
            begin(run)
        elif "progress" in message:
            events.on_progress(run, Progress(**message["progress"]))
        elif message.keys() & ENDS:
            del under_way[name]
            end(run, RunResult(**message["result"]) if "result" in message else _failure(run, str(message["error"])))
    return len(failed)


def records_of(directory: Path) -> list[RunResult]:
    """The finished runs; none where there is no file yet."""
    return read_records(directory).results if (directory / RESULTS).exists() else []


def calibrate(runs: Sequence[PlannedRun], bench: Bench, executor: Executor) -> dict[str, Calibration]:
    """Engine -> calibration, by a few training steps of each; an engine that fails has none.

    What an earlier call measured is in `calibration.json` and is not measured again, unless tasks have come in.
    """
    path = bench.directory / CALIBRATION
    known = {key: Calibration(**values) for key, values in _read_json(path).items()}
    by_engine: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        by_engine.setdefault(engine(run.config), {}).setdefault(run.config.task, as_dict(run.config))
    for key, configs in by_engine.items():
        if key in known and configs.keys() <= known[key].train_tokens.keys():
            continue
        executor.submit("calibration", "calibrate", CalibrationRequest(configs=list(configs.values())))
        answer: Message = {}
        while not answer.keys() & ENDS:
            _, answer = executor.wait()
        if "calibration" in answer:
            known[key] = Calibration(**answer["calibration"])
            partial = path.with_name(f".{CALIBRATION}")
            partial.write_text(json.dumps({key: asdict(value) for key, value in known.items()}), encoding="utf-8")
            partial.replace(path)
        else:
            logger.warning("No estimate for %s: %s", " and ".join(sorted(configs)), answer["error"])
    return {key: known[key] for key in by_engine if key in known}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _request(run: PlannedRun, bench: Bench) -> RunRequest:
    source = run.start_from
    return RunRequest(
        config=as_dict(run.config),
        start_from=source.config.task if source else None,
        first_weights=str(bench.directory / "runs" / source.name / "model") if source else None,
        bench=str(bench.directory),
        name=run.name,
        keep_model=run.keep_model,
        predict_test=run.predict_test,
    )


def _failure(run: PlannedRun, error: str) -> FailedRun:
    source = run.start_from.config.task if run.start_from else None
    return FailedRun(config=as_dict(run.config), start_from=source, error=error)


@contextmanager
def opened(directory: Path) -> Iterator[Bench]:
    """Hold a bench's directory, made if need be: of two benches one is refused. The lock ends with its last process.

    Raises:
        OutputExistsError: another process holds it, or `directory` holds something that is no bench.
    """
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not _is_bench(directory)):
        raise OutputExistsError(f"{directory} holds something other than a bench: name a new directory by --output.")
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / LOCK, f"The bench in {directory}", wait_seconds=LOCK_SECONDS) as descriptor:
        yield Bench(directory, descriptor)


def _is_bench(directory: Path) -> bool:
    return (directory / RESULTS).is_file() or (directory / LOCK).is_file()


def set_damaged_aside(bench: Bench) -> list[DamagedLine]:
    """Move the lines of `results.jsonl` that are no records to `results.damaged.jsonl`, so that their runs are made again.

    What a kill cut off is such a line.
    """
    directory = bench.directory
    path = directory / RESULTS
    if not path.exists():
        return []
    damaged = read_records(directory).damaged
    if damaged:
        numbers = {line.number for line in damaged}
        lines = list(enumerate(path.read_bytes().split(b"\n"), start=1))
        with open(directory / "results.damaged.jsonl", "ab") as aside:
            aside.writelines(line + b"\n" for number, line in lines if number in numbers)
        partial = path.with_name(f".{RESULTS}-rest")
        with open(partial, "wb") as rest:
            rest.write(b"\n".join(line for number, line in lines if number not in numbers))
            rest.flush()
            os.fsync(rest.fileno())
        partial.replace(path)
    _end_last_line(path)
    return damaged


def _end_last_line(path: Path) -> None:
    """A kill may have come between a record and its line feed."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with open(path, "ab") as lines:
            lines.write(b"\n")
