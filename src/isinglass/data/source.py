"""A task and where its examples come from."""

from collections.abc import Callable
from dataclasses import dataclass

from isinglass.data.examples import Examples
from isinglass.tasks import Split, Task


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task and where its examples come from: files of a published task, the user's own, or memory.

    Attributes:
        read: the examples of one of the task's splits.
        notes: what a reader of the result should know: what was guessed, say.
    """

    task: Task
    read: Callable[[Split], Examples]
    notes: tuple[str, ...] = ()
