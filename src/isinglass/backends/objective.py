"""What training minimises."""

from dataclasses import dataclass

from isinglass.tasks import KindName, Task


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
