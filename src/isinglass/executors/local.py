"""Where runs are performed: what every such place offers, and this machine, one run after another."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from isinglass.executors.worker import CalibrationRequest, TrainingRequest

Message = Mapping[str, Any]  # one key: `started`, `progress`, `scores`, or an end: `result`, `calibration`, `trial`, `error`
ENDS: Final = frozenset({"result", "calibration", "trial", "error"})


class Executor(Protocol):
    """Performs what is asked for, each in a process of its own, and tells how it goes."""

    @property
    def at_once(self) -> int:
        """So many runs go on at a time."""
        ...

    def has_room(self) -> bool:
        """Whether to submit another one now."""
        ...

    def submit(self, name: str, kind: str, request: TrainingRequest | CalibrationRequest) -> None:
        """Take on what a worker knows as `kind`, under a name that nothing else under way has."""
        ...

    def wait(self) -> tuple[str, Message]:
        """The next message of any that is under way, with its name; by an end its files lie in the bench's directory."""
        ...


class Local:
    """This machine, one at a time; the worker inherits the descriptor of the bench's lock."""

    at_once = 1

    def __init__(self, logs: Path, lock: int) -> None:
        self._logs, self._lock = logs, lock
        self._name = ""
        self._messages: Generator[Message] | None = None

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        if self._messages is not None:
            self._messages.close()

    def has_room(self) -> bool:
        """While nothing is under way."""
        return self._messages is None

    def submit(self, name: str, kind: str, request: TrainingRequest | CalibrationRequest) -> None:
        """It begins with the next `wait`."""
        assert self._messages is None
        self._name = name
        self._messages = ask({kind: asdict(request)}, self._logs / f"{name}.log", inherited=[self._lock])

    def wait(self) -> tuple[str, Message]:
        """The worker's next message."""
        assert self._messages is not None
        message = next(self._messages)
        if message.keys() & ENDS:
            self._messages.close()
            self._messages = None
        return self._name, message


def ask(
    request: Mapping[str, Any],
    log: Path,
    *,
    module: str = "isinglass.bench.worker",
    inherited: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Generator[Message]:
    """`started`, and the messages of a worker, its answer last; its standard error is kept in `log`.

    Where it dies without an answer that is an `error`, and with it `signal` where one ended it. Closing ends the worker.

    Args:
        module: run as the worker; it serves the request's kind.
    """
    log.parent.mkdir(exist_ok=True)
    last: Message = {"started": True}
    with open(log, "wb") as errors:
        worker = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=inherited,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to the bench, which ends the worker
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            yield last
            with suppress(BrokenPipeError):
                worker.stdin.write(json.dumps(request).encode() + b"\n")
                worker.stdin.flush()
            for line in worker.stdout:
                if not line.endswith(b"\n"):
                    break  # it was killed in the middle of a line
                last = json.loads(line)
                if not last.keys() & ENDS:
                    yield last
            worker.wait()
        finally:
            worker.kill()
            worker.wait()
            worker.stdout.close()
            with suppress(BrokenPipeError):
                worker.stdin.close()
    if last.keys() & ENDS:
        yield last
        return
    ended = {"signal": -worker.returncode} if worker.returncode < 0 else {}
    yield {"error": f"{_ending(worker.returncode)}; {log} has what it said last{_last_line(log)}", **ended}


def _ending(status: int) -> str:
    if status >= 0:
        return f"the run's process ended with status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"the run's process was ended by {signal.Signals(-status).name}{hint}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {said}" if said else ""
