"""What an executor is."""

from typing import Protocol, runtime_checkable

from isinglass.executors.messages import Message, Request


@runtime_checkable
class Executor(Protocol):
    """Performs requests, each in a process of its own, and passes on what their workers say."""

    @property
    def at_once(self) -> int:
        """The number of requests that are performed at the same time."""
        ...

    def has_room(self) -> bool:
        """Return whether another request can be submitted now."""
        ...

    def submit(self, name: str, request: Request) -> None:
        """Take a request on, under a name that no other pending request has."""
        ...

    def wait(self) -> tuple[str, Message]:
        """Return the next message of any pending request, with the request's name.

        Before an answer is returned, the worker's files lie in the executor's directory.
        """
        ...

    def stop(self, name: str) -> None:
        """End a request. Messages of it that `wait` still returns mean nothing."""
        ...
