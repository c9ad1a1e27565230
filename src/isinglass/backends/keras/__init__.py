"""Keras 3 on TensorFlow or JAX: the only folder that imports keras, tensorflow or jax."""

import importlib
import os
import sys

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, Objective
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError
from isinglass.models.checkpoint import Checkpoint


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> Backend:
    """Return the backend on the first GPU if there is one, else on the CPU.

    Raises:
        ConfigError: Keras runs on another framework already: a process has one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on the CPU are not the user's business
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = config.backend
    import keras

    other = keras.backend.backend()
    if other != config.backend:
        raise ConfigError(f"Keras runs on {other} in this process: use the backend {config.backend} in another one.")
    module = importlib.import_module(f"isinglass.backends.keras.{config.backend}_backend")
    backend: Backend = module.FrameworkBackend(config, checkpoint, objective, group)
    return backend
