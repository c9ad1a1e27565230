"""What the training loop asks of a backend. A backend is one folder with the file names of `torch/`."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, SupportsFloat

import numpy as np
from jaxtyping import Float32

from isinglass.backends.process_group import ProcessGroup, SingleProcess
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.names import did_you_mean
from isinglass.packing import PackedBatch
from isinglass.tasks import Kind, Task

LEAST_FOR_STREAMS: Final = 768  # tokens of a step: with fewer, two streams take longer than one (docs/experiments.md)

# name -> (module, the packages it needs, how to install them)
BACKENDS: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = MappingProxyType(
    {
        "torch": ("isinglass.backends.torch.backend", ("torch",), "pip install 'isinglass[torch]'"),
        "tensorflow": ("isinglass.backends.keras.backend", ("tensorflow", "keras"), "pip install 'isinglass[tensorflow]'"),
        "jax": ("isinglass.backends.keras.backend", ("jax", "keras"), "pip install 'isinglass[jax]'"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised, as the mean over the examples of a step.

    Attributes:
        kind: `classification`: the cross entropy; `regression`: the squared error of the single output; `multilabel`: the
            mean over the outputs of the binary cross entropy.
        num_outputs: K, of the head.
        class_weights: K factors: of an example's loss by its class; of a multi-label task, of each output's loss where the
            example has the label.
        label_smoothing: e: classification learns 1 - e for the label, and e / K more for all; a multi-label task
            1 - e / 2 and e / 2.
    """

    kind: Kind
    num_outputs: int
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    @staticmethod
    def of(task: Task) -> "Objective":
        """To score with, or to train without weights."""
        return Objective(kind=task.kind, num_outputs=task.num_outputs)


def rate_factor(depth: int, num_layers: int, config: TrainConfig) -> float:
    """What the learning rate of a parameter is multiplied with: 0 for one that stays as it is.

    Args:
        depth: 0 for the embeddings, 1 to `num_layers` for the layers from the lowest on, `num_layers + 1` for the head.
    """
    frozen = depth <= config.freeze_layers and (depth > 0 or config.freeze_layers > 0 or config.freeze_embeddings)
    return 0.0 if frozen else config.layer_decay ** (num_layers + 1 - depth)


def parts_of_step(tokens: int, streams: int) -> int:
    """Into how many micro-batches a step of so many tokens is best cut, on a backend of so many streams."""
    return streams if tokens >= LEAST_FOR_STREAMS else 1


class Backend(Protocol):
    """A model on a device, with its optimizer."""

    device: str
    """The device in words, for the result."""
    precision: str
    """What runs: `amp` resolved."""
    notes: list[str]
    """Every slower path taken, with its reason."""
    compile_seconds: float
    """Spent in steps that trace, compile or record for a new shape; else 0."""
    streams: int
    """How many batches are best handed over together: 2 on a CPU, which works on both at the same time, each on half of its
    threads; else 1. To be set to 1 where memory is short."""

    @property
    def compilations(self) -> int:
        """How many training programs were traced, compiled or recorded, one for each shape of batch; 0 where none is."""

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """One optimizer step on the mean loss of all examples of these micro-batches: at most `streams` at the same time,
        more one after another.

        Does not wait for the device.

        Args:
            share: of the step's examples, those that are in this process's batches; the gradients of all processes are
                summed. At 0 the batches only keep the others company.

        Raises:
            DeviceMemoryError: it does not fit; no weight has changed, and the step can be tried in smaller parts.
            ProcessLostError: another process has ended.
        """

    def take_losses(self) -> list[float]:
        """The losses of the steps since the last call, in order. Waits for the device."""

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """Logits (regression: the value) of each example of each batch, `streams` of which are worked on at a time.

        Raises:
            DeviceMemoryError: together they do not fit.
        """

    def backward(self, batch: PackedBatch, masks: None) -> SupportsFloat:
        """Leave the gradient of the batch's mean loss in the backend, and return the loss; `masks` None: no dropout."""

    def clear_gradients(self) -> None:
        """Forget what `backward` left."""

    def gradients(self) -> Weights:
        """What `backward` left, under canonical names."""

    def weights(self) -> Weights:
        """All weights under canonical names."""

    def load(self, weights: Weights) -> None:
        """Take what `weights` returned; the optimizer's state stays."""

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Weights, the optimizer's moments and counters, and the loss scale, bit by bit; may share the live memory."""

    def restore(self, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Go on from what `state` returned in another process."""

    def synchronize(self) -> None:
        """Wait for the device: a clock may be read after it."""

    def peak_memory_bytes(self) -> int:
        """Of the process on a CPU, of the device's tensors on a GPU."""


def slow_bf16(device: str) -> str:
    """The note of a device without bf16 instructions."""
    return f"bf16 has no hardware support on {device}: it runs, slowly."


def widened_bf16(device: str) -> str:
    """The note of a CPU without bf16 instructions whose bf16 products run in fp32."""
    return (
        f"bf16 has no hardware support on {device}: its products run in fp32 and are rounded, which is no faster than fp32."
    )


def check_installed(name: str) -> str:
    """The module of the backend of that name, not imported: asked before the data are read.

    Raises:
        ConfigError: there is none of that name.
        MissingDependencyError: its package is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"There is no backend {name!r}{did_you_mean(name, BACKENDS)}; there are {', '.join(BACKENDS)}.")
    module, packages, command = BACKENDS[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"The backend {name!r} needs {package}, which is not installed: `{command}`.")
    return module


def create_backend(
    config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup | None = None
) -> Backend:
    """Put a checkpoint on a device, ready to train and to predict. A head that it lacks is drawn by `config.seed`.

    Args:
        group: the processes that share each training step; None: it is this one alone.

    Raises:
        ConfigError: the backend is unknown or cannot run the precision on its device, or all layers are to be frozen that
            the model has, and more.
        MissingDependencyError: its package is not installed.
    """
    module = importlib.import_module(check_installed(config.backend))
    layers = checkpoint.config.num_hidden_layers
    if config.freeze_layers > layers:
        raise ConfigError(f"freeze_layers is {config.freeze_layers}; {checkpoint.origin} has {layers} layers.")
    backend: Backend = module.create(config, checkpoint, objective, group or SingleProcess())
    return backend
