"""This machine, one request after another."""

from collections.abc import Generator
from pathlib import Path
from typing import Self

from isinglass.executors.messages import Answer, Message, Request
from isinglass.executors.process import run_worker


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
