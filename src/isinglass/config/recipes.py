"""Recipes: published or measured values of settings, as values with their source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from isinglass.errors import ConfigError
from isinglass.names import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Values that take the place of defaults.

    Attributes:
        name: what `--recipe` calls it.
        source: where the values come from.
        values: setting -> value, for all tasks.
        values_of_tasks: task -> setting -> value, where a task needs others.
    """

    name: str
    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    values_of_tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def values_for(self, task: str) -> dict[str, Any]:
        """Return the values for a task: setting -> value."""
        return {**self.values, **self.values_of_tasks.get(task, {})}


_WNLI: Final = {"wnli": {"epochs": 5}}
RECIPES: Final[Mapping[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="classic",
            source="the PyTorch table of the classic GLUE example script of `transformers`",
            values_of_tasks=_WNLI,
        ),
        Recipe(
            name="small",
            source="the best of four learning rates on held-out parts of RTE's and MRPC's training sets, for encoders of "
            "MiniLM's size (benchmarks.md)",
            values={"learning_rate": 2e-4},
            values_of_tasks=_WNLI,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"There is no recipe {name!r}{did_you_mean(name, RECIPES)}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
