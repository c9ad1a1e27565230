"""The processes that share each training step. The environment says which one each is."""

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np

from isinglass.errors import ConfigError
from isinglass.names import brief

_MODULES: Final = {
    "torch": "isinglass.backends.torch.process_group",
    "tensorflow": "isinglass.backends.keras.process_group",
}


class ProcessGroup(Protocol):
    """All processes of a run. They call the same methods in the same order: each waits for the others in it.

    Raises, in every method:
        ProcessLostError: another one has ended, or cannot be reached.
    """

    rank: int
    """Which of them this is, from 0. Only 0 writes and prints."""
    size: int
    """How many they are."""
    restarted: bool
    """Whether the launcher began all of them anew, because one had died."""
    has_launcher: bool
    """Whether one started them all: it passes signals on, and shows what each of them prints."""

    def gather(self, values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """What each process gave, by rank: arrays of the same shape and dtype (int64, float32, float64 or uint8)."""

    def wait(self) -> None:
        """Until all are here."""

    def speaks(self) -> bool:
        """Whether no other process has asked this before: the first one to fail tells the user why. Waits for none."""


class SingleProcess:
    """A run in one process, as most are."""

    rank = 0
    size = 1
    restarted = False
    has_launcher = False

    def gather(self, values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """See ProcessGroup."""
        return [values]

    def wait(self) -> None:
        """See ProcessGroup."""

    def speaks(self) -> bool:
        """See ProcessGroup."""
        return True


def largest(group: ProcessGroup, *values: int) -> tuple[int, ...]:
    """Of each value the largest that any process gave: by it all of them decide alike."""
    if group.size == 1:
        return values
    return tuple(int(value) for value in np.max(group.gather(np.array(values, np.int64)), axis=0))


@contextmanager
def in_turn(group: ProcessGroup) -> Iterator[None]:
    """Process 0 goes through the block first, and then all others: what it leaves in a cache they find there."""
    if group.rank > 0:
        group.wait()
    yield
    if group.rank == 0:
        group.wait()


def launched_processes() -> int:
    """How many `torchrun` started.

    Raises:
        ConfigError: the environment says something else than a number.
    """
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"The environment variable WORLD_SIZE is {given!r}; torchrun sets it to the number of processes.")
    return int(given)


def tensorflow_cluster() -> tuple[int, int]:
    """Which process of how many this is by TF_CONFIG: the chief, if there is one, before the workers.

    Raises:
        ConfigError: it is not what TensorFlow expects.
    """
    given = os.environ.get("TF_CONFIG", "")
    if not given:
        return 0, 1
    try:
        config = json.loads(given)
        cluster, kind, index = config["cluster"], config["task"]["type"], config["task"]["index"]
        chiefs, workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
        rank = {"chief": 0, "worker": chiefs}[kind] + int(index)
        if not 0 <= rank < chiefs + workers or cluster.keys() - {"chief", "worker"}:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"The environment variable TF_CONFIG is {brief(given)}; expected is "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, with an index of its own '
            "for each process."
        ) from None
    return rank, chiefs + workers


def number_of_processes(backend: str) -> int:
    """How many share the steps of that backend, by the environment.

    Raises:
        ConfigError: the environment is not what a launcher sets, or the backend does not share steps.
    """
    launched = launched_processes()
    if backend == "torch":
        return launched
    if launched > 1:
        own = "of tensorflow are named by TF_CONFIG" if backend == "tensorflow" else f"of {backend} cannot be shared"
        raise ConfigError(f"torchrun's processes share the steps of the backend torch; those {own}.")
    return tensorflow_cluster()[1] if backend == "tensorflow" else 1


@contextmanager
def joined(backend: str) -> Iterator[ProcessGroup]:
    """This process among those that share the run; alone where there is no other. The backend is installed.

    Raises:
        ConfigError: as `number_of_processes`.
        ProcessLostError: the others cannot be reached.
    """
    if number_of_processes(backend) == 1:
        yield SingleProcess()
        return
    with importlib.import_module(_MODULES[backend]).joined() as group:
        yield group
