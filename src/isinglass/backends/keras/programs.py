"""What is compiled, and what it computes with: the same for TensorFlow and JAX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from keras import ops

from isinglass.backends.keras.dropout import DropoutMasks
from isinglass.backends.keras.loss import example_losses
from isinglass.backends.keras.model import Classifier
from isinglass.backends.protocol import Objective

Inputs = dict[str, Any]
"""Name -> array: what a program takes. The arrays of a batch, `labels` but in prediction, `weights` of the examples' losses,
and in training the `key` of the dropout masks."""


@dataclass(frozen=True)
class Learner:
    """A model, its optimizer and what it learns.

    Attributes:
        trained: positions in the model's parameters of those that the optimizer updates.
    """

    model: Classifier
    optimizer: Any
    trained: list[int]
    objective: Objective

    def loss(self, inputs: Inputs, masks: DropoutMasks | None) -> Any:
        """Return the weighted sum of the examples' losses, float32 ()."""
        losses = example_losses(self.objective, self.logits(inputs, masks), inputs["labels"])
        return ops.sum(losses * inputs["weights"])

    def logits(self, inputs: Inputs, masks: DropoutMasks | None) -> Any:
        """Return float32 (S, K)."""
        names = ("input_ids", "token_type_ids", "position_ids", "sequence_ids", "first_token")
        return self.model(*(inputs[name] for name in names), masks=masks)


@runtime_checkable
class Programs(Protocol):
    """The compiled programs. Each is traced at its first call with a new shape of inputs."""

    @property
    def updates_begun(self) -> int:
        """Number of updates that have begun, if one that fails may have changed some of the weights; else 0."""

    def train(self, inputs: Inputs) -> Any:
        """Do one step on a batch, and return its loss. If it raises, nothing has changed, but for `updates_begun`."""

    def train_in_parts(self, parts: Sequence[Inputs]) -> Any:
        """Do one step on the sum of the losses of these parts, and of all processes; else as `train`."""

    def predict(self, inputs: Inputs) -> Any:
        """Return logits, float32 (S, K)."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory is short.

    TensorFlow has a class of its own for it, and a message where inputs find no room on a GPU. JAX has a status in its
    message. A MemoryError comes from tracing, where C++ allocates, and not the device's allocator.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Dst tensor is not initialized"))
