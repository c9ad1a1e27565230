"""A worker as a process of this machine: start it, send the request, read its messages, end it."""

import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from isinglass.executors.messages import Answer, Failed, Message, Request, Started, from_line, to_line


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
    answer = None
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
    try:
        yield Started()
        for message in _exchange(worker, request):
            if isinstance(message, Answer):
                answer = message
            else:
                yield message
        worker.wait()
    finally:
        _end(worker)
    yield answer or _failure(worker.returncode, log)


def _exchange(worker: subprocess.Popen[bytes], request: Request) -> Generator[Message]:
    """Send the request, and yield the worker's messages. Standard input stays open: the worker ends when it closes."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(to_line(request))
        worker.stdin.flush()
    for line in worker.stdout:
        if not line.endswith(b"\n"):
            return  # the worker was killed while it wrote the line
        yield from_line(line)


def _end(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.kill()
    worker.wait()
    worker.stdout.close()
    with suppress(BrokenPipeError):
        worker.stdin.close()


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
