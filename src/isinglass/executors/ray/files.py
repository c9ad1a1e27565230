"""Files that travel: packed by content on the driver, unpacked into a node's cache; and what a worker wrote, back again."""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from isinglass.data.files import expand
from isinglass.errors import DataError
from isinglass.executors.messages import RunInputs
from isinglass.models.checkpoint import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from isinglass.models.source import DEMO, demo_directory
from isinglass.storage import cache_dir, held, replacing, take_place
from isinglass.tasks import TASKS

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
        """Return the text that stands in a request for the directory where a node has the files."""
        return f"isinglass-files:{self.digest}"


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
            tasks = ("mnli", "ax") if config["task"] == "mnli" else (config["task"],)
            names = [f"{TASKS[task].folder}/{split.file}" for task in tasks for split in TASKS[task].splits]
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
        if directory.is_dir():  # otherwise it is a model of the hub, which each node downloads
            model = bundle(model, _existing(directory, [CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG]))
            return replace(inputs, relocated=relocated, first_weights=model)
        return replace(inputs, relocated=relocated, first_weights=None)

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


def unpack(bundle: Bundle, contents: Contents) -> Path:
    """Return where this node has the files of a bundle. The first task that needs them writes them, completely."""
    directory = cache_dir() / "files" / bundle.digest
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = directory.with_name(f".{directory.name}.lock")
    with ExitStack() as stack:
        stack.enter_context(held(lock, str(directory), wait_seconds=math.inf))
        stack.callback(lock.unlink, missing_ok=True)
        if directory.is_dir():  # another task wrote them while this one waited
            return directory
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        for name, content in contents.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            content.tofile(partial / name)
        take_place(partial, directory)
    return directory


def put_in_place(directory: Path, files: Mapping[str, bytes], *, failed: bool) -> None:
    """Write the files of a worker: all of them, or only its log if it failed. Readers see a complete run or none.

    Args:
        files: content by name: `logs/NAME.log`, `runs/NAME/...`, and files that all runs share (`examples/...`).

    Raises:
        DataError: a shared file exists already with another content.
    """
    logs: dict[str, bytes] = {}
    runs: dict[str, bytes] = {}
    shared: dict[str, bytes] = {}
    for name, content in files.items():
        {"logs": logs, "runs": runs}.get(name.partition("/")[0], shared)[name] = content
    _write_files(directory, logs)
    if failed:
        return
    for path, content in [(directory / name, content) for name, content in shared.items()]:
        if path.exists() and path.read_bytes() != content:
            raise DataError(f"{path} differs from what this run was scored on, which has changed: use a new --output.")
    partial = directory / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_files(partial, runs)
        for run in partial.glob("runs/*"):
            (directory / "runs").mkdir(exist_ok=True)
            take_place(run, directory / "runs" / run.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _write_files(directory, {name: content for name, content in shared.items() if not (directory / name).exists()})


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)
