"""End a command: with its work done, or with one sentence on standard error and an exit status."""

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

_STORAGE_ERRORS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def announce(message: str) -> None:
    """Write straight to the terminal: a signal may come in the middle of a print, whose stream cannot be entered twice."""
    with suppress(OSError):
        os.write(2, f"isinglass: {message}\n".encode())


class _OneLine(logging.Handler):
    """Print records on one line: they may hold names from a stranger's file."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a run does not end because nobody reads its warnings
            _print_error(self.format(record))


@contextmanager
def how_to_resume(directory: Path) -> Iterator[None]:
    """Add to the message of an interrupted run how to continue from its checkpoint, if it wrote one."""
    from isinglass.training.checkpoints import CHECKPOINTS
    from isinglass.training.interruption import Interrupted

    try:
        yield
    except Interrupted as interrupted:
        if str(interrupted) and (directory / CHECKPOINTS).exists():
            how = f"the same command with --output-dir {directory} --resume continues from it."
            raise Interrupted(interrupted.number, f"{interrupted}; {how}") from None
        raise


@contextmanager
def errors_in_one_line(*, shared: bool = False) -> Iterator[None]:
    """Turn errors into one sentence on standard error and an exit status.

    Args:
        shared: the command may be one of several processes that share a run; then one on each host prints.
    """
    from isinglass.backends.process_group import launched_processes

    logging.basicConfig(level=logging.WARNING, handlers=[_OneLine()])
    try:
        if not shared and launched_processes() > 1:
            raise ConfigError("torchrun starts processes that share a training: this command runs in one of its own.")
        yield
        print(end="", flush=True)  # a closed pipe or a full disk shows itself now, not when Python ends
    except IsinglassError as error:
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt as interrupted:
        message = str(interrupted) or "interrupted; nothing was written of what was under way."
        _fail(message, 128 + getattr(interrupted, "number", 2))
    except OSError as error:
        _fail_to_write(error)


@contextmanager
def processes(backend: str) -> Iterator[Any]:
    """Join the processes that share a run. The first to fail prints its error; the others end silently."""
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
                _print_error(str(error))
            raise typer.Exit(error.exit_status) from None


def _fail_to_write(error: OSError) -> NoReturn:
    if sys.stdout:
        with suppress(OSError):
            sys.stdout.close()  # what it did not take is not tried again when Python ends
    if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `isinglass predict RUN_DIR | head`
        raise typer.Exit(1) from None
    message = f"{error.filename or 'Writing output'}: {error.strerror}." if error.strerror else str(error)
    _fail(message, StorageError.exit_status if error.errno in _STORAGE_ERRORS else 2)


def _fail(message: str, status: int) -> NoReturn:
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("LOCAL_RANK", "0") == "0":
        _print_error(message)  # torchrun's other processes on this host fail alike
    raise typer.Exit(status) from None


def _print_error(message: str) -> None:
    print(f"isinglass: {printable(message)}", file=sys.stderr)
