"""The executor whose requests are Ray tasks."""

import hashlib
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from isinglass.errors import DataError, RunFailedError, StorageError
from isinglass.executors.messages import Answer, Failed, Message, Request, Started
from isinglass.executors.ray.files import Bundle, FileStore, put_in_place
from isinglass.executors.ray.task import Job, Mailbox, perform_job, remove_checkpoints

logger = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 5  # at one run, before it is given up because it may be what its nodes die of
POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 2.0
REMOVE_SECONDS: Final = 60.0  # on a busy machine Ray may first have to start a process that removes checkpoints


@dataclass
class PendingTask:
    """A request under way.

    Attributes:
        has_started: whether the caller was told that its worker started.
        is_stopped: whether the caller has ended it.
    """

    job: Job
    has_started: bool = False
    is_stopped: bool = False


class RayExecutor:
    """An executor whose requests are Ray tasks. A task whose node or process is lost is submitted again.

    Args:
        ray: the module, connected to a cluster.
        directory: where the files of the workers are put.
        cpus, gpus: of each run.
        at_once: number of runs that the cluster has room for now.
        storage: where checkpoints lie; None: none are written.
        checkpoint_every: an interval as `Interval.parse` takes it.
        summary: the cluster and its resources in one line.
    """

    capacity = math.inf  # Ray queues what does not fit, and some clusters grow by what is queued

    def __init__(
        self,
        ray: Any,
        directory: Path,
        *,
        cpus: int,
        gpus: float,
        at_once: int,
        storage: str | None,
        checkpoint_every: str,
        summary: str,
    ) -> None:
        self.at_once = at_once
        self.summary = summary
        self._ray = ray
        self._directory = directory
        self._threads = cpus
        self._storage = storage
        self._checkpoint_every = checkpoint_every
        # the mailbox must not be on a node that can be lost while the driver lives
        beside_driver = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._mailbox = ray.remote(num_cpus=0, scheduling_strategy=beside_driver)(Mailbox).remote()
        self._perform = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(perform_job)
        self._remove = ray.remote(num_cpus=0, max_retries=0)(remove_checkpoints)
        self._store = FileStore(ray.put)
        self._pending: dict[Any, PendingTask] = {}  # by Ray's reference to the task
        self._messages: deque[tuple[str, Message, str | None]] = deque()  # name, message, checkpoints that it ends
        self._obsolete: list[str] = []  # checkpoints of runs whose answer the caller has, but may not have recorded yet

    def submit(self, name: str, request: Request) -> None:
        """Take a request on. Ray starts it when and where it has the CPUs and GPUs."""
        bundles: dict[str, Bundle] = {}
        request = replace(request, runs=tuple(self._store.pack(inputs, bundles) for inputs in request.runs))
        if self._storage is not None:
            # other data, or another model, must not continue from these checkpoints
            digest = hashlib.blake2b("".join(sorted(bundles)).encode(), digest_size=4).hexdigest()
            path = f"{self._storage}/{name}-{digest}"
            request = replace(request, checkpoints=path, checkpoint_every=self._checkpoint_every)
        job = Job(
            name=name,
            attempt=1,
            request=request,
            bundles=tuple(bundles.values()),
            shared_files={f"tasks/{path.name}": path.read_bytes() for path in self._directory.glob("tasks/*.json")},
            threads=self._threads,
            version=version("isinglass"),
        )
        self._start(PendingTask(job))

    def stop(self, name: str) -> None:
        """End a request. Messages of it that `wait` still returns mean nothing; the last one will be `Failed`."""
        for task, pending in self._pending.items():
            if pending.job.name == name:
                pending.is_stopped = True
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

    def end(self) -> None:
        """End all that is pending."""
        deadline = time.monotonic() + STOP_SECONDS
        for pending in self._pending.values():
            self.stop(pending.job.name)
        running = [*self._pending]
        while running and time.monotonic() < deadline:  # a cancelled task ends at its next message, and leaves nothing
            _, running = self._ray.wait(running, timeout=POLL_SECONDS)
        for task in running:
            self._ray.cancel(task, force=True)
        self._ray.get([self._remove.remote(path) for path in self._obsolete], timeout=REMOVE_SECONDS)

    def _start(self, pending: PendingTask) -> None:
        contents = [self._store.references[bundle.digest] for bundle in pending.job.bundles]
        self._pending[self._perform.remote(pending.job, self._mailbox, *contents)] = pending

    def _poll(self) -> None:
        """Collect the updates of all tasks, and the outcome of those that have ended."""
        ended, _ = self._ray.wait([*self._pending], timeout=POLL_SECONDS)
        by_attempt = {(pending.job.name, pending.job.attempt): pending for pending in self._pending.values()}
        for name, attempt, message in self._ray.get(self._mailbox.take.remote()):
            pending = by_attempt.get((name, attempt))
            if pending is not None:
                self._deliver_update(pending, message)
        for task in ended:
            self._finish(task)

    def _deliver_update(self, pending: PendingTask, message: Message) -> None:
        if isinstance(message, Started):
            if pending.has_started:  # by an earlier attempt
                return
            pending.has_started = True
        self._messages.append((pending.job.name, message, None))

    def _finish(self, task: Any) -> None:
        """Deliver the outcome of a task that has ended, or submit the task again if it was lost."""
        pending = self._pending.pop(task)
        job = pending.job
        answer, files, loss = self._outcome(task)
        if loss is not None and job.attempt < MOST_ATTEMPTS and not pending.is_stopped:
            logger.warning(
                f"{job.name} was lost with its process or node ({loss}): it is resumed, attempt {job.attempt + 1} of "
                f"{MOST_ATTEMPTS}."
            )
            self._start(replace(pending, job=replace(job, attempt=job.attempt + 1)))
            return
        try:
            put_in_place(self._directory, files, failed=isinstance(answer, Failed))
        except DataError as error:
            answer = Failed(error=str(error))
        except OSError as error:
            reason = f"{self._directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        self._deliver_update(pending, Started())
        # the same command continues a lost run from its checkpoints
        self._messages.append((job.name, answer, job.request.checkpoints if loss is None else None))

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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the last line if the first one announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announces = len(lines) > 1 and lines[0].endswith(":")
    text = f"{lines[0]} {lines[-1]}" if announces else lines[0]
    return text.rstrip(".") or type(error).__name__
