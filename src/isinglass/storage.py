"""Write files that are complete or absent, whatever ends the process, and lock directories for one process at a time."""

import ctypes
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from isinglass.errors import ConfigError, OutputExistsError

LOCK: Final = ".lock"


def cache_dir() -> Path:
    """Return `$ISINGLASS_CACHE`, else `$XDG_CACHE_HOME/isinglass`, else `~/.cache/isinglass`, for tokens and texts."""
    if own := os.environ.get("ISINGLASS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isinglass"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write beside `path`; after the block it is synced to disk and replaces `path`.

    Raises:
        OSError: the disk is full, for example. `path` is unchanged, and nothing is left beside it.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_place(partial: Path, place: Path) -> None:
    """Sync a directory with its content and rename it to `place`; an earlier directory there gets the name of `partial`.

    Raises:
        OSError: the disk is full, for example; `place` is unchanged.
    """
    for path in (*partial.rglob("*"), partial):
        sync(path)
    if place.exists():
        _exchange(partial, place)
    else:
        partial.rename(place)
    sync(place.parent)


def _exchange(one: Path, other: Path) -> None:
    """Swap two names so that neither is absent at any moment.

    Where the system cannot do that (other than Linux, or an old file system), three renames do.
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_fdcwd, rename_exchange = -100, 2
    if swap is None or swap(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) != 0:
        aside = one.with_name(f"{one.name}.aside")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


@contextmanager
def held(lock: Path, what: str, *, wait_seconds: float = 0.0) -> Iterator[int]:
    """Lock the file `lock`, which is created if it is missing, and yield its descriptor; `what` it guards is for messages.

    The kernel releases the lock with the last process that inherited the descriptor: a killed holder leaves no stale lock.

    Raises:
        OutputExistsError: another process holds it, and still does after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    break
            os.close(descriptor)  # its holder put another directory in place between the two calls
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise OutputExistsError(
                    f"{what} is held by {holder or 'another process'}: wait for it, end it, or name another directory."
                ) from None
            time.sleep(0.1)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def locked_output(directory: Path, kind: str, content: str, *, wait_seconds: float = 0.0) -> AbstractContextManager[int]:
    """Make the directory that `--output` names, if need be, and return what locks it and yields the lock's descriptor.

    Args:
        kind: what writes to it, for messages: `bench` or `search`.
        content: the file by which a directory of this kind is known, once it has one.

    Raises:
        OutputExistsError: it holds something of another kind, or another process has locked it.
        ConfigError: it cannot be made.
    """
    is_known = any((directory / name).is_file() for name in (content, LOCK))
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not is_known):
        raise OutputExistsError(f"{directory} holds something other than a {kind}: name a new directory by --output.")
    if not directory.exists():
        check_parent(directory, option="--output")
        directory.mkdir(parents=True, exist_ok=True)
    return held(directory / LOCK, f"The {kind} in {directory}", wait_seconds=wait_seconds)


def names_to_replace(directory: Path, *, option: str, example: str) -> set[str]:
    """Return the names in a directory that an output would replace; none if there is no such directory yet.

    Args:
        option: the option that says where, for messages.
        example: the name of a directory of this kind.

    Raises:
        OutputExistsError: it is a file, the working directory or one above it, or a mount point.
        ConfigError: it cannot be made.
    """
    real, working = real_path(directory), Path.cwd()
    if real in (working, *working.parents) or os.path.ismount(real):
        raise OutputExistsError(
            f"{directory} is the working directory, one above it, or a mount point, and cannot be replaced: name a new "
            f"directory in it, {option} {directory / example}."
        )
    if os.path.lexists(real) and not real.is_dir():
        raise OutputExistsError(f"{directory} is a file: choose another {option}.")
    check_parent(directory, option=option)
    return {path.name for path in real.iterdir()} if real.is_dir() else set()


def real_path(path: Path) -> Path:
    """Return the absolute path with links followed: what a link points to is replaced, not the link."""
    return Path(os.path.realpath(path))


def check_parent(path: Path, *, option: str) -> None:
    """Try out whether `path` can be made, missing directories above it included; nothing is left behind.

    Raises:
        ConfigError: it cannot; the message names the option that says where.
    """
    above = next(parent for parent in Path(os.path.realpath(path)).parents if os.path.lexists(parent))
    try:
        Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=above)).rmdir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be made in {above} ({error.strerror}): choose another {option}.") from None
