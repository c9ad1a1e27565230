"""How a command ends: with its work done, or with one sentence on standard error and an exit status."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import typer

from isinglass.errors import ConfigError, IsinglassError, StorageError
from isinglass.names import printable

_STORAGE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # the disk's fault, not the command's


def announce(message: str) -> None:
    """Straight to the terminal: a signal may come in the middle of a print, whose stream cannot be entered twice."""
    with suppress(OSError):
        os.write(2, f"isinglass: {message}\n".encode())


class _OneLine(logging.Formatter):
    """What is logged may hold names from a stranger's file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record))


@contextmanager
def how_to_resume(directory: Path) -> Iterator[None]:
    """Add to the message of a run that was asked to end how to continue from its checkpoint, if it wrote one."""
    from isinglass.training.checkpoints import CHECKPOINTS
    from isinglass.training.interruption import Interrupted

    try:
        yield
    except Interrupted as interrupted:
        if str(interrupted) and (directory / CHECKPOINTS).exists():
            how = f"the same command with --output-dir {directory} --resume goes on from it."
            raise Interrupted(interrupted.number, f"{interrupted}; {how}") from None
        raise


@contextmanager
def errors_in_one_line(*, shared: bool = False) -> Iterator[None]:
    """A user's mistake, or a full disk, is one sentence on standard error and exit status 2.

    Args:
        shared: the command may be one of several processes that share its work; one on each host speaks.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_OneLine("isinglass: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    try:
        if not shared:
            from isinglass.backends.process_group import launched_processes

            if launched_processes() > 1:
                raise ConfigError("torchrun starts processes that share a training: this command runs in one of its own.")
        yield
        print(end="", flush=True)  # here, not when Python ends: a closed pipe or a full disk shows itself now
    except IsinglassError as error:
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt as interrupted:
        message = str(interrupted) or "interrupted; nothing was written of what was under way."
        _fail(message, 128 + getattr(interrupted, "number", 2))
    except OSError as error:
        if sys.stdout:
            with suppress(OSError):
                sys.stdout.close()  # what it did not take is not tried again when Python ends
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `isinglass predict RUN_DIR | head`
            raise typer.Exit(1) from None
        status = StorageError.exit_status if error.errno in _STORAGE else 2
        _fail(f"{error.filename or 'Writing output'}: {error.strerror}." if error.strerror else str(error), status)


@contextmanager
def processes(backend: str) -> Iterator[Any]:
    """The processes that share a run. One of them tells the user why it ends: the first to fail; the others end silently."""
    from isinglass.backends.process_group import joined
    from isinglass.training.interruption import Interrupted

    with joined(backend) as group:
        if group.rank > 0:
            logging.disable(logging.WARNING)
        try:
            yield group
        except Interrupted as interrupted:
            if group.rank > 0 and group.has_launcher:
                raise typer.Exit(128 + interrupted.number) from None
            raise
        except IsinglassError as error:
            if group.speaks():
                _say(str(error))
            raise typer.Exit(error.exit_status) from None


def _fail(message: str, status: int) -> NoReturn:
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0":
        _say(message)  # torchrun's other processes on this host fail alike
    raise typer.Exit(status) from None


def _say(message: str) -> None:
    print(f"isinglass: {printable(message)}", file=sys.stderr)
