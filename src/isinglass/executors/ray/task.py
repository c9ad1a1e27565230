"""What runs on a node: the Ray task that performs a request. The files that it needs and writes travel with it.

Files are packed by content on the driver and unpacked into a node's cache. What a worker wrote comes back as its value.
"""

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from isinglass.data.files import expand
from isinglass.errors import DataError
from isinglass.executors.messages import Answer, Failed, Message, Request, RunFinished, RunInputs
from isinglass.executors.training import is_url, open_file_system
from isinglass.executors.worker import run_worker
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from isinglass.models.source import DEMO, demo_directory
from isinglass.storage import cache_dir, replacing, take_place
from isinglass.tasks import predicted_with

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "RAYON_NUM_THREADS")
"""The environment variables that tell each framework, and the tokenizer, with how many threads to compute."""

Contents = Mapping[str, UInt8[np.ndarray, " bytes"]]
"""Name of a file in its bundle -> its content, as an array because nodes read arrays without a copy."""


@dataclass(frozen=True)
class Bundle:
    """Files that travel together.

    Attributes:
        digest: of all names and contents.
        origin: the driver's path that stands for all of them.
        origins: name of each file in the bundle -> its path on the driver.
    """

    digest: str
    origin: str
    origins: Mapping[str, str]

    @property
    def mark(self) -> str:
        """The text that stands in a request for the directory where a node has the files."""
        return f"isinglass-files:{self.digest}"


@dataclass(kw_only=True)
class Job:
    """All that a task needs to perform a request, and what the driver knows of the task.

    Attributes:
        request: with marks in the place of the directories of `bundles`.
        shared_files: files of the bench's directory that the worker compares with, by name. It does not change them.
        threads: the number of threads that the worker computes with.
        version: of the driver's isinglass.
        attempt: counted from 1.
        has_started: whether the driver's caller was told that its worker started.
        is_stopped: whether the driver's caller has ended it.
    """

    name: str
    request: Request
    bundles: tuple[Bundle, ...]
    shared_files: dict[str, bytes]
    threads: int
    version: str = version("isinglass")
    attempt: int = 1
    has_started: bool = False
    is_stopped: bool = False


class FileStore:
    """The contents that Ray holds for the nodes. Those of a bundle are stored once, however many runs need them.

    Args:
        put: stores contents, and returns Ray's reference to them.

    Attributes:
        references: digest of a bundle -> Ray's reference to its contents.
    """

    def __init__(self, put: Callable[[Contents], Any]) -> None:
        self.references: dict[str, Any] = {}
        self._put = put
        self._digests: dict[tuple[Any, ...], str] = {}  # by name, path, time of change and size of each file

    def pack(self, inputs: RunInputs, bundles: dict[str, Bundle]) -> RunInputs:
        """Return the inputs of a run with marks in the place of paths, or with what a small file says.

        Args:
            bundles: digest -> bundle. Those of the run are added.
        """

        def bundle(origin: str, files: Mapping[str, Path]) -> str:
            packed = self._bundle(origin, files)
            bundles[packed.digest] = packed
            return packed.mark

        config = inputs.config
        relocated: dict[str, Any] = {}
        if config["data_dir"] is not None:
            tasks = predicted_with(config["task"])
            names = [f"{task.folder}/{split.file}" for task in tasks for split in task.splits]
            relocated["data_dir"] = bundle(config["data_dir"], _existing(Path(config["data_dir"]), names))
        for setting in ("train_file", "validation_file", "test_file"):
            if config[setting]:
                files = {f"{number:06}/{path.name}": path for number, path in enumerate(expand(config[setting]))}
                mark = bundle(", ".join(config[setting]), files)
                relocated[setting] = [f"{mark}/{name}" for name in files]
        weights = config["class_weights"]
        if weights not in (None, "balanced") and not weights.lstrip().startswith("{"):
            with suppress(OSError, UnicodeDecodeError):  # the run says what is wrong with the file
                relocated["class_weights"] = Path(weights).read_text(encoding="utf-8")
        model = inputs.first_weights or config["model"]
        directory = demo_directory() if model == DEMO else Path(model).expanduser()
        first_weights = None  # for a model of the hub, which each node downloads
        if directory.is_dir():
            first_weights = bundle(model, _existing(directory, [CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG]))
        return RunInputs(config=config, relocated=relocated, first_weights=first_weights)

    def _bundle(self, origin: str, files: Mapping[str, Path]) -> Bundle:
        """Store files, and return the bundle of them. `files` maps names in the bundle to paths."""
        status = {name: path.stat() for name, path in files.items()}
        key = tuple((name, str(path), status[name].st_mtime_ns, status[name].st_size) for name, path in files.items())
        if key not in self._digests:
            contents = {name: np.fromfile(path, np.uint8) for name, path in files.items()}
            digest = hashlib.blake2b(digest_size=16)
            for name, content in contents.items():
                digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
                digest.update(content.data)
            self._digests[key] = digest.hexdigest()
            self.references[digest.hexdigest()] = self._put(contents)
        origins = {name: str(path) for name, path in files.items()}
        return Bundle(self._digests[key], origin, origins)


def _existing(directory: Path, names: Iterable[str]) -> dict[str, Path]:
    return {name: directory / name for name in names if (directory / name).is_file()}


class Mailbox:
    """An actor beside the driver that holds the updates of all jobs in their order: name of the job, attempt, message."""

    def __init__(self) -> None:
        self._updates: list[tuple[str, int, Message]] = []

    def put(self, name: str, attempt: int, message: Message) -> None:
        """Add an update."""
        self._updates.append((name, attempt, message))

    def take(self) -> list[tuple[str, int, Message]]:
        """Return the updates since the last call."""
        taken, self._updates = self._updates, []
        return taken


def perform_job(job: Job, mailbox: Any, *contents: Contents) -> tuple[Answer, dict[str, bytes]]:
    """Perform a request on this node. Return the worker's answer, and the files that it wrote by their names.

    The task must not wait for Ray: a waiting task lends its CPUs to another, and then both compute.

    Args:
        contents: of each bundle. Ray passes them where it was given references.
    """
    here = version("isinglass")
    if here != job.version:
        host = socket.gethostname()
        return Failed(error=f"{host} has isinglass {here}, and the driver {job.version}: install the same."), {}
    with tempfile.TemporaryDirectory(prefix="isinglass-") as scratch:
        directory, temporary = Path(scratch) / "bench", Path(scratch) / "temporary"
        (directory / "tasks").mkdir(parents=True)
        temporary.mkdir()
        for name, content in job.shared_files.items():
            (directory / name).write_bytes(content)
        nodes_paths: dict[str, str] = {}  # mark -> this node's directory
        drivers_paths: dict[str, str] = {}  # path on this node -> the driver's path
        for bundle, contents_of_bundle in zip(job.bundles, contents, strict=True):
            unpacked = cache_dir() / "files" / bundle.digest
            write_missing(unpacked, contents_of_bundle)
            nodes_paths[bundle.mark] = str(unpacked)
            drivers_paths |= {str(unpacked / name): origin for name, origin in bundle.origins.items()}
            drivers_paths[str(unpacked)] = bundle.origin
        log = f"logs/{job.name}.log"
        drivers_paths[str(directory / log)] = log
        request = type(job.request).model_validate(_replace_in(job.request.model_dump(), nodes_paths))
        environment = {**os.environ, "TMPDIR": str(temporary), **dict.fromkeys(THREADS, str(job.threads))}
        with closing(run_worker(request, directory, directory / log, environment=environment)) as messages:
            for message in messages:
                if not isinstance(message, Answer):
                    mailbox.put.remote(job.name, job.attempt, message)
        assert isinstance(message, Answer)  # the last one
        answer = type(message).model_validate(_replace_in(message.model_dump(), drivers_paths))
        if isinstance(answer, RunFinished):
            _name_origins(directory / "runs" / job.name, drivers_paths)
        paths = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}
        return answer, {name: path.read_bytes() for name, path in paths.items() if name not in job.shared_files}


def _name_origins(run: Path, drivers_paths: Mapping[str, str]) -> None:
    """Write the driver's paths instead of this node's into those files of a run that people read."""
    result = run / "result.json"
    values = _replace_in(json.loads(result.read_text(encoding="utf-8")), drivers_paths)
    result.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
    card = run / "model" / "README.md"
    if card.exists():
        text = _replace_in(card.read_text(encoding="utf-8"), drivers_paths)
        card.write_text(text, encoding="utf-8", errors="backslashreplace")


def _replace_in(value: Any, replacements: Mapping[str, str]) -> Any:
    """Return a JSON value in whose texts each key of `replacements` is replaced by its value."""
    text = json.dumps(value)
    for old, new in replacements.items():
        text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
    return json.loads(text)


def put_in_place(directory: Path, files: Mapping[str, bytes], *, failed: bool) -> None:
    """Write the files of a worker: all of them, or only its log if it failed. Readers see a complete run or none.

    Args:
        files: content by name: `logs/NAME.log`, `runs/NAME/...`, and files that all runs share (`examples/...`).

    Raises:
        DataError: a shared file exists already with another content.
    """
    logs = {name: content for name, content in files.items() if name.startswith("logs/")}
    runs = {name: content for name, content in files.items() if name.startswith("runs/")}
    shared = {name: content for name, content in files.items() if name not in logs | runs}
    write_files(directory, logs)
    if failed:
        return
    for name, content in shared.items():
        path = directory / name
        if path.exists() and path.read_bytes() != content:
            raise DataError(f"{path} differs from what this run was scored on, which has changed: use a new --output.")
    partial = directory / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_files(partial, runs)
        for run in partial.glob("runs/*"):
            (directory / "runs").mkdir(exist_ok=True)
            take_place(run, directory / "runs" / run.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    write_missing(directory, shared)


def write_missing(directory: Path, files: Mapping[str, Any]) -> None:
    """Write those files that do not exist."""
    write_files(directory, {name: content for name, content in files.items() if not (directory / name).exists()})


def write_files(directory: Path, files: Mapping[str, Any]) -> None:
    """Write files by their names in a directory. Each is complete or absent, whatever other tasks do there.

    Args:
        files: name -> bytes, or an array of bytes.
    """
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)


def remove_checkpoints(path: str) -> None:
    """Remove the checkpoints of a run that needs them no more."""
    if not is_url(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    files, directory = open_file_system(path)
    if files.exists(directory):
        files.rm(directory, recursive=True)
