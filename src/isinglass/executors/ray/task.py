"""What runs on a node: the Ray task that performs a request, and the actor that carries its updates to the driver."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isinglass.executors.local import run_worker
from isinglass.executors.messages import Answer, Failed, Message, Request, RunFinished, from_plain, to_plain
from isinglass.executors.ray.files import Bundle, Content, unpack
from isinglass.executors.stored_checkpoints import is_url, open_file_system


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a task needs to perform a request.

    Attributes:
        request: with marks in the place of the directories of `bundles`.
        shared_files: files of the bench's directory that the worker compares with, by name. It does not change them.
        threads: the number of threads that the worker computes with.
        version: of the driver's isinglass.
    """

    name: str
    attempt: int
    request: Request
    bundles: tuple[Bundle, ...]
    shared_files: dict[str, bytes]
    threads: int
    version: str

    @property
    def contents(self) -> list[str]:
        """Return the digest of each content of the bundles, once."""
        return [*dict.fromkeys(file.digest for bundle in self.bundles for file in bundle.files)]


@dataclass(frozen=True)
class Outcome:
    """What a task returns: the worker's answer, and the files that it wrote, by their names in its directory."""

    answer: Answer
    files: dict[str, bytes]


@dataclass(frozen=True)
class JobUpdate:
    """A message of the worker of a job, on its way to the driver."""

    name: str
    attempt: int
    message: Message


class Mailbox:
    """An actor beside the driver that holds the updates of all jobs, in their order."""

    def __init__(self) -> None:
        self._updates: list[JobUpdate] = []

    def put(self, update: JobUpdate) -> None:
        """Add an update."""
        self._updates.append(update)

    def take(self) -> list[JobUpdate]:
        """Return the updates since the last call."""
        taken, self._updates = self._updates, []
        return taken


def perform_job(job: Job, mailbox: Any, *contents: Content) -> Outcome:
    """Perform a request on this node.

    The task must not wait for Ray: a waiting task lends its CPUs to another, and then both compute.
    """
    here = version("isinglass")
    if here != job.version:
        host = socket.gethostname()
        return Outcome(Failed(error=f"{host} has isinglass {here}, and the driver {job.version}: install the same."), {})
    with tempfile.TemporaryDirectory(prefix="isinglass-") as scratch:
        directory, temporary = Path(scratch) / "bench", Path(scratch) / "temporary"
        (directory / "tasks").mkdir(parents=True)
        temporary.mkdir()
        for name, content in job.shared_files.items():
            (directory / name).write_bytes(content)
        marks, origins = _unpack_all(job, contents)
        answer = _run(job, _replace_in(job.request, marks), directory, temporary, mailbox)
        if isinstance(answer, RunFinished):
            _name_origins(directory / "runs" / job.name, origins)
        log = f"logs/{job.name}.log"
        answer = _replace_in(answer, origins | {str(directory / log): log})
        return Outcome(answer, _read_files(directory, job.shared_files))


def _unpack_all(job: Job, contents: tuple[Content, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Unpack all bundles. Return mark -> this node's directory, and path on this node -> the driver's path."""
    by_digest = dict(zip(job.contents, contents, strict=True))
    marks, origins = dict[str, str](), dict[str, str]()
    for bundle in job.bundles:
        directory = unpack(bundle, by_digest)
        marks[bundle.mark] = str(directory)
        origins |= {str(directory / file.name): file.origin for file in bundle.files}
        origins[str(directory)] = bundle.origin
    return marks, origins


def _run(job: Job, request: Request, directory: Path, temporary: Path, mailbox: Any) -> Answer:
    """Run the worker, and send its updates to the driver."""
    environment = {**os.environ, "TMPDIR": str(temporary), **_thread_limits(job.threads)}
    log = directory / "logs" / f"{job.name}.log"
    with closing(run_worker(request, directory, log, environment=environment)) as messages:
        for message in messages:
            if isinstance(message, Answer):
                return message
            mailbox.put.remote(JobUpdate(job.name, job.attempt, message))
    raise AssertionError("a worker's last message is its answer")


def _thread_limits(threads: int) -> dict[str, str]:
    """Return the environment variables by which each framework, and the tokenizer, use `threads` threads."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def _read_files(directory: Path, excluded: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return name -> content of all files in a directory."""
    files = {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in excluded}


def _name_origins(run: Path, origins: Mapping[str, str]) -> None:
    """Write the driver's paths instead of this node's into those files of a run that people read."""
    result = run / "result.json"
    values = _replace_in_value(json.loads(result.read_text(encoding="utf-8")), origins)
    result.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
    card = run / "model" / "README.md"
    if card.exists():
        text = _replace_in_value(card.read_text(encoding="utf-8"), origins)
        card.write_text(text, encoding="utf-8", errors="backslashreplace")


def _replace_in(message: Any, texts: Mapping[str, str]) -> Any:
    """Return a message in whose texts each key of `texts` is replaced by its value."""
    return from_plain(_replace_in_value(to_plain(message), texts))


def _replace_in_value(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for text, replacement in texts.items():
            value = value.replace(text, replacement)
        return value
    if isinstance(value, Mapping):
        return {key: _replace_in_value(item, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_in_value(item, texts) for item in value]
    return value


def remove_checkpoints(path: str) -> None:
    """Remove the checkpoints of a run that needs them no more."""
    if not is_url(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    files, directory = open_file_system(path)
    if files.exists(directory):
        files.rm(directory, recursive=True)
