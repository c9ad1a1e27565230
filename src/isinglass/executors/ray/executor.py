"""The executor whose requests are Ray tasks."""

import hashlib
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from isinglass.errors import DataError, RunFailedError, StorageError
from isinglass.executors.messages import Answer, CheckpointLocation, Failed, Message, Request, Started, TrainingRequest
from isinglass.executors.ray.files import FileStore, Packer, put_in_place
from isinglass.executors.ray.resources import Shares
from isinglass.executors.ray.task import Job, Mailbox, Outcome, perform_job, remove_checkpoints

logger = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 5  # at one run, before it is given up because it may be what its nodes die of
POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 2.0
REMOVE_SECONDS: Final = 60.0  # on a busy machine Ray may first have to start a process that removes checkpoints


@dataclass
class PendingTask:
    """A request under way.

    Attributes:
        checkpoints: where its checkpoints lie until they are not needed; None: it has none.
        has_started: whether the caller was told that its worker started.
        is_stopped: whether the caller has ended it.
    """

    job: Job
    checkpoints: str | None
    has_started: bool = False
    is_stopped: bool = False


class RayExecutor:
    """An executor whose requests are Ray tasks. A task whose node or process is lost is submitted again.

    Args:
        ray: the module, connected to a cluster.
        directory: where the files of the workers are put.
        storage: where checkpoints lie; None: none are written.
        checkpoint_every: an interval as `Interval.parse` takes it.
        summary: the cluster and its resources in one line.
    """

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
        self._pending: dict[Any, PendingTask] = {}  # by Ray's reference to the task
        self._messages: deque[tuple[PendingTask, Message]] = deque()
        self._obsolete: list[str] = []  # checkpoints of runs whose answer the caller has, but may not have recorded yet

    def has_room(self) -> bool:
        """Return True: Ray queues what does not fit, and some clusters grow by what is queued."""
        return True

    def submit(self, name: str, request: Request) -> None:
        """Take a request on. Ray starts it when and where it has the CPUs and GPUs."""
        packer = Packer(self._store)
        request = request.relocate(packer.pack)
        checkpoints = None
        if isinstance(request, TrainingRequest) and self._storage is not None:
            # other data, or another model, must not continue from these checkpoints
            digest = hashlib.blake2b("".join(sorted(packer.bundles)).encode(), digest_size=4).hexdigest()
            checkpoints = f"{self._storage}/{name}-{digest}"
            request = replace(request, checkpoints=CheckpointLocation(path=checkpoints, every=self._checkpoint_every))
        job = Job(
            name=name,
            attempt=1,
            request=request,
            bundles=tuple(packer.bundles.values()),
            shared_files={f"tasks/{path.name}": path.read_bytes() for path in self._directory.glob("tasks/*.json")},
            threads=self._threads,
            version=version("isinglass"),
        )
        self._start(PendingTask(job, checkpoints))

    def stop(self, name: str) -> None:
        """End a run. Its last message will be `Failed`."""
        for task, pending in self._pending.items():
            if pending.job.name == name:
                pending.is_stopped = True
                self._ray.cancel(task)

    def wait(self) -> tuple[str, Message]:
        """Return the next message. Until it comes, lost tasks are submitted again."""
        for checkpoints in self._obsolete:  # a caller that waits for more has recorded what it got
            self._remove.remote(checkpoints)
        self._obsolete.clear()
        try:
            while not self._messages:
                self._poll()
        except (self._ray.exceptions.RaySystemError, self._ray.exceptions.RayActorError, ConnectionError) as error:
            reason = first_line(error)
            raise RunFailedError(f"The connection to Ray was lost ({reason}): the same command continues.") from error
        pending, message = self._messages.popleft()
        if isinstance(message, Answer) and pending.checkpoints is not None:
            self._obsolete.append(pending.checkpoints)
        return pending.job.name, message

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
        contents = [self._store.reference(digest) for digest in pending.job.contents]
        self._pending[self._perform.remote(pending.job, self._mailbox, *contents)] = pending

    def _poll(self) -> None:
        """Collect the updates of all tasks, and the outcome of those that have ended."""
        ended, _ = self._ray.wait([*self._pending], timeout=POLL_SECONDS)
        by_attempt = {(pending.job.name, pending.job.attempt): pending for pending in self._pending.values()}
        for update in self._ray.get(self._mailbox.take.remote()):
            pending = by_attempt.get((update.name, update.attempt))
            if pending is not None:
                self._deliver_update(pending, update.message)
        for task in ended:
            self._finish(task)

    def _deliver_update(self, pending: PendingTask, message: Message) -> None:
        if isinstance(message, Started):
            if pending.has_started:  # by an earlier attempt
                return
            pending.has_started = True
        self._messages.append((pending, message))

    def _finish(self, task: Any) -> None:
        """Deliver the outcome of a task that has ended, or submit the task again if it was lost."""
        pending = self._pending.pop(task)
        outcome, loss = self._outcome(task)
        job = pending.job
        if loss is not None and job.attempt < MOST_ATTEMPTS and not pending.is_stopped:
            logger.warning(
                f"{job.name} was lost with its process or node ({loss}): it is resumed, attempt {job.attempt + 1} of "
                f"{MOST_ATTEMPTS}."
            )
            self._start(replace(pending, job=replace(job, attempt=job.attempt + 1)))
            return
        answer = self._put_in_place(outcome)
        if loss is not None:
            pending.checkpoints = None  # they stay: the same command continues from them
        self._deliver_update(pending, Started())
        self._messages.append((pending, answer))

    def _outcome(self, task: Any) -> tuple[Outcome, str | None]:
        """Return the outcome of a task that has ended and, if its node or process was lost, how."""
        exceptions = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(task)
        except exceptions.RayTaskError as error:
            return Outcome(Failed(error=f"the run's task failed: {first_line(error.cause)}"), {}), None
        except exceptions.TaskCancelledError:
            return Outcome(Failed(error="the run was ended"), {}), None
        except exceptions.RayError as error:
            loss = f"{type(error).__name__}: {first_line(error)}"
            return Outcome(Failed(error=f"the run's node or process was lost ({loss})"), {}), loss
        match outcome.answer:
            case Failed(error=reason, signal=int()):
                return outcome, reason
        return outcome, None

    def _put_in_place(self, outcome: Outcome) -> Message:
        """Write the files of a worker into the bench's directory. Return its answer, or why they were not written."""
        try:
            put_in_place(self._directory, outcome.files, failed=isinstance(outcome.answer, Failed))
        except DataError as error:
            return Failed(error=str(error))
        except OSError as error:
            reason = f"{self._directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        return outcome.answer


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the last line if the first one announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announces = len(lines) > 1 and lines[0].endswith(":")
    text = f"{lines[0]} {lines[-1]}" if announces else lines[0]
    return text.rstrip(".") or type(error).__name__
