"""This machine: one worker after another, each a process that gets a request and sends messages."""

import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from isinglass.executors.messages import Answer, Failed, Message, Request, Started, from_line, to_line


class LocalExecutor:
    """An executor that runs one worker at a time, on this machine.

    Args:
        directory: where the workers write, and their logs go.
        lock: the descriptor of the directory's lock. Workers inherit it, so that the lock outlives a killed executor until
            its worker has ended too.
    """

    at_once = 1

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self._name = ""
        self._messages: Generator[Message] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(self._name)

    def has_room(self) -> bool:
        """Return whether nothing is pending."""
        return self._messages is None

    def submit(self, name: str, request: Request) -> None:
        """Take a request on; its worker is started by the next `wait`."""
        assert self._messages is None
        self._name = name
        log = self._directory / "logs" / f"{name}.log"
        self._messages = run_worker(request, self._directory, log, inherited=[self._lock])

    def wait(self) -> tuple[str, Message]:
        """Return the worker's next message."""
        assert self._messages is not None
        message = next(self._messages)
        if isinstance(message, Answer):
            self.stop(self._name)
        return self._name, message

    def stop(self, name: str) -> None:
        """End the worker, if it is the one of that name."""
        if self._messages is not None and name == self._name:
            self._messages.close()
            self._messages = None


def run_worker(
    request: Request,
    directory: Path,
    log: Path,
    *,
    inherited: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Generator[Message]:
    """Start a worker, and yield `Started`, its updates and, once its process has ended, its answer.

    A worker that ends without an answer has failed. Closing the generator ends the worker.

    Args:
        directory: where the worker writes.
        log: the file for the worker's standard error.
        inherited: descriptors that the worker keeps open.
        environment: the worker's environment variables; None: those of this process.
    """
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as errors:
        worker = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", request.worker, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=inherited,
            env=environment,
            start_new_session=True,  # so that Ctrl-C reaches the bench alone, which ends the worker
        )
    assert worker.stdin is not None
    assert worker.stdout is not None
    answer = None
    try:
        yield Started()
        with suppress(BrokenPipeError):
            worker.stdin.write(to_line(request))
            worker.stdin.flush()  # it stays open: the worker ends when it closes
        for message in _read(worker.stdout):
            if isinstance(message, Answer):
                answer = message
            else:
                yield message
        worker.wait()
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
        with suppress(BrokenPipeError):
            worker.stdin.close()
    yield answer or _failure(worker.returncode, log)


def _read(lines: IO[bytes]) -> Generator[Message]:
    for line in lines:
        if line.endswith(b"\n"):  # otherwise the worker was killed while it wrote the line
            yield from_line(line)


def _failure(status: int, log: Path) -> Failed:
    """Return the answer for a worker that ended with `status` and gave none."""
    details = f"{log} has its last output{_last_line(log)}"
    if status >= 0:
        return Failed(error=f"the run's process ended with status {status}; {details}")
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return Failed(
        error=f"the run's process was ended by {signal.Signals(-status).name}{hint}; {details}",
        signal=-status,
    )


def _last_line(log: Path) -> str:
    """Return the last line that is not blank, after a colon; empty if there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last}" if last else ""
