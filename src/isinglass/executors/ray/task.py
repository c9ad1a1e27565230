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
from isinglass.executors.messages import Answer, Failed, Message, Request, RunFinished, from_line, to_line
from isinglass.executors.ray.files import Bundle, Contents, unpack
from isinglass.executors.training import is_url, open_file_system

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "RAYON_NUM_THREADS")
"""The environment variables that tell each framework, and the tokenizer, with how many threads to compute."""


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
            unpacked = unpack(bundle, contents_of_bundle)
            nodes_paths[bundle.mark] = str(unpacked)
            drivers_paths |= {str(unpacked / name): origin for name, origin in bundle.origins.items()}
            drivers_paths[str(unpacked)] = bundle.origin
        log = f"logs/{job.name}.log"
        drivers_paths[str(directory / log)] = log
        request = from_line(_replace_in_json(to_line(job.request).decode(), nodes_paths).encode())
        assert isinstance(request, Request)
        environment = {**os.environ, "TMPDIR": str(temporary), **dict.fromkeys(THREADS, str(job.threads))}
        with closing(run_worker(request, directory, directory / log, environment=environment)) as messages:
            for message in messages:
                if not isinstance(message, Answer):
                    mailbox.put.remote(job.name, job.attempt, message)
        answer = from_line(_replace_in_json(to_line(message).decode(), drivers_paths).encode())
        assert isinstance(answer, Answer)  # a worker's last message is its answer
        if isinstance(answer, RunFinished):
            _name_origins(directory / "runs" / job.name, drivers_paths)
        paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        files = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
        return answer, {name: content for name, content in files.items() if name not in job.shared_files}


def _name_origins(run: Path, drivers_paths: Mapping[str, str]) -> None:
    """Write the driver's paths instead of this node's into those files of a run that people read."""
    result = run / "result.json"
    text = json.dumps(json.loads(result.read_text(encoding="utf-8")))
    values = json.loads(_replace_in_json(text, drivers_paths))
    result.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
    card = run / "model" / "README.md"
    if card.exists():
        text = _replace(card.read_text(encoding="utf-8"), drivers_paths)
        card.write_text(text, encoding="utf-8", errors="backslashreplace")


def _replace_in_json(text: str, replacements: Mapping[str, str]) -> str:
    """Replace each key of `replacements` by its value, both spelled as in ASCII JSON."""
    return _replace(text, {json.dumps(old)[1:-1]: json.dumps(new)[1:-1] for old, new in replacements.items()})


def _replace(text: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def remove_checkpoints(path: str) -> None:
    """Remove the checkpoints of a run that needs them no more."""
    if not is_url(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    files, directory = open_file_system(path)
    if files.exists(directory):
        files.rm(directory, recursive=True)
