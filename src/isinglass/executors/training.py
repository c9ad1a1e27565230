"""How a worker trains: it reports its progress, and its checkpoints lie in a directory or behind a URL (`s3://BUCKET/PATH`).

Those behind a URL are written and read in a directory of this machine, and copied by fsspec.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isinglass.backends.process_group import ProcessGroup
from isinglass.config import TrainConfig
from isinglass.data.examples import Source
from isinglass.errors import ConfigError, StorageError
from isinglass.executors.messages import Message, Progressed, Request
from isinglass.hub import reason
from isinglass.runs.perform import Saving, perform
from isinglass.training.checkpoints import Checkpoints, Interval, TrainingState
from isinglass.training.interruption import Interruption
from isinglass.training.observers import Observer, ProgressObserver
from isinglass.training.preparation import FirstWeights
from isinglass.training.trainer import TrainedRun

Send = Callable[[Message], None]


def train_requested(
    request: Request,
    config: TrainConfig,
    data: Source,
    send: Send,
    *observers: Observer,
    interruption: Interruption | None = None,
) -> TrainedRun:
    """Train the run of a request, and send its progress. It continues from its newest checkpoint, if there is one.

    Args:
        config: the resolved settings of the request.
        data: what `config` names, or what is left of it.
        interruption: tells that the process was asked to end.
    """
    run = perform(
        config,
        observers=[ProgressObserver(lambda progress: send(Progressed(progress=progress))), *observers],
        saving=Saving(checkpoints=_open_checkpoints(request)),
        data=data,
        first_weights=FirstWeights(directory) if (directory := request.runs[0].first_weights) else None,
        interruption=interruption,
        group=ProcessGroup(),
    )
    assert run.trained is not None
    return run.trained


def _open_checkpoints(request: Request) -> Checkpoints | None:
    """Return the checkpoints of a request. Copies of those behind a URL lie in this process's temporary directory."""
    if request.checkpoints is None:
        return None
    every = Interval.parse(request.checkpoint_every)
    if is_url(request.checkpoints):
        files, path = open_file_system(request.checkpoints)
        directory = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        return StoredCheckpoints(directory=directory, every=every, resume=True, files=files, path=path)
    directory = Path(request.checkpoints)
    return Checkpoints(directory=directory, every=every, resume=directory.is_dir())


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoints(Checkpoints):
    """Checkpoints that are copied to a file system. An incomplete copy is found by its digest, and passed over.

    Attributes:
        files: fsspec's file system.
        path: their directory in it.
    """

    files: Any
    path: str

    def save(self, state: TrainingState, identity: Mapping[str, Any]) -> Path:
        """Write a checkpoint, copy it, and remove the copies of those that were removed here."""
        written = super().save(state, identity)
        try:
            self.files.makedirs(self.path, exist_ok=True)
            self.files.put_file(str(written), f"{self.path}/{written.name}")
            current = {path.name for path in self.directory.iterdir()}
            for name in self._stored_names() - current:
                self.files.rm_file(f"{self.path}/{name}")
        except Exception as error:  # each file system raises errors of its own
            raise StorageError(f"{self.path}/{written.name} could not be written ({reason(error)}).") from error
        return written

    def load(self, identity: Mapping[str, Any]) -> TrainingState | None:
        """Copy the stored checkpoints here, and load the newest one that is complete."""
        try:
            for name in self._stored_names():
                self.files.get_file(f"{self.path}/{name}", str(self.directory / name))
        except Exception as error:
            raise StorageError(f"The checkpoints in {self.path} could not be read ({reason(error)}).") from error
        return super().load(identity) if any(self.directory.iterdir()) else None

    def _stored_names(self) -> set[str]:
        self.files.invalidate_cache()
        names = {path.rsplit("/", 1)[-1] for path in self.files.find(self.path, maxdepth=1)}
        return {name for name in names if name.startswith("step-")}


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def open_file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises:
        ConfigError: fsspec has none for it, or its package is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"The storage {url} cannot be used: {reason(error)}.") from None
    return files, str(path)
