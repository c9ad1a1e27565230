"""Recipes: published or measured values of settings, with their source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Recipe:
    """Values that take the place of defaults.

    Attributes:
        source: where the values come from.
        values_of_tasks: task -> setting -> value, where a task needs others.
        values: setting -> value, for all tasks.
    """

    source: str
    values_of_tasks: Mapping[str, Mapping[str, Any]]
    values: Mapping[str, Any] = field(default_factory=dict)

    def values_for(self, task: str) -> dict[str, Any]:
        """Return the values for a task: setting -> value."""
        return {**self.values, **self.values_of_tasks.get(task, {})}


_MINILM: Final = (
    "for encoders of MiniLM's size: the best of four on held-out parts of RTE's and MRPC's train (benchmarks.md)"
)
RECIPES: Final[Mapping[str, Recipe]] = {
    "classic": Recipe("the PyTorch table of the classic GLUE example script of `transformers`", {"wnli": {"epochs": 5}}),
    "small": Recipe(_MINILM, {"wnli": {"epochs": 5}}, {"learning_rate": 2e-4}),
}
