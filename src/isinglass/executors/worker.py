"""The process that performs one request: `python -m MODULE DIRECTORY`, where MODULE calls `serve`.

The request is one line on standard input, which the executor then holds open. When standard input closes, because the
executor was killed, this process ends at once. Messages are lines on standard output. What libraries print goes to standard
error, which the executor keeps as a log.

Each request has a process of its own because Keras serves one framework in a process, peak memory is counted by process, and
a crash ends only one run.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig
from isinglass.data.examples import Source
from isinglass.errors import IsinglassError
from isinglass.executors.messages import Answer, Failed, Message, Progressed, Request, TrainingRequest, from_line, to_line
from isinglass.executors.stored_checkpoints import open_checkpoints
from isinglass.runs.perform import Saving, perform
from isinglass.training.observers import Observers, ProgressObserver
from isinglass.training.trainer import TrainedRun

Send = Callable[[Message], None]
Handler = Callable[[Any, Path, Send], Answer]
"""Performs a request of one kind: gets it, the directory to write to, and a function that sends updates."""


def serve(handlers: Mapping[type[Request], Handler]) -> None:
    """Read one request, perform it by the handler of its kind, and send the answer."""
    send = _open_messages()
    request = from_line(sys.stdin.buffer.readline())
    assert isinstance(request, Request)
    threading.Thread(target=_end_with_the_executor, daemon=True).start()
    try:
        send(handlers[type(request)](request, Path(sys.argv[1]), send))
    except (IsinglassError, OSError, MemoryError) as error:
        send(Failed(error=str(error) or type(error).__name__))
        sys.exit(2)


def train_requested(
    request: TrainingRequest, config: TrainConfig, data: Source, send: Send, observers: Observers = ()
) -> TrainedRun:
    """Train the run of a request, and send its progress. It continues from its newest checkpoint, if there is one.

    Args:
        config: the resolved settings of the request.
        data: what `config` names, or what is left of it.
        observers: further observers of the training.
    """
    checkpoints = None if request.checkpoints is None else open_checkpoints(request.checkpoints)
    run = perform(
        config,
        observers=[ProgressObserver(lambda progress: send(Progressed(progress=progress))), *observers],
        saving=Saving(checkpoints=checkpoints),
        data=data,
        first_weights=request.run.first_weights,
        group=SingleProcess(),
    )
    assert run.trained is not None
    return run.trained


def _open_messages() -> Send:
    """Return a function that writes a message to what is standard output now, and let prints go to standard error."""
    lines = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        lines.write(to_line(message))
        lines.flush()

    return send


def _end_with_the_executor() -> None:
    os.read(0, 1)  # not sys.stdin: Python must be able to close its buffer at exit
    os._exit(1)
