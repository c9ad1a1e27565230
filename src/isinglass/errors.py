"""The exceptions of the package. A message is one sentence or two: what was found, where, what was expected, what to do."""

from typing import ClassVar


class IsinglassError(Exception):
    """A mistake that the user can fix. The command line prints it without a traceback and exits with `exit_status`."""

    exit_status: ClassVar[int] = 2


class ConfigError(IsinglassError, ValueError):
    """A setting is out of range, unknown, or does not fit another setting."""


class DataError(IsinglassError, ValueError):
    """A data file is missing or holds something other than what its task describes."""


class CheckpointError(IsinglassError, ValueError):
    """A model directory is incomplete, damaged, or of an architecture that is not served."""


class HubError(IsinglassError, OSError):
    """A file could be read neither from the Hugging Face hub nor from its local cache."""


class MissingDependencyError(IsinglassError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class TrainingDivergedError(IsinglassError, ArithmeticError):
    """The loss became NaN or infinite; the message says at which step."""

    exit_status = 4


class DeviceMemoryError(IsinglassError, MemoryError):
    """A training step does not fit into the device's memory."""

    exit_status = 5


class UpdateInterruptedError(IsinglassError, MemoryError):
    """The device's memory ran out while a step's weights were updated: some have changed, so the step cannot be repeated."""

    exit_status = 5


class ProcessLostError(IsinglassError, ConnectionError):
    """Another process that shared the training steps has ended, or cannot be reached."""

    exit_status = 6


class StorageError(IsinglassError, OSError):
    """A file could not be written: the disk is full, or writing is not allowed. An earlier file is unchanged."""

    exit_status = 3


class RunFailedError(IsinglassError, RuntimeError):
    """Some runs of a bench failed; the others are recorded."""


class OutputExistsError(IsinglassError, FileExistsError):
    """The output already exists and would be overwritten."""
