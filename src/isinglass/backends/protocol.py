"""What a backend is given, what the training loop and prediction need from it, and the backends by name.

A backend is one folder with the file names of `torch/`.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup
from isinglass.config import TrainConfig
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.models.blueprint import Parameter
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch
from isinglass.tasks import KindName, Task

LEAST_PARALLEL_TOKENS: Final = 768  # tokens of a step: with fewer, two parallel batches are slower (docs/experiments.md)


def parts_of_step(tokens: int, parallel_batches: int) -> int:
    """Return the number of micro-batches to cut a step of `tokens` tokens into, for a backend that works on
    `parallel_batches` at the same time.
    """
    return parallel_batches if tokens >= LEAST_PARALLEL_TOKENS else 1


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss: the mean over the examples of a step of what `kind` says.

    Attributes:
        kind: `classification`: the cross entropy. `regression`: the squared error of the single output. `multilabel`: the
            mean over the outputs of the binary cross entropy.
        num_outputs: outputs of the head, K.
        class_weights: K factors. In classification they multiply the loss of an example, by its class. With several labels
            they multiply the term of the label in the cross entropy of its output (PyTorch's `pos_weight`).
        label_smoothing: e, from 0 to below 1. Classification trains towards 1 - e for the label plus e / K for every class;
            a task with several labels trains towards 1 - e / 2 and e / 2.
    """

    kind: KindName
    num_outputs: int
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    @staticmethod
    def of(task: Task) -> "Objective":
        """Return the objective of a task, without weights and smoothing."""
        return Objective(kind=task.kind.name, num_outputs=task.num_outputs)


@dataclass(frozen=True)
class UpdateRule:
    """How AdamW treats one parameter.

    Attributes:
        rate_factor: the learning rate is multiplied with it; 0: the parameter is frozen.
        decays: whether weight decay applies.
    """

    rate_factor: float
    decays: bool

    @staticmethod
    def of(parameter: Parameter, num_blocks: int, config: TrainConfig) -> "UpdateRule":
        """Return the rule for a parameter of an encoder with `num_blocks` blocks. Below frozen blocks all is frozen."""
        depth, frozen = parameter.depth, config.freeze_layers
        is_frozen = depth <= frozen and (frozen > 0 or config.freeze_embeddings)
        return UpdateRule(0.0 if is_frozen else config.layer_decay ** (num_blocks + 1 - depth), parameter.decays)


@runtime_checkable
class Backend(Protocol):
    """A model on a device, with its optimizer."""

    device: str
    """Description of the device, for the result."""
    precision: str
    """The precision that runs; never `amp`, which stands for another."""
    notes: list[str]
    """Slower paths that are taken, each with its reason."""
    compile_seconds: float
    """Seconds spent in steps that traced, compiled or recorded a program for a new shape of batch."""
    parallel_batches: int
    """Number of batches that are best passed together. 2 on a CPU, which works on both at the same time, each on half of its
    threads; else 1. May be set to 1 where memory is short."""

    @property
    def compilations(self) -> int:
        """Number of training programs that were traced, compiled or recorded, one for each shape of batch."""

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """Do one optimizer step on the mean loss of all examples of the micro-batches.

        Up to `parallel_batches` of them run at the same time, more of them one after another. Does not wait for the device.

        Args:
            share: share of the step's examples that this process has; the gradients of all processes are summed. With share
                0 this process contributes no gradient and only joins the collectives.

        Raises:
            DeviceMemoryError: the memory does not suffice. No weight has changed: smaller parts can be tried.
            ProcessLostError: another process has ended.
        """

    def take_losses(self) -> list[float]:
        """Return the losses of the steps since the last call, in order. Waits for the device."""

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """Return the logits of each batch (in regression the value).

        Up to `parallel_batches` of them run at the same time, more of them one after another.

        Raises:
            DeviceMemoryError: the batches together do not fit into the memory.
        """

    def weights(self) -> Weights:
        """Return all weights under canonical names."""

    def load(self, weights: Weights) -> None:
        """Replace the weights with what `weights` returned; the optimizer's state stays."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the weights, the optimizer's state and the loss scale, bit by bit. The arrays may share the live memory."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `state` returned in another process."""

    def synchronize(self) -> None:
        """Wait for the device, so that a clock may be read."""

    def peak_memory_bytes(self) -> int:
        """Return the peak memory: of the process on a CPU, of the device's tensors on a GPU."""


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
