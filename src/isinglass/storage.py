"""Files that are whole or absent, whatever ends the process, and directories that one process holds at a time."""

import ctypes
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isinglass.errors import ConfigError, OutputExistsError


def cache_dir() -> Path:
    """Where tokens and texts are kept: `$ISINGLASS_CACHE`, else `$XDG_CACHE_HOME/isinglass`, else `~/.cache/isinglass`."""
    if own := os.environ.get("ISINGLASS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isinglass"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file to write beside `path`; when the block ends well it is synced to disk and takes `path`'s place.

    Raises:
        OSError: the disk is full, say. `path` is as it was, and nothing is left beside it.
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
    """Sync a directory and all in it, and give it the name `place`; what stood there before has the name of `partial` then.

    Raises:
        OSError: the disk is full, say; `place` is as it was.
    """
    for path in (*partial.rglob("*"), partial):
        sync(path)
    if place.exists():
        _exchange(partial, place)
    else:
        partial.rename(place)
    sync(place.parent)


def _exchange(one: Path, other: Path) -> None:
    """Swap two names: at no moment is either of them absent.

    Where the system cannot (other than Linux, or an old file system), by three renames.
    """
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    working, exchanging = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if swap is None or swap(working, os.fsencode(one), working, os.fsencode(other), exchanging) != 0:
        aside = one.with_name(f"{one.name}.aside")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)


@contextmanager
def held(lock: Path, what: str, *, wait_seconds: float = 0.0) -> Iterator[int]:
    """Hold the file `lock`, made if need be, and yield its descriptor; `what` it guards is for the message.

    The kernel lets go of it with the last process that inherited the descriptor: a killed holder leaves no stale lock.

    Raises:
        OutputExistsError: another process holds it, and still does after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, lock):
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


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


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
