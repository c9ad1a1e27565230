"""Checkpoints behind an URL (`s3://BUCKET/PATH`): written and read in a directory of this machine, copied by fsspec."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isinglass.errors import ConfigError, StorageError
from isinglass.hub import reason
from isinglass.training.checkpoints import Checkpoints, Interval, TrainingState


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoints(Checkpoints):
    """As Checkpoints; what is copied half is found by its digest, and passed over.

    Attributes:
        files: fsspec's file system.
        path: of the checkpoints in it.
    """

    files: Any
    path: str

    def save(self, state: TrainingState, identity: Mapping[str, Any]) -> Path:
        """Write one, copy it, and remove there what is no longer here."""
        written = super().save(state, identity)
        try:
            self.files.makedirs(self.path, exist_ok=True)
            self.files.put_file(str(written), f"{self.path}/{written.name}")
            kept = {path.name for path in self.directory.iterdir()}
            for name in self._there() - kept:
                self.files.rm_file(f"{self.path}/{name}")
        except Exception as error:  # each file system has its own
            raise StorageError(f"{self.path}/{written.name} could not be written ({reason(error)}).") from error
        return written

    def load(self, identity: Mapping[str, Any]) -> TrainingState | None:
        """Copy what is there, and go on from the newest whole one."""
        try:
            for name in self._there():
                self.files.get_file(f"{self.path}/{name}", str(self.directory / name))
        except Exception as error:
            raise StorageError(f"The checkpoints in {self.path} could not be read ({reason(error)}).") from error
        return super().load(identity) if any(self.directory.iterdir()) else None

    def _there(self) -> set[str]:
        self.files.invalidate_cache()
        listed = self.files.ls(self.path, detail=False) if self.files.exists(self.path) else []
        return {name for one in listed if (name := one.rsplit("/", 1)[-1]).startswith("step-")}


def stored_checkpoints(url: str, every: Interval) -> StoredCheckpoints:
    """The checkpoints of one run, behind `url`; the copies here go with this process's temporary directory."""
    files, path = file_system(url)
    return StoredCheckpoints(
        directory=Path(tempfile.mkdtemp(prefix="checkpoints-")), every=every, resume=True, files=files, path=path
    )


def file_system(url: str) -> tuple[Any, str]:
    """The file system that fsspec has for an URL, and the path in it.

    Raises:
        ConfigError: there is none for it, or its package is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"The storage {url} cannot be used: {reason(error)}.") from None
    return files, str(path)
