"""A worker: the process that performs one request, how it is run, and the executor that runs one after another.

The process is `python -m isinglass.executors.worker DIRECTORY`.

The request is one line on standard input, which the executor then holds open. When standard input closes, because the
executor was killed, this process ends at once. Messages are lines on standard output. What libraries print goes to standard
error, which the executor keeps as a log.

The request's handler performs it: a function that gets the request, the directory to write to, and a function that sends
updates, and that returns the answer. It is found by name, for it lies in a room above this one.

Each request has a process of its own because Keras serves one framework in a process, peak memory is counted by process, and
a crash ends only one run.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name

from isinglass.errors import IsinglassError
from isinglass.executors.messages import Answer, Failed, Message, Request, Started, from_line, to_line


class LocalExecutor:
    """An executor that runs one worker at a time, on this machine.

    Args:
        directory: where the workers write, and their logs go.
        lock: the descriptor of the directory's lock. Workers inherit it, so that the lock outlives a killed executor until
            its worker has ended too.

    Attributes:
        at_once: the number of requests that are performed at the same time.
        capacity: the number of requests that can be pending.
    """

    at_once = 1
    capacity = 1

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self._name = ""
        self._messages: Generator[Message] | None = None

    def submit(self, name: str, request: Request) -> None:
        """Take a request on; its worker is started by the next `wait`."""
        log = self._directory / "logs" / f"{name}.log"
        self._name = name
        self._messages = run_worker(request, self._directory, log, inherited=[self._lock])

    def wait(self) -> tuple[str, Message]:
        """Return the next message of the pending request, with the request's name.

        Before an answer is returned, the worker's files lie in the executor's directory.
        """
        assert self._messages is not None
        return self._name, next(self._messages)

    def close(self) -> None:
        """End the worker."""
        if self._messages is not None:
            self._messages.close()


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
            [sys.executable, "-m", "isinglass.executors.worker", str(directory)],
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
        for line in worker.stdout:
            if not line.endswith(b"\n"):  # the worker was killed while it wrote the line
                break
            message = from_line(line)
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


def _failure(status: int, log: Path) -> Failed:
    """Return the answer for a worker that ended with `status` and gave none."""
    output = log.read_text(encoding="utf-8", errors="replace").strip()
    last_line = output.rsplit("\n", 1)[-1].strip()
    details = f"{log} has its last output{': ' if last_line else ''}{last_line}"
    if status >= 0:
        return Failed(error=f"the run's process ended with status {status}; {details}")
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    reason = f"the run's process was ended by {signal.Signals(-status).name}{hint}"
    return Failed(error=f"{reason}; {details}", signal=-status)


def main() -> None:
    """Read one request, perform it, and send the answer."""
    lines = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed from here on

    def send(message: Message) -> None:
        lines.write(to_line(message))
        lines.flush()

    request = from_line(sys.stdin.buffer.readline())
    assert isinstance(request, Request)
    threading.Thread(target=_end_with_the_executor, daemon=True).start()
    try:
        send(resolve_name(request.handler)(request, Path(sys.argv[1]), send))
    except (IsinglassError, OSError, MemoryError) as error:
        send(Failed(error=str(error) or type(error).__name__))
        sys.exit(2)


def _end_with_the_executor() -> None:
    os.read(0, 1)  # not sys.stdin: Python must be able to close its buffer at exit
    os._exit(1)


if __name__ == "__main__":
    main()
