"""Processes that `torchrun` started: gradients are averaged by DistributedDataParallel, while the backward pass goes on."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from isinglass.backends.torch.model import Classifier
from isinglass.errors import ConfigError, ProcessLostError

LONGEST_WAIT: Final = timedelta(hours=2)  # others wait while process 0 tokenizes
_SPEAKING: Final = timedelta(seconds=5)


class TorchProcessGroup:
    """See `backends.process_group.ProcessGroup`: NCCL between GPUs, Gloo between hosts' memories."""

    has_launcher = True

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size = rank, size
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        self._store = store

    def gather(self, values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """See ProcessGroup."""
        return [part.numpy() for part in self._gathered(torch.from_numpy(np.array(values, order="C")))]

    def wait(self) -> None:
        """See ProcessGroup."""
        self.gather(np.zeros(1, np.int64))

    def speaks(self) -> bool:
        """See ProcessGroup."""
        with suppress(RuntimeError):  # the store's host may be what has died
            self._store.set_timeout(_SPEAKING)
            return bool(self._store.add("spoke", 1) == 1)
        return True

    def replicate(self, model: Classifier) -> DistributedDataParallel:
        """The model whose backward pass leaves in every process the mean of all processes' gradients.

        Not of the word embedding's: of its rows only those of the step's tokens are, by `average_rows`. All begin with the
        weights of process 0.
        """
        trained = model.word.requires_grad
        model.word.requires_grad_(False)  # it looks at construction which parameters it is to wait for
        replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
        model.word.requires_grad_(trained)
        return replica

    def average_rows(self, table: Tensor, ids: np.ndarray[Any, Any]) -> list[Tensor]:
        """Replace the rows of `table` that any process has touched by their mean over all processes; the others are zero.

        Args:
            table: the same shape everywhere.
            ids: int64 (n,), the rows that this process touched, each once.

        Returns:
            The rows that each process touched, by rank.
        """
        counts = [int(count[0]) for count in self.gather(np.array([len(ids)], np.int64))]
        padded = np.zeros(max(counts), np.int64)
        padded[: len(ids)] = ids
        touched = [torch.from_numpy(part[:n]).to(table.device) for part, n in zip(self.gather(padded), counts, strict=True)]
        own = touched[self.rank]
        rows = table.new_zeros(max(counts), table.shape[1])
        rows[: len(own)] = table[own] / self.size
        table.index_fill_(0, own, 0)
        for rank, part in enumerate(self._gathered(rows)):  # in this order everywhere: the same sums, bit for bit
            table.index_add_(0, touched[rank], part[: len(touched[rank])])
        return touched

    def average(self, value: Tensor) -> None:
        """Replace the value by its mean over all processes."""
        with others_present():
            dist.all_reduce(value)
        value /= self.size

    def _gathered(self, values: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with others_present():
            dist.all_gather(parts, values)
        return parts


@contextmanager
def averaging(replica: DistributedDataParallel, *, is_last: bool) -> Iterator[None]:
    """Average the gradients of all processes in the passes of the last micro-batch of a step; before it only add them up."""
    with others_present(), nullcontext() if is_last else replica.no_sync():
        yield


@contextmanager
def others_present() -> Iterator[None]:
    """Turn PyTorch's ways to say that a process is gone into a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if not isinstance(error, dist.DistError) and "gloo" not in said and "NCCL" not in said:
            raise
        reason = said.split("\n")[0].rpartition("] ")[2].split(". ")[0][:200]
        raise ProcessLostError(
            f"Another process of this run has ended or cannot be reached ({reason}); the last checkpoint stays: go on from "
            f"it by the same command with --resume."
        ) from error


def _roll_call(store: Any, rank: int, size: int) -> str:
    """A name for this start of the processes, which all of them know and no earlier start had.

    torchrun keeps its store over restarts, with the addresses of the dead in it (PyTorch 2.13): each start needs keys of
    its own. Process 0 lists who has called, until each has found itself in the list; a dead one's call is overwritten by
    that of the process which took its place.
    """
    own = secrets.token_hex(8)
    deadline = time.monotonic() + LONGEST_WAIT.total_seconds()
    store.set(f"call-{rank}", own)
    listed: list[str] = []
    while time.monotonic() < deadline:
        if rank == 0:
            keys = [f"call-{other}" for other in range(size)]
            if store.check(keys):
                calls = [store.get(key).decode() for key in keys]
                if calls != listed:
                    store.set("list", " ".join(calls))
                    listed = calls
                if store.add(f"present-{own}", 0) == size - 1:
                    return own
        elif store.check(["list"]):
            leader, *others = store.get("list").decode().split()
            if own in others:
                store.add(f"present-{leader}", 1)
                return str(leader)
        time.sleep(0.05)
    raise RuntimeError(f"{size} processes were to begin together, and not all did within {LONGEST_WAIT}")


@contextmanager
def joined() -> Iterator[TorchProcessGroup]:
    """Meet the others that `torchrun` started.

    Raises:
        ConfigError: there are fewer GPUs than processes on this host.
        ProcessLostError: they cannot be reached.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
    backend = "gloo"
    if torch.cuda.is_available():
        if here > torch.cuda.device_count():  # the same in all of them: the first one on the host tells
            raise ConfigError(
                f"{here} processes on this host are to share {torch.cuda.device_count()} GPUs, one each: give torchrun "
                f"--nproc-per-node {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    try:
        shared, rank, size = next(rendezvous("env://", timeout=LONGEST_WAIT))
        store = PrefixStore(_roll_call(shared, rank, size), shared)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise ProcessLostError(f"The other processes of this run cannot be reached ({error}).") from error
    try:
        yield TorchProcessGroup(rank, size, store)
    finally:
        dist.destroy_process_group()
