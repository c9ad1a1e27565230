"""Run what is left of a plan, one process a run, and append one record for each: killing it loses the run in flight only."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from isinglass.bench.plan import Calibration, Plan, PlannedRun, engine, left_to_do
from isinglass.bench.worker import CalibrationRequest, RunRequest
from isinglass.config import as_dict
from isinglass.errors import OutputExistsError
from isinglass.results import RESULTS, DamagedLine, FailedRun, RunResult, append_record, read_records
from isinglass.storage import held
from isinglass.training.loop import Progress

logger = logging.getLogger(__name__)

LOCK: Final = ".lock"
CALIBRATION: Final = "calibration.json"
LOCK_SECONDS: Final = 10.0  # a killed bench's worker ends within that


@dataclass(frozen=True)
class Bench:
    """A bench's directory, held by this process: `lock` is the descriptor that its workers inherit."""

    directory: Path
    lock: int


@dataclass(frozen=True, kw_only=True)
class Events:
    """What the caller shows: each called as it happens."""

    on_start: Callable[[PlannedRun, int, int], None] = lambda _run, _number, _total: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_end: Callable[[PlannedRun, RunResult | FailedRun], None] = lambda _run, _record: None


def run_all(plan: Plan, bench: Bench, events: Events) -> int:
    """Make every run that `results.jsonl` lacks; how many of them failed."""
    left = left_to_do(plan, records_of(bench.directory), bench.directory)
    failed: set[str] = set()
    for number, run in enumerate(left, start=1):
        events.on_start(run, number, len(left))
        source = run.start_from
        record: RunResult | FailedRun
        if source is not None and source.key in failed:
            record = _failure(run, f"{source.title} failed, and this run starts from its model.")
        else:
            record = _perform(run, bench, events.on_progress)
        if isinstance(record, FailedRun):
            failed.add(run.key)
        append_record(bench.directory, record)
        events.on_end(run, record)
    return len(failed)


def records_of(directory: Path) -> list[RunResult]:
    """The finished runs; none where there is no file yet."""
    return read_records(directory).results if (directory / RESULTS).exists() else []


def calibrate(runs: Sequence[PlannedRun], bench: Bench) -> dict[str, Calibration]:
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
        request = {"calibrate": asdict(CalibrationRequest(configs=list(configs.values())))}
        answer = _ask(request, bench, "calibration", lambda _: None)
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


def _perform(run: PlannedRun, bench: Bench, on_progress: Callable[[Progress], None]) -> RunResult | FailedRun:
    source = run.start_from
    request = RunRequest(
        config=as_dict(run.config),
        start_from=source.config.task if source else None,
        first_weights=str(bench.directory / "runs" / source.name / "model") if source else None,
        bench=str(bench.directory),
        name=run.name,
        keep_model=run.keep_model,
        predict_test=run.predict_test,
    )
    answer = _ask({"run": asdict(request)}, bench, run.name, on_progress)
    return RunResult(**answer["result"]) if "result" in answer else _failure(run, str(answer["error"]))


def _failure(run: PlannedRun, error: str) -> FailedRun:
    source = run.start_from.config.task if run.start_from else None
    return FailedRun(config=as_dict(run.config), start_from=source, error=error)


def _ask(request: Mapping[str, Any], bench: Bench, name: str, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
    """A worker's last answer; `{"error": ...}` also where it died without one. Its standard error is kept in `logs/`."""
    log = bench.directory / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    last: dict[str, Any] = {}
    with open(log, "wb") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "isinglass.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[bench.lock],
            start_new_session=True,  # Ctrl-C comes to the bench, which ends the worker
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            with suppress(BrokenPipeError):
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                worker.stdin.flush()
            for line in worker.stdout:
                if not line.endswith(b"\n"):
                    break  # it was killed in the middle of a line
                last = json.loads(line)
                if "progress" in last:
                    on_progress(Progress(**last["progress"]))
            worker.wait()
        finally:
            worker.kill()
            worker.wait()
            worker.stdout.close()
            with suppress(BrokenPipeError):
                worker.stdin.close()
    if last.keys() & {"result", "calibration", "error"}:
        return last
    return {"error": f"{_ending(worker.returncode)}; {log} has what it said last{_last_line(log)}"}


def _ending(status: int) -> str:
    if status >= 0:
        return f"the run's process ended with status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"the run's process was ended by {signal.Signals(-status).name}{hint}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {said}" if said else ""


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
