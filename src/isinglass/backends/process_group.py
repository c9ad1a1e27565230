"""The processes that share each training step. Environment variables tell which of them this is."""

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isinglass.errors import ConfigError
from isinglass.names import brief

_ALONE: Final = '{"cluster": {"worker": [""]}, "task": {"type": "worker", "index": 0}}'


class ProcessGroup:
    """All processes of a run: here the one of a run by itself; subclasses join several.

    They call the same methods in the same order, and wait for each other in each. Each method of several processes raises
    ProcessLostError where another one has ended, or cannot be reached.

    Attributes:
        rank: number of this process, from 0. Only process 0 writes and prints.
        size: number of processes.
        restarted: whether the launcher has started all processes again, because one had died.
        has_launcher: whether a launcher started them: it passes signals on, and shows what each process prints.
    """

    rank = 0
    size = 1
    restarted = False
    has_launcher = False

    def gather(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the values of each process, by rank: arrays of one shape and dtype (int64, float32, float64 or uint8)."""
        return [values]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.gather(np.zeros(1, np.int64))

    def speaks(self) -> bool:
        """Return whether this process is the first to call this: only one tells the user what failed. Waits for none."""
        return True

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the largest of each value over all processes, so that all of them decide alike."""
        return tuple(int(value) for value in np.max(self.gather(np.array(values, np.int64)), axis=0))

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let process 0 run the block first, and then all others, which find in a cache what it left there."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()


def launched_processes() -> int:
    """Return the number of processes that `torchrun` started.

    Raises:
        ConfigError: WORLD_SIZE is not a number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f"The environment variable WORLD_SIZE is {size!r}; torchrun sets it to the number of processes.")
    return int(size)


def tensorflow_cluster() -> tuple[int, int]:
    """Return rank and number of processes by TF_CONFIG: the chief, if there is one, comes before the workers.

    Raises:
        ConfigError: TF_CONFIG is not what TensorFlow expects.
    """
    text = os.environ.get("TF_CONFIG") or _ALONE
    try:
        config = json.loads(text)
        cluster, kind, index = config["cluster"], config["task"]["type"], config["task"]["index"]
        chiefs, workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
        rank = {"chief": 0, "worker": chiefs}[kind] + int(index)
        if not 0 <= rank < chiefs + workers or cluster.keys() - {"chief", "worker"}:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"The environment variable TF_CONFIG is {brief(text)}; expected is "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, with an index of its own '
            "for each process."
        ) from None
    return rank, chiefs + workers


def number_of_processes(backend: str) -> int:
    """Return the number of processes that share the steps of a backend, by the environment variables.

    Raises:
        ConfigError: the variables are not what a launcher sets, or the backend does not share steps.
    """
    launched = launched_processes()
    if backend == "torch":
        return launched
    if launched > 1:
        own = "of tensorflow are named by TF_CONFIG" if backend == "tensorflow" else f"of {backend} cannot be shared"
        raise ConfigError(f"torchrun's processes share the steps of the backend torch; those {own}.")
    _, size = tensorflow_cluster() if backend == "tensorflow" else (0, 1)
    return size


def joined(backend: str) -> AbstractContextManager[ProcessGroup]:
    """Return a context that joins the other processes of the run, if there are any. The backend must be installed.

    Raises:
        ConfigError: as in `number_of_processes`.
        ProcessLostError: the other processes cannot be reached.
    """
    if number_of_processes(backend) == 1:
        return nullcontext(ProcessGroup())
    folder = "torch" if backend == "torch" else "keras"
    module = importlib.import_module(f"isinglass.backends.{folder}.process_group")
    group: AbstractContextManager[ProcessGroup] = module.joined()
    return group
