"""The process that performs one request: `python -m isinglass.executors.worker DIRECTORY`.

The request is one line on standard input, which the executor then holds open. When standard input closes, because the
executor was killed, this process ends at once. Messages are lines on standard output. What libraries print goes to standard
error, which the executor keeps as a log.

The request's handler performs it: a function that gets the request, the directory to write to, and a function that sends
updates, and that returns the answer. It is found by name, for it lies in a room above this one.

Each request has a process of its own because Keras serves one framework in a process, peak memory is counted by process, and
a crash ends only one run.
"""

import os
import sys
import threading
from pathlib import Path
from pkgutil import resolve_name

from isinglass.errors import IsinglassError
from isinglass.executors.messages import Failed, Message, Request, from_line, to_line


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
