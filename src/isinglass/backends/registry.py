"""The backends by name."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Final

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, Objective
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.models.checkpoint import Checkpoint

# Name -> the module whose `create` returns the backend, and the packages that it needs.
BACKENDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "torch": ("isinglass.backends.torch.backend", ("torch",)),
    "tensorflow": ("isinglass.backends.keras", ("tensorflow", "keras")),
    "jax": ("isinglass.backends.keras", ("jax", "keras")),
}


def check_installed(name: str) -> str:
    """Return the module of the backend `name` without importing it.

    Raises:
        MissingDependencyError: a package that it needs is not installed.
    """
    module, packages = BACKENDS[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            advice = f"`pip install 'isinglass[{name}]'`"
            raise MissingDependencyError(f"The backend {name!r} needs {package}, which is not installed: {advice}.")
    return module


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
    backend: Backend = module.create(config, checkpoint, objective, group or ProcessGroup())
    return backend
