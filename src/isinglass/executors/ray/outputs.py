"""Files that a worker wrote on its node, put in place in the bench's directory."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from isinglass.errors import DataError
from isinglass.storage import replacing, take_place

Files = Mapping[str, bytes]


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
