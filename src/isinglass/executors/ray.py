"""Runs on a Ray cluster: the one file that imports ray, and only when it is asked to.

    driver                                         a node
    submit  -- request, files by content -->       a Ray task: unpacks files that its cache lacks, starts the run's worker
    wait    <-- messages, by an actor --           what the worker says
            <-- answer and files, as the task's value --
    what the value held is put in place, whole or not at all; the caller records it

A task whose node or process is lost is submitted again, and goes on from its last checkpoint, which lies where all nodes see
it. Only the driver writes in the bench's directory. Nothing that comes as a file is run.
"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from isinglass.data.tables.file import expand
from isinglass.errors import ConfigError, DataError, MissingDependencyError, RunFailedError, StorageError
from isinglass.executors.local import ENDS, Message, ask
from isinglass.executors.stored_checkpoints import file_system
from isinglass.executors.worker import CalibrationRequest, TrainingRequest
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from isinglass.models.source import DEMO, demo_directory
from isinglass.storage import cache_dir, held, replacing, take_place
from isinglass.tasks import TASKS
from isinglass.training.checkpoints import Interval

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 5  # so often a run is begun before it is given up for the nodes that it takes with it
POLL_SECONDS: Final = 0.1
CONNECT_SECONDS: Final = 5.0
JOINS: Final = 3  # attempts, where a cluster answers but does not take a client up
STOP_SECONDS: Final = 2.0
END_SECONDS: Final = 60.0  # a worker that removes checkpoints may have to be started first, on a busy machine
EXPECTED: Final = "`ray` (a local one, or the one that RAY_ADDRESS names) or ray://HOST:PORT (Ray's client) was expected"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to run, and with what.

    Attributes:
        on: `ray` or `ray://HOST:PORT`.
        cpus, gpus: of each run; None: a node's, see `_share`.
        storage: a directory that all nodes see, or an URL, for checkpoints; None: in the bench's directory (a local Ray).
        checkpoint_every: as `Interval.parse` takes it.
    """

    on: str
    cpus: int | None = None
    gpus: float | None = None
    storage: str | None = None
    checkpoint_every: str = "5min"


@dataclass(frozen=True)
class _Bundle:
    """Files that travel together.

    Attributes:
        digest: of names and contents.
        origin: the path here that stands for all of them.
        files: name in the bundle, path here, and digest of the content.
    """

    digest: str
    origin: str
    files: tuple[tuple[str, str, str], ...]

    @property
    def mark(self) -> str:
        """What stands in a request for the directory where a node has them."""
        return f"isinglass-files:{self.digest}"


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a task needs to know; `given`: files of the bench that the run is judged by, which it leaves as they are."""

    name: str
    attempt: int
    module: str
    request: dict[str, Any]
    bundles: tuple[_Bundle, ...]
    given: dict[str, bytes]
    threads: int
    version: str

    @property
    def contents(self) -> list[str]:
        """The digest of each content that it is about, once."""
        return [*dict.fromkeys(digest for bundle in self.bundles for _, _, digest in bundle.files)]


@dataclass
class _Flight:
    job: _Job
    checkpoints: str | None
    started: bool = False
    stopped: bool = False


# ---- the driver --------------------------------------------------------


@contextmanager
def connected(place: Place, directory: Path, module: str = "isinglass.bench.worker") -> Iterator["Cluster"]:
    """Start or join a Ray, and perform runs there until the end of the block, which ends what is still under way.

    Args:
        directory: where files of the runs are put, and by default their checkpoints.
        module: the worker that serves the requests.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the address, the resources or the storage cannot be used.
    """
    Interval.parse(place.checkpoint_every)
    address = _address(place.on)
    if place.storage is not None and "://" in place.storage:
        file_system(place.storage)
    if place.storage is None and address != "local" and place.checkpoint_every != "never":
        raise ConfigError(
            "A run whose node is lost goes on from checkpoints that every node sees: name a shared directory, or an URL, "
            "with --storage, or give them up with --checkpoint-every never."
        )
    ray = _start(address)
    try:
        with _cluster(ray, place, address, directory, module) as cluster:
            yield cluster
    finally:
        ray.shutdown()


def _address(on: str) -> str:
    if on == "ray":
        return os.environ.get("RAY_ADDRESS") or "local"
    if re.fullmatch(r"ray://[^\s/]+:\d{1,5}", on):
        return on
    raise ConfigError(f"--on is {on!r}; {EXPECTED}.")


def _start(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--on ray needs Ray, which is not installed: `pip install 'isinglass[ray]'`.") from None
    if found := re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d+)", address):
        try:  # Ray itself would try for minutes
            socket.create_connection((found[1], int(found[2])), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"There is no Ray at {address} ({error}); {EXPECTED}.") from None
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    handler = signal.getsignal(signal.SIGTERM)
    for tried in range(1, JOINS + 1):
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **own)
            break
        except Exception as error:  # noqa: BLE001  # it raises RuntimeError, ValueError, gRPC's ...
            ray.shutdown()
            why = f"Ray at {address} could not be joined ({_first_line(error)})"
            if not isinstance(error, ConnectionAbortedError) or tried == JOINS:
                raise ConfigError(f"{why}; {EXPECTED}.") from None
            logger.warning(
                f"{why}: trying again."
            )  # a busy head node takes longer to start a client's process than Ray waits
        finally:
            signal.signal(signal.SIGTERM, handler)  # which Ray takes for itself
    return ray


@contextmanager
def _cluster(ray: Any, place: Place, address: str, directory: Path, module: str) -> Iterator["Cluster"]:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus, at_once = _share(nodes, place.cpus, place.gpus)
    storage = place.storage or str(directory / "checkpoints")
    storage = storage if "://" in storage else str(Path(storage).absolute())
    what = "a local one" if address == "local" else f"{address}, {len(nodes)} node(s)"
    devices = f", {gpus:g} GPU(s)" if gpus else ""
    cluster = Cluster(
        ray,
        directory=directory,
        module=module,
        cpus=cpus,
        gpus=gpus,
        at_once=at_once,
        storage=None if place.checkpoint_every == "never" else storage,
        every=place.checkpoint_every,
        summary=f"Ray: {what}; {at_once} run(s) at a time, each with {cpus} CPU(s){devices}.",
    )
    try:
        yield cluster
    finally:
        with suppress(Exception):  # the connection may be what is lost
            cluster.end()


def _share(nodes: Sequence[Mapping[str, float]], cpus: int | None, gpus: float | None) -> tuple[int, float, int]:
    """CPUs and GPUs of each run, and how many runs there is room for.

    By default a run has a GPU where there are any, and the CPUs of the smallest node that has what it needs, divided by the
    runs that its GPUs have room for: without GPUs each node makes one run at a time.

    Raises:
        ConfigError: no node has so many.
    """
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
        raise ConfigError(f"--gpus-per-run is {gpus:g}; a share of one, or a whole number, was expected.")

    def by_gpu(node: Mapping[str, float]) -> float:
        return math.floor(node.get("GPU", 0) / gpus + 1e-9) if gpus else math.inf

    fit = [node for node in nodes if node.get("CPU", 0) >= (cpus or 1) and by_gpu(node) >= 1]
    if not fit:
        most = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes) or "nothing"
        raise ConfigError(
            f"A run needs {cpus or 1} CPU(s) and {gpus:g} GPU(s), which no node has (there are: {most}): give it less by "
            f"--cpus-per-run or --gpus-per-run."
        )
    if cpus is None:
        cpus = min(max(1, int(node["CPU"] // (by_gpu(node) if gpus else 1))) for node in fit)
    return cpus, gpus, sum(int(min(node["CPU"] // cpus, by_gpu(node))) for node in fit)


class Cluster:
    """An executor (see `local`) whose runs are Ray tasks."""

    def __init__(
        self,
        ray: Any,
        *,
        directory: Path,
        module: str,
        cpus: int,
        gpus: float,
        at_once: int,
        storage: str | None,
        every: str,
        summary: str,
    ) -> None:
        self.at_once, self.summary = at_once, summary
        self._ray, self._directory, self._module = ray, directory, module
        self._cpus, self._storage, self._every = cpus, storage, every
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )  # not on a node whose loss the driver survives
        self._mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_perform)
        self._forget = ray.remote(num_cpus=0, max_retries=0)(_remove)
        self._flights: dict[Any, _Flight] = {}  # by the task
        self._messages: deque[tuple[str, Message, str | None]] = deque()  # with an end, the checkpoints that it makes idle
        self._contents: dict[str, Any] = {}  # digest -> where Ray keeps it
        self._digests: dict[tuple[str, int, int], str] = {}  # path, time and size -> digest
        self._done: list[str] = []  # checkpoints of what the caller has been told, but may not yet have recorded

    def has_room(self) -> bool:
        """Always: Ray keeps what waits, and some clusters grow by it."""
        return True

    def submit(self, name: str, kind: str, request: TrainingRequest | CalibrationRequest) -> None:
        """Ray begins with it where and when there are CPUs and GPUs for it."""
        bundles: dict[str, _Bundle] = {}
        checkpoints = None
        if isinstance(request, CalibrationRequest):
            located = [(config, *self._places(config, None, bundles)) for config in request.configs]
            configs = [config | places | ({"model": model} if model else {}) for config, places, model in located]
            request = replace(request, configs=configs)
        else:
            places, model = self._places(request.config, request.first_weights, bundles)
            if self._storage is not None:
                # of other data, or another model, there are none to go on from
                digest = hashlib.blake2b("".join(sorted(bundles)).encode(), digest_size=4).hexdigest()
                checkpoints = f"{self._storage}/{name}-{digest}"
            request = replace(
                request, places=places, first_weights=model, checkpoints=checkpoints, checkpoint_every=self._every
            )
        job = _Job(
            name=name,
            attempt=1,
            module=self._module,
            request={kind: asdict(request)},
            bundles=tuple(bundles.values()),
            given={f"tasks/{path.name}": path.read_bytes() for path in self._directory.glob("tasks/*.json")},
            threads=self._cpus,
            version=version("isinglass"),
        )
        self._begin(_Flight(job, checkpoints))

    def stop(self, name: str) -> None:
        """End a run, whose last message will be an `error`."""
        for task, flight in self._flights.items():
            if flight.job.name == name:
                flight.stopped = True
                self._ray.cancel(task)

    def wait(self) -> tuple[str, Message]:
        """The next message; until it comes, what is lost is begun again."""
        for idle in self._done:  # a caller that asks on has recorded what it was told
            self._forget.remote(idle)
        self._done.clear()
        try:
            while not self._messages:
                self._look()
        except (self._ray.exceptions.RaySystemError, self._ray.exceptions.RayActorError, ConnectionError) as error:
            said = _first_line(error)
            raise RunFailedError(f"The connection to Ray was lost ({said}): the same command goes on.") from error
        name, message, checkpoints = self._messages.popleft()
        self._done += [] if checkpoints is None else [checkpoints]
        return name, message

    def end(self) -> None:
        """End what is under way."""
        deadline = time.monotonic() + STOP_SECONDS
        for flight in [*self._flights.values()]:
            self.stop(flight.job.name)
        running = [*self._flights]
        while running and time.monotonic() < deadline:  # each ends at its next message, and leaves nothing
            _, running = self._ray.wait(running, timeout=POLL_SECONDS)
        for task in running:
            self._ray.cancel(task, force=True)
        self._ray.get([self._forget.remote(checkpoints) for checkpoints in self._done], timeout=END_SECONDS)

    def _look(self) -> None:
        """Gather what the runs have said, and the tasks that have ended."""
        ended, _ = self._ray.wait([*self._flights], timeout=POLL_SECONDS)
        current = {(one.job.name, one.job.attempt): one for one in self._flights.values()}
        for name, attempt, message in self._ray.get(self._mailbox.take.remote()):
            flight = current.get((name, attempt))
            if flight is not None and not ("started" in message and flight.started):
                flight.started |= "started" in message
                self._messages.append((name, message, None))
        for task in ended:
            self._land(task)

    def _begin(self, flight: _Flight) -> None:
        contents = [self._contents[digest] for digest in flight.job.contents]
        self._flights[self._task.remote(flight.job, self._mailbox, *contents)] = flight

    def _land(self, task: Any) -> None:
        """Take what a task has left: its answer, or its failure, or its loss."""
        flight = self._flights.pop(task)
        job = flight.job
        lost = None
        answer: Message
        files: dict[str, bytes] = {}
        try:
            answer, files = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            answer = {"error": f"the run's task failed: {_first_line(error.cause)}"}
        except self._ray.exceptions.TaskCancelledError:
            answer = {"error": "the run was ended"}
        except self._ray.exceptions.RayError as error:
            lost = f"{type(error).__name__}: {_first_line(error)}"
            answer = {"error": f"the run's node or process was lost ({lost})"}
        if "signal" in answer:
            lost = str(answer["error"])
        if lost is not None and job.attempt < ATTEMPTS and not flight.stopped:
            logger.warning(
                f"{job.name} was lost with its process or node ({lost}): it is taken up again, attempt {job.attempt + 1} of "
                f"{ATTEMPTS}."
            )
            self._begin(replace(flight, job=replace(job, attempt=job.attempt + 1)))
            return
        try:
            self._put_in_place(files, whole="error" not in answer)
        except DataError as error:
            answer = {"error": str(error)}
        except OSError as error:
            where = f"{self._directory} cannot be written ({error.strerror})"
            raise StorageError(f"{where}: make room and run it again.") from error
        if not flight.started:
            self._messages.append((job.name, {"started": True}, None))
        self._messages.append((job.name, answer, flight.checkpoints if lost is None else None))

    def _put_in_place(self, files: Mapping[str, bytes], *, whole: bool) -> None:
        """Write what a run left into the bench's directory; of one that failed, its log only.

        Raises:
            DataError: examples of an earlier run are there already, and are others.
        """
        shared = {name: content for name, content in files.items() if not name.startswith(("runs/", "logs/"))}
        for name, content in shared.items() if whole else ():
            path = self._directory / name
            if path.exists() and path.read_bytes() != content:
                raise DataError(f"{path} differs from what this run was scored on, which has changed: use a new --output.")
        runs = {name: content for name, content in files.items() if name.startswith("runs/")} if whole else {}
        if runs:
            _put_directory(self._directory, runs)
        for name, content in files.items():
            path = self._directory / name
            if name.startswith("logs/") or (whole and name in shared and not path.exists()):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as partial:
                    partial.write_bytes(content)

    # what travels

    def _places(
        self, config: Mapping[str, Any], first_weights: str | None, bundles: dict[str, _Bundle]
    ) -> tuple[dict[str, Any], str | None]:
        """Settings of data, and the model's directory, as a node has them; what must travel for it is added to `bundles`."""
        places: dict[str, Any] = {}

        def bundled(origin: str, files: Mapping[str, Path]) -> str:
            bundle = self._bundle(origin, files)
            bundles[bundle.digest] = bundle
            return bundle.mark

        if config["data_dir"] is not None:
            names = (config["task"], "ax") if config["task"] == "mnli" else (config["task"],)
            wanted = [f"{TASKS[name].folder}/{split.file}" for name in names for split in TASKS[name].splits]
            directory = Path(config["data_dir"])
            files = {name: directory / name for name in wanted if (directory / name).is_file()}
            places["data_dir"] = bundled(config["data_dir"], files)
        for setting in ("train_file", "validation_file", "test_file"):
            if config[setting]:
                paths = expand(config[setting])
                files = {f"{number:06}/{path.name}": path for number, path in enumerate(paths)}
                mark = bundled(", ".join(config[setting]), files)
                places[setting] = [f"{mark}/{name}" for name in files]
        weights = config["class_weights"]
        if weights is not None and weights != "balanced" and not weights.lstrip().startswith("{"):
            with suppress(OSError, UnicodeDecodeError):  # the run tells what is wrong with it
                places["class_weights"] = Path(weights).read_text(encoding="utf-8")
        model = first_weights or config["model"]
        directory = demo_directory() if model == DEMO else Path(model).expanduser()
        if not directory.is_dir():
            return places, None  # the hub's: each node has it from there
        parts = (CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG)
        return places, bundled(model, {name: directory / name for name in parts if (directory / name).is_file()})

    def _bundle(self, origin: str, files: Mapping[str, Path]) -> _Bundle:
        whole = hashlib.blake2b(digest_size=16)
        stored = []
        for name, path in files.items():
            digest = self._stored(path)
            whole.update(f"{name}\0{digest}\0".encode("utf-8", "surrogateescape"))
            stored.append((name, str(path), digest))
        return _Bundle(whole.hexdigest(), origin, tuple(stored))

    def _stored(self, path: Path) -> str:
        """The digest of a file's content, which Ray has from here on."""
        about = path.stat()
        key = (str(path), about.st_mtime_ns, about.st_size)
        if key not in self._digests:
            content = path.read_bytes()
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            if digest not in self._contents:
                self._contents[digest] = self._ray.put(np.frombuffer(content, np.uint8))  # which nodes read without a copy
            self._digests[key] = digest
        return self._digests[key]


def _put_directory(bench: Path, files: Mapping[str, bytes]) -> None:
    """Write `runs/NAME`, whole or not at all."""
    place = bench.joinpath(*Path(next(iter(files))).parts[:2])
    place.parent.mkdir(exist_ok=True)
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, content in files.items():
            path = partial / Path(*Path(name).parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        take_place(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    """Of what it says, with the last line where the first one announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{lines[0]} {lines[-1]}" if len(lines) > 1 and lines[0].endswith(":") else lines[0] if lines else ""
    return said.rstrip(".") or type(error).__name__


# ---- a node ------------------------------------------------------------


class _Mailbox:
    """An actor beside the driver: the messages of all runs, in their order."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, int, Message]] = []

    def put(self, name: str, attempt: int, message: Message) -> None:
        """Take one in."""
        self._messages.append((name, attempt, message))

    def take(self) -> list[tuple[str, int, Message]]:
        """What came since the last call."""
        taken, self._messages = self._messages, []
        return taken


def _perform(job: _Job, mailbox: Any, *contents: UInt8[np.ndarray, " bytes"]) -> tuple[Message, dict[str, bytes]]:
    """The task: the worker's answer, and the files that it left, by their names in the bench's directory.

    It waits for nothing of Ray's: a task that does lends its CPUs to another meanwhile, and then both are at work.
    """
    here = version("isinglass")
    if here != job.version:
        return {"error": f"{socket.gethostname()} has isinglass {here}, and the driver {job.version}: install the same."}, {}
    with tempfile.TemporaryDirectory(prefix="isinglass-") as scratch:
        bench, temporary = Path(scratch) / "bench", Path(scratch) / "temporary"
        (bench / "tasks").mkdir(parents=True)
        temporary.mkdir()
        for name, content in job.given.items():
            (bench / name).write_bytes(content)
        marks, origins = dict[str, str](), dict[str, str]()
        for bundle in job.bundles:
            place = _unpacked(bundle, dict(zip(job.contents, contents, strict=True)))
            marks[bundle.mark] = str(place)
            origins |= {str(place / name): origin for name, origin, _ in bundle.files} | {str(place): bundle.origin}
        ((kind, values),) = job.request.items()
        values = _substituted(values, marks) | ({"bench": str(bench)} if "bench" in values else {})
        log = bench / "logs" / f"{job.name}.log"
        answer: Message = {}
        environment = {**os.environ, "TMPDIR": str(temporary), **_threads(job.threads)}
        with closing(ask({kind: values}, log, module=job.module, environment=environment)) as messages:
            for message in messages:
                if message.keys() & ENDS:
                    answer = message
                else:
                    mailbox.put.remote(job.name, job.attempt, message)
        if "result" in answer:
            _name_origins(bench / "runs" / job.name, origins)
        left = {str(path.relative_to(bench)): path for path in sorted(bench.rglob("*")) if path.is_file()}
        files = {name: path.read_bytes() for name, path in left.items() if name not in job.given}
        return _substituted(answer, origins | {str(log): f"logs/{log.name}"}), files


def _threads(threads: int) -> dict[str, str]:
    """That each framework computes, and the tokenizer runs, with so many threads."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def _unpacked(bundle: _Bundle, contents: Mapping[str, UInt8[np.ndarray, " bytes"]]) -> Path:
    """Where this node has the files: written once, whole, by the first task that wants them."""
    place = cache_dir() / "files" / bundle.digest
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.with_name(f".{place.name}.lock")
    with ExitStack() as stack:
        stack.enter_context(held(lock, str(place), wait_seconds=math.inf))
        stack.callback(lock.unlink, missing_ok=True)
        if place.is_dir():
            return place
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        for name, _, digest in bundle.files:
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[digest].data)
        take_place(partial, place)
    return place


def _substituted(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value in whose strings each of `names` is replaced; the settings that a result repeats have none of them."""
    if isinstance(value, str):
        for name, other in names.items():
            value = value.replace(name, other)
        return value
    if isinstance(value, Mapping):
        return {key: _substituted(one, names) for key, one in value.items()}
    return [_substituted(one, names) for one in value] if isinstance(value, list | tuple) else value


def _name_origins(run: Path, origins: Mapping[str, str]) -> None:
    """In what a reader sees of a run, the driver's paths instead of this node's."""
    result = run / "result.json"
    values = _substituted(json.loads(result.read_text(encoding="utf-8")), origins)
    result.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
    card = run / "model" / "README.md"
    if card.exists():
        card.write_text(_substituted(card.read_text(encoding="utf-8"), origins), encoding="utf-8", errors="backslashreplace")


def _remove(checkpoints: str) -> None:
    """The task that removes the checkpoints of a run that needs them no more."""
    if "://" not in checkpoints:
        shutil.rmtree(checkpoints, ignore_errors=True)
        return
    files, path = file_system(checkpoints)
    if files.exists(path):
        files.rm(path, recursive=True)
