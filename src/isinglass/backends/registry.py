"""The backends by name."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isinglass.backends.process_group import ProcessGroup, SingleProcess
from isinglass.backends.protocol import Backend, Objective
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class _Entry:
    """Where a backend is, and what it needs.

    Attributes:
        module: the module whose `create` returns the backend.
        packages: packages that it imports.
        install: the command that installs them.
    """

    module: str
    packages: tuple[str, ...]
    install: str


BACKENDS: Final[Mapping[str, _Entry]] = MappingProxyType(
    {
        "torch": _Entry("isinglass.backends.torch.backend", ("torch",), "pip install 'isinglass[torch]'"),
        "tensorflow": _Entry(
            "isinglass.backends.keras.backend", ("tensorflow", "keras"), "pip install 'isinglass[tensorflow]'"
        ),
        "jax": _Entry("isinglass.backends.keras.backend", ("jax", "keras"), "pip install 'isinglass[jax]'"),
    }
)


def check_installed(name: str) -> str:
    """Return the module of the backend `name` without importing it.

    Raises:
        MissingDependencyError: a package that it needs is not installed.
    """
    entry = BACKENDS[name]
    for package in entry.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"The backend {name!r} needs {package}, which is not installed: `{entry.install}`.")
    return entry.module


def create_backend(
    config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup | None = None
) -> Backend:
    """Return a model on its device, ready to train and to predict. A missing head is drawn by `config.seed`.

    Args:
        group: the processes that share each training step; None: this process alone.

    Raises:
        ConfigError: the backend cannot run the precision on its device, or more layers are to be frozen than the
            model has.
        MissingDependencyError: a package that the backend needs is not installed.
    """
    module = importlib.import_module(check_installed(config.backend))
    layers = checkpoint.blueprint.num_hidden_layers
    if config.freeze_layers > layers:
        raise ConfigError(f"freeze_layers is {config.freeze_layers}; {checkpoint.origin} has {layers} layers.")
    backend: Backend = module.create(config, checkpoint, objective, group or SingleProcess())
    return backend
