"""Starting or joining a Ray, how its CPUs and GPUs are shared among runs, and the executor whose requests are Ray tasks."""

import hashlib
import logging
import math
import os
import re
import signal
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass import hub
from isinglass.config.settings import ClusterSettings
from isinglass.errors import ConfigError, DataError, MissingDependencyError, RunFailedError, StorageError
from isinglass.executors.messages import Answer, Failed, Message, Request, Started
from isinglass.executors.ray.task import Bundle, FileStore, Job, Mailbox, perform_job, put_in_place, remove_checkpoints
from isinglass.executors.training import is_url, open_file_system
from isinglass.training.checkpoints import Interval

logger = logging.getLogger(__name__)

LOCAL: Final = "local"
CONNECT_SECONDS: Final = 5.0
MOST_JOINS: Final = 3  # attempts at a cluster that answers but does not accept a client
EXPECTED: Final = "`ray` (a local one, or the one that RAY_ADDRESS names) or ray://HOST:PORT (Ray's client) was expected"
MOST_ATTEMPTS: Final = 5  # at one run, before it is given up because it may be what its nodes die of
POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 2.0
REMOVE_SECONDS: Final = 60.0  # on a busy machine Ray may first have to start a process that removes checkpoints


@dataclass(frozen=True)
class Shares:
    """CPUs and GPUs of each run, and the number of runs that have room at the same time."""

    cpus: int
    gpus: float
    at_once: int

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU(s)" if self.gpus else ""
        return f"{self.at_once} run(s) at a time, each with {self.cpus} CPU(s){gpus}"


class RayExecutor:
    """An executor whose requests are Ray tasks. A task whose node or process is lost is submitted again.

    Args:
        ray: the module, connected to a cluster.
        directory: where the files of the workers are put.
        storage: where checkpoints lie; None: none are written.
        checkpoint_every: an interval as `Interval.parse` takes it.
        summary: the cluster and its resources in one line.
    """

    capacity = math.inf  # Ray queues what does not fit, and some clusters grow by what is queued

    def __init__(
        self, ray: Any, directory: Path, shares: Shares, *, storage: str | None, checkpoint_every: str, summary: str
    ) -> None:
        self.at_once = shares.at_once
        self.summary = summary
        self._ray = ray
        self._directory = directory
        self._threads = shares.cpus
        self._storage = storage
        self._checkpoint_every = checkpoint_every
        # the mailbox must not be on a node that can be lost while the driver lives
        beside_driver = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._mailbox = ray.remote(num_cpus=0, scheduling_strategy=beside_driver)(Mailbox).remote()
        self._perform = ray.remote(num_cpus=shares.cpus, num_gpus=shares.gpus, max_retries=0)(perform_job)
        self._remove = ray.remote(num_cpus=0, max_retries=0)(remove_checkpoints)
        self._store = FileStore(ray.put)
        self._pending: dict[Any, Job] = {}  # by Ray's reference to the task
        self._messages: deque[tuple[str, Message, str | None]] = deque()  # name, message, checkpoints that it ends
        self._obsolete: list[str] = []  # checkpoints of runs whose answer the caller has, but may not have recorded yet

    def submit(self, name: str, request: Request) -> None:
        """Take a request on. Ray starts it when and where it has the CPUs and GPUs."""
        bundles: dict[str, Bundle] = {}
        changes: dict[str, Any] = {"runs": tuple(self._store.pack(inputs, bundles) for inputs in request.runs)}
        if self._storage is not None:
            # other data, or another model, must not continue from these checkpoints
            digest = hashlib.blake2b("".join(sorted(bundles)).encode(), digest_size=4).hexdigest()
            changes |= {"checkpoints": f"{self._storage}/{name}-{digest}", "checkpoint_every": self._checkpoint_every}
        job = Job(
            name=name,
            request=request.model_copy(update=changes),
            bundles=tuple(bundles.values()),
            shared_files={f"tasks/{path.name}": path.read_bytes() for path in self._directory.glob("tasks/*.json")},
            threads=self._threads,
        )
        self._start(job)

    def stop(self, name: str) -> None:
        """End a request. Messages of it that `wait` still returns mean nothing; the last one will be `Failed`."""
        for task, job in self._pending.items():
            if job.name == name:
                job.is_stopped = True
                self._ray.cancel(task)

    def wait(self) -> tuple[str, Message]:
        """Return the next message of any request, with the request's name. Lost tasks are submitted again.

        Before an answer is returned, the worker's files lie in the executor's directory.
        """
        for checkpoints in self._obsolete:  # a caller that waits for more has recorded what it got
            self._remove.remote(checkpoints)
        self._obsolete.clear()
        try:
            while not self._messages:
                self._poll()
        except (self._ray.exceptions.RaySystemError, self._ray.exceptions.RayActorError, ConnectionError) as error:
            reason = first_line(error)
            raise RunFailedError(f"The connection to Ray was lost ({reason}): the same command continues.") from error
        name, message, obsolete = self._messages.popleft()
        if obsolete is not None:
            self._obsolete.append(obsolete)
        return name, message

    def close(self) -> None:
        """End all that is pending."""
        for job in self._pending.values():
            self.stop(job.name)
        running = [*self._pending]
        if running:  # a cancelled task ends at its next message, and leaves nothing
            _, running = self._ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)
        for task in running:
            self._ray.cancel(task, force=True)
        self._ray.get([self._remove.remote(path) for path in self._obsolete], timeout=REMOVE_SECONDS)

    def _start(self, job: Job) -> None:
        contents = [self._store.references[bundle.digest] for bundle in job.bundles]
        self._pending[self._perform.remote(job, self._mailbox, *contents)] = job

    def _poll(self) -> None:
        """Collect the updates of all tasks, and the outcome of those that have ended."""
        ended, _ = self._ray.wait([*self._pending], timeout=POLL_SECONDS)
        by_attempt = {(job.name, job.attempt): job for job in self._pending.values()}
        for name, attempt, message in self._ray.get(self._mailbox.take.remote()):
            job = by_attempt.get((name, attempt))
            if job is not None:
                self._deliver_update(job, message)
        for task in ended:
            self._finish(task)

    def _deliver_update(self, job: Job, message: Message) -> None:
        if isinstance(message, Started) and job.has_started:  # by an earlier attempt
            return
        job.has_started = True
        self._messages.append((job.name, message, None))

    def _finish(self, task: Any) -> None:
        """Deliver the outcome of a task that has ended, or submit the task again if it was lost."""
        job = self._pending.pop(task)
        answer, files, loss = self._outcome(task)
        if loss is not None and job.attempt < MOST_ATTEMPTS and not job.is_stopped:
            again = replace(job, attempt=job.attempt + 1)
            attempts = f"attempt {again.attempt} of {MOST_ATTEMPTS}"
            logger.warning(f"{job.name} was lost with its process or node ({loss}): it is resumed, {attempts}.")
            self._start(again)
            return
        try:
            put_in_place(self._directory, files, failed=isinstance(answer, Failed))
        except DataError as error:
            answer = Failed(error=str(error))
        except OSError as error:
            reason = f"{self._directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        self._deliver_update(job, Started())
        # the same command continues a lost run from its checkpoints
        obsolete = job.request.checkpoints if loss is None else None
        self._messages.append((job.name, answer, obsolete))

    def _outcome(self, task: Any) -> tuple[Answer, dict[str, bytes], str | None]:
        """Return the answer and the files of a task that has ended and, if its node or process was lost, how."""
        exceptions = self._ray.exceptions
        try:
            answer, files = self._ray.get(task)
        except exceptions.RayTaskError as error:
            return Failed(error=f"the run's task failed: {first_line(error.cause)}"), {}, None
        except exceptions.TaskCancelledError:
            return Failed(error="the run was ended"), {}, None
        except exceptions.RayError as error:
            loss = f"{type(error).__name__}: {first_line(error)}"
            return Failed(error=f"the run's node or process was lost ({loss})"), {}, loss
        is_killed = isinstance(answer, Failed) and answer.signal is not None
        return answer, files, answer.error if is_killed else None


@contextmanager
def connected(options: ClusterSettings, directory: Path) -> Iterator[RayExecutor]:
    """Start or join a Ray, and yield its executor. At the end of the block all that is pending is ended.

    Args:
        directory: where files of the runs are put and, by default, their checkpoints.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the address, the resources or the storage cannot be used.
    """
    assert options.on is not None
    address = options.on
    if address == "ray":
        address = os.environ.get("RAY_ADDRESS") or LOCAL
    elif not re.fullmatch(r"ray://[^\s/]+:\d{1,5}", address):
        raise ConfigError(f"--on is {address!r}; {EXPECTED}.")
    storage = _storage(options, address, directory)
    ray = _join(address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        shares = share_nodes(nodes, options.cpus_per_run, options.gpus_per_run)
        cluster = "a local one" if address == LOCAL else f"{address}, {len(nodes)} node(s)"
        executor = RayExecutor(
            ray,
            directory,
            shares,
            storage=storage,
            checkpoint_every=options.checkpoint_every,
            summary=f"Ray: {cluster}; {shares}.",
        )
        try:
            yield executor
        finally:
            with suppress(Exception):  # the connection itself may be lost
                executor.close()
    finally:
        ray.shutdown()


def _storage(options: ClusterSettings, address: str, directory: Path) -> str | None:
    """Return the directory or URL of all checkpoints; None: none are written."""
    Interval.parse(options.checkpoint_every)
    storage = options.storage
    if storage is None and address != LOCAL and options.checkpoint_every != "never":
        raise ConfigError(
            "A run whose node is lost continues from checkpoints that every node sees: name a shared directory, or a URL, "
            "with --storage, or give them up with --checkpoint-every never."
        )
    if storage is None:
        storage = str((directory / "checkpoints").absolute())
    elif is_url(storage):
        open_file_system(storage)  # a mistake is found here
    else:
        storage = str(Path(storage).absolute())
    return None if options.checkpoint_every == "never" else storage


def _join(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--on ray needs Ray, which is not installed: `pip install 'isinglass[ray]'`.") from None
    _check_reachable(address)
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    handler = signal.getsignal(signal.SIGTERM)
    for attempt in range(1, MOST_JOINS + 1):
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
            break
        except Exception as error:  # noqa: BLE001  # Ray raises RuntimeError, ValueError, gRPC's errors ...
            ray.shutdown()
            reason = f"Ray at {address} could not be joined ({first_line(error)})"
            if not isinstance(error, ConnectionAbortedError) or attempt == MOST_JOINS:
                raise ConfigError(f"{reason}; {EXPECTED}.") from None
            # a busy head node takes longer to start a client's process than Ray waits
            logger.warning(f"{reason}: trying again.")
        finally:
            signal.signal(signal.SIGTERM, handler)  # Ray installs its own
    return ray


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d+)", address)
    if parts is None:
        return
    try:
        socket.create_connection((parts[1], int(parts[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"There is no Ray at {address} ({error}); {EXPECTED}.") from None


def share_nodes(resources: Sequence[Mapping[str, float]], cpus: int | None, gpus: float | None) -> Shares:
    """Divide the nodes of a cluster among runs.

    By default a run has one GPU if any node has GPUs, and its share of the CPUs of the smallest node that fits: the CPUs of
    a node are divided among the runs that its GPUs have room for. Without GPUs each node performs one run at a time.

    Args:
        resources: Ray's `CPU` and `GPU` of each node.
        cpus: CPUs of each run; None: as above.
        gpus: GPUs of each run, below 1 for a share of one; None: as above.

    Raises:
        ConfigError: no node has room for one run.
    """
    # each array has one element for each node
    node_cpus = np.array([node.get("CPU", 0.0) for node in resources])
    node_gpus = np.array([node.get("GPU", 0.0) for node in resources])
    if gpus is None:
        gpus = float((node_gpus >= 1).any())
    is_share = 0 <= gpus <= 1
    if not is_share and not (gpus > 1 and float(gpus).is_integer()):
        raise ConfigError(f"--gpus-per-run is {gpus:g}; a share of one, or a whole number, was expected.")
    runs_by_gpus = np.floor(node_gpus / gpus + 1e-9) if gpus else np.full(len(node_gpus), np.inf)
    fits = (node_cpus >= (cpus or 1)) & (runs_by_gpus >= 1)
    if not fits.any():
        existing = [f"{node_cpu:g} CPUs and {node_gpu:g} GPUs" for node_cpu, node_gpu in zip(node_cpus, node_gpus)]
        raise ConfigError(
            f"A run needs {cpus or 1} CPU(s) and {gpus:g} GPU(s), which no node has (there are: "
            f"{', '.join(existing) or 'nothing'}): give it less by --cpus-per-run or --gpus-per-run."
        )
    node_cpus, runs_by_gpus = node_cpus[fits], runs_by_gpus[fits]
    if cpus is None:
        cpus = max(1, int((node_cpus // (runs_by_gpus if gpus else 1)).min()))
    at_once = np.minimum(node_cpus // cpus, runs_by_gpus).sum()
    return Shares(cpus, gpus, int(at_once))


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, with the last line if the first one announces it."""
    text = hub.reason(error)
    *more, last_line = str(error).strip().splitlines() or [""]
    return f"{text} {last_line.strip().rstrip('.')}" if more and text.endswith(":") else text
