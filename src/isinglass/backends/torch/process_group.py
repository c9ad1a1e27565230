"""Processes that `torchrun` started. DistributedDataParallel averages their gradients during the backward pass."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.torch.model import Classifier
from isinglass.errors import ConfigError, ProcessLostError

LONGEST_WAIT: Final = timedelta(hours=2)  # for other processes: they wait while process 0 tokenizes
_STORE_TIMEOUT: Final = timedelta(seconds=5)


class TorchProcessGroup(ProcessGroup):
    """See `backends.process_group.ProcessGroup`: NCCL between GPUs, Gloo between hosts' memories."""

    has_launcher = True

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank, self.size = rank, size
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        self._store = store

    def gather(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """See ProcessGroup."""
        return [part.numpy() for part in self._gathered(torch.tensor(values).contiguous())]

    def speaks(self) -> bool:
        """See ProcessGroup."""
        with suppress(RuntimeError):  # the host of the store may have died
            self._store.set_timeout(_STORE_TIMEOUT)
            return bool(self._store.add("spoke", 1) == 1)
        return True

    def replicate(self, model: Classifier) -> DistributedDataParallel:
        """Return the model with a backward pass that leaves the mean of all processes' gradients in every process.

        It leaves out the word embedding, of which only the rows of the step's tokens are averaged, by `average_rows`. All
        processes get the weights of process 0.
        """
        trained = model.word.requires_grad
        model.word.requires_grad_(False)  # at construction DistributedDataParallel notes what it has to average
        replica = DistributedDataParallel(model, gradient_as_bucket_view=True)
        model.word.requires_grad_(trained)
        return replica

    def average_rows(self, table: Tensor, ids: Tensor) -> list[Tensor]:
        """Replace the rows of `table` that any process has written by their mean over all processes; the others are zero.

        Args:
            table: of the same shape in all processes.
            ids: int64 (n,), numbers of the rows that this process has written, without repetitions.

        Returns:
            The numbers of the rows that each process has written, by rank.
        """
        counts = [int(count) for count in self._gathered(torch.tensor(len(ids)))]
        missing = max(counts) - len(ids)
        written = [part[:n] for part, n in zip(self._gathered(F.pad(ids, (0, missing))), counts, strict=True)]
        rows = self._gathered(F.pad(table[ids] / self.size, (0, 0, 0, missing)))
        table.index_fill_(0, ids, 0)
        for token_ids, part in zip(written, rows, strict=True):  # in the same order, and so with the same bits, everywhere
            table.index_add_(0, token_ids, part[: len(token_ids)])
        return written

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
def averaging(replica: DistributedDataParallel | None, *, is_last: bool) -> Iterator[None]:
    """Average the gradients of all processes in the passes of a step's last micro-batch. Before it only add them up.

    Without a replica this process is alone, and nothing is done.
    """
    if replica is None:
        yield
        return
    with others_present(), nullcontext() if is_last else replica.no_sync():
        yield


@contextmanager
def others_present() -> Iterator[None]:
    """Turn PyTorch's errors about processes that have ended into a ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not isinstance(error, dist.DistError) and "gloo" not in message and "NCCL" not in message:
            raise
        reason = message.split("\n")[0].rpartition("] ")[2].split(". ")[0][:200]
        raise ProcessLostError(
            f"Another process of this run has ended or cannot be reached ({reason}); the last checkpoint stays: "
            f"continue from it by the same command with --resume."
        ) from error


def _roll_call(store: Any, rank: int, size: int) -> str:
    """Return a name for this start of the processes: the same in all of them, and different from that of earlier starts.

    torchrun keeps its store over restarts, with the addresses of dead processes in it (PyTorch 2.13), so that each start
    needs keys of its own. Every process calls with a random name. Process 0 lists the calls until each process has found
    itself in the list. The call of a dead process is overwritten by the one that replaces it.

    Raises:
        RuntimeError: a process is missing after LONGEST_WAIT.
    """
    own = secrets.token_hex(8)
    deadline = time.monotonic() + LONGEST_WAIT.total_seconds()
    store.set(f"call-{rank}", own)
    keys = [f"call-{other}" for other in range(size)]
    while time.monotonic() < deadline:
        if rank == 0:
            if store.check(keys):
                store.set("list", " ".join(store.get(key).decode() for key in keys))
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
    """Join the other processes that `torchrun` started.

    Raises:
        ConfigError: there are fewer GPUs than processes on this host.
        ProcessLostError: the other processes cannot be reached.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    processes_on_host = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
    backend = "gloo"
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if processes_on_host > gpus:  # all processes of the host find this out
            raise ConfigError(
                f"{processes_on_host} processes on this host are to share {gpus} GPUs, one each: give torchrun "
                f"--nproc-per-node {gpus}."
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
