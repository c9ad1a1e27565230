"""Files that travel: packed by content on the driver, unpacked into a node's cache; and what a worker wrote, back again."""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
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

Content = UInt8[np.ndarray, " bytes"]
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class BundledFile:
    """A file of a bundle: its name in the bundle, its path on the driver, the digest of its content."""

    name: str
    origin: str
    digest: str


@dataclass(frozen=True)
class Bundle:
    """Files that travel together.

    Attributes:
        digest: of all names and contents.
        origin: the driver's path that stands for all of them.
    """

    digest: str
    origin: str
    files: tuple[BundledFile, ...]

    @property
    def mark(self) -> str:
        """Return the text that stands in a request for the directory where a node has the files."""
        return f"isinglass-files:{self.digest}"


class FileStore:
    """The contents that Ray holds for the nodes. Each is stored once, however many runs need it.

    Args:
        put: stores a content, and returns Ray's reference to it.
    """

    def __init__(self, put: Callable[[Content], Any]) -> None:
        self._put = put
        self._references: dict[str, Any] = {}  # by digest
        self._digests: dict[tuple[str, int, int], str] = {}  # by path, time of change and size

    def reference(self, digest: str) -> Any:
        """Return Ray's reference to a content."""
        return self._references[digest]

    def bundle(self, origin: str, files: Mapping[str, Path]) -> Bundle:
        """Store files, and return the bundle of them. `files` maps names in the bundle to paths."""
        total = hashlib.blake2b(digest_size=16)
        bundled = []
        for name, path in files.items():
            digest = self._store(path)
            total.update(f"{name}\0{digest}\0".encode("utf-8", "surrogateescape"))
            bundled.append(BundledFile(name, str(path), digest))
        return Bundle(total.hexdigest(), origin, tuple(bundled))

    def _store(self, path: Path) -> str:
        """Store the content of a file, and return its digest."""
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        if key in self._digests:
            return self._digests[key]
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        if digest not in self._references:
            self._references[digest] = self._put(np.frombuffer(content, np.uint8))  # nodes read arrays without a copy
        self._digests[key] = digest
        return digest


class Packer:
    """Packs the files of one request. `bundles` grows with each call of `pack`."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.bundles: dict[str, Bundle] = {}  # by digest

    def pack(self, inputs: RunInputs) -> RunInputs:
        """Return the inputs of a run with marks in the place of paths, or with what a small file says."""
        relocated = {
            **self._pack_glue_files(inputs.config),
            **self._pack_tables(inputs.config),
            **_read_class_weights(inputs.config),
        }
        model = self._pack_model(inputs.first_weights or inputs.config["model"])
        return replace(inputs, relocated=relocated, first_weights=model)

    def _pack_glue_files(self, config: Mapping[str, Any]) -> dict[str, str]:
        if config["data_dir"] is None:
            return {}
        directory = Path(config["data_dir"])
        tasks = ("mnli", "ax") if config["task"] == "mnli" else (config["task"],)
        names = [f"{TASKS[task].folder}/{split.file}" for task in tasks for split in TASKS[task].splits]
        return {"data_dir": self._bundle(config["data_dir"], directory, names)}

    def _pack_tables(self, config: Mapping[str, Any]) -> dict[str, list[str]]:
        relocated = {}
        for setting in ("train_file", "validation_file", "test_file"):
            if not config[setting]:
                continue
            files = {f"{number:06}/{path.name}": path for number, path in enumerate(expand(config[setting]))}
            mark = self._add(self._store.bundle(", ".join(config[setting]), files))
            relocated[setting] = [f"{mark}/{name}" for name in files]
        return relocated

    def _pack_model(self, model: str) -> str | None:
        """Return the mark of a model's directory; None for a model of the hub, which each node downloads."""
        directory = demo_directory() if model == DEMO else Path(model).expanduser()
        if not directory.is_dir():
            return None
        return self._bundle(model, directory, [CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG])

    def _bundle(self, origin: str, directory: Path, names: list[str]) -> str:
        """Bundle those of the named files that exist, and return the bundle's mark."""
        files = {name: directory / name for name in names if (directory / name).is_file()}
        return self._add(self._store.bundle(origin, files))

    def _add(self, bundle: Bundle) -> str:
        self.bundles[bundle.digest] = bundle
        return bundle.mark


def _read_class_weights(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the setting with the content of the file that it names, if it names one."""
    weights = config["class_weights"]
    if weights is None or weights == "balanced" or weights.lstrip().startswith("{"):
        return {}
    with suppress(OSError, UnicodeDecodeError):  # the run says what is wrong with the file
        return {"class_weights": Path(weights).read_text(encoding="utf-8")}
    return {}


def unpack(bundle: Bundle, contents: Mapping[str, Content]) -> Path:
    """Return where this node has the files of a bundle. The first task that needs them writes them, completely.

    Args:
        contents: digest -> content.
    """
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
        for file in bundle.files:
            path = partial / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[file.digest].data)
        take_place(partial, directory)
    return directory


def put_in_place(directory: Path, files: Files, *, failed: bool) -> None:
    """Write the files of a worker: all of them, or only its log if it failed.

    Args:
        files: content by name: `logs/NAME.log`, `runs/NAME/...`, and files that all runs share (`examples/...`).

    Raises:
        DataError: a shared file exists already with another content.
    """
    by_room: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        room = name.partition("/")[0]
        by_room.setdefault(room, {})[name] = content
    logs, run = by_room.pop("logs", {}), by_room.pop("runs", {})
    shared = {name: content for room in by_room.values() for name, content in room.items()}
    _write_files(directory, logs)
    if failed:
        return
    _check_shared(directory, shared)
    if run:
        _put_run(directory, run)
    _write_files(directory, {name: content for name, content in shared.items() if not (directory / name).exists()})


def _check_shared(directory: Path, files: Files) -> None:
    for name, content in files.items():
        path = directory / name
        if path.exists() and path.read_bytes() != content:
            raise DataError(f"{path} differs from what this run was scored on, which has changed: use a new --output.")


def _put_run(directory: Path, files: Files) -> None:
    """Write `runs/NAME`: readers see the complete directory or none."""
    run = directory.joinpath(*Path(next(iter(files))).parts[:2])
    run.parent.mkdir(exist_ok=True)
    partial = run.with_name(f".{run.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, content in files.items():
            path = partial.joinpath(*Path(name).parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        take_place(partial, run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(directory: Path, files: Files) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)
