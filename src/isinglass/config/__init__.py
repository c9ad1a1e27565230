"""Settings of a run: declared once in `settings`, put together here, saved with each result.

Their order: default < recipe < environment < config file < flag < `--set`.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from isinglass.config.settings import SETTINGS, KindChoice, Precision, TrainConfig
from isinglass.errors import ConfigError
from isinglass.names import did_you_mean

__all__ = [
    "PLACES",
    "RECIPES",
    "SETTINGS",
    "KindChoice",
    "Precision",
    "TrainConfig",
    "as_dict",
    "changed",
    "default_recipe",
    "identifying",
    "resolve",
]


@dataclass(frozen=True)
class Recipe:
    """Values that take the place of defaults.

    Attributes:
        source: where the values come from.
        values_of_tasks: task -> setting -> value, where a task needs others.
        values: setting -> value, for all tasks.
        chooses: the settings whose values it chooses later, by the model and the data (`training/choice.py`).
    """

    source: str
    values_of_tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    chooses: tuple[str, ...] = ()

    def values_for(self, task: str) -> dict[str, Any]:
        """Return the values for a task: setting -> value."""
        return {**self.values, **self.values_of_tasks.get(task, {})}


_MINILM: Final = (
    "for encoders of MiniLM's size: the best of four on held-out parts of RTE's and MRPC's train (benchmarks.md)"
)
RECIPES: Final[Mapping[str, Recipe]] = {
    "auto": Recipe(
        "chosen by the model and the training data (experiments.md)",
        chooses=("batch_size", "max_length", "epochs", "learning_rate", "warmup_ratio", "head_start", "tune_threshold"),
    ),
    "classic": Recipe("the PyTorch table of the classic GLUE example script of `transformers`", {"wnli": {"epochs": 5}}),
    "small": Recipe(_MINILM, {"wnli": {"epochs": 5}}, {"learning_rate": 2e-4}),
}
SWITCHES: Final[Mapping[str, Mapping[str, Any]]] = {"USE_AMP": {"precision": "amp"}, "USE_XLA": {"xla": True}}
"""Environment variable -> the settings that it stands for, where the backend is tensorflow."""
_SWITCHED: Final = {"": False, "0": False, "false": False, "1": True, "true": True}
PLACES: Final = tuple(name for name, setting in SETTINGS.items() if setting.is_path_of_data)


def resolve(
    *,
    task: str,
    recipe: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> TrainConfig:
    """Return the settings of a run.

    Args:
        task: the task's name.
        recipe: the name of a recipe; None: the one that another source names, or `auto` for the user's own files and
            `classic` for other tasks.
        config_file: a TOML or JSON file, an object of settings.
        flags: setting -> value from the command line; None means that the flag was not used.
        assignments: texts `setting=value`.
        environment: where USE_XLA and USE_AMP are looked up, the switches of the classic TensorFlow example. With the
            backend tensorflow they stand for `xla` and for the precision `amp`.

    Raises:
        ConfigError: an unknown setting or recipe, or a value of the wrong kind or out of range.
    """
    named = {} if config_file is None else _read_config_file(config_file)
    named |= {name: value for name, value in (flags or {}).items() if value is not None}
    named |= dict(map(_parse_assignment, assignments))
    recipe = str(recipe or named.get("recipe") or default_recipe(named))
    if recipe not in RECIPES:
        raise ConfigError(f"There is no recipe {recipe!r}{did_you_mean(recipe, RECIPES)}; there are {', '.join(RECIPES)}.")
    merged = RECIPES[recipe].values_for(task) | named
    if merged.get("backend") == "tensorflow":
        merged = _read_switches(environment or {}) | merged
    left_open = [name for name in RECIPES[recipe].chooses if name not in named]
    merged = {"chosen": left_open} | merged | {"task": task, "recipe": recipe}
    return TrainConfig(**{name: _parse(name, value) for name, value in merged.items()})


def default_recipe(settings: Mapping[str, Any]) -> str:
    """Return the recipe that settings have where they name none: `auto` for the user's own data, else `classic`."""
    return "auto" if settings.get("train_file") or settings.get("dataset") else "classic"


def changed(config: TrainConfig, **values: Any) -> TrainConfig:
    """Return the settings with other values, which the recipe does not choose any more."""
    return replace(config, **values, chosen=tuple(name for name in config.chosen if name not in values))


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as plain values that JSON knows, in the order of the fields."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def identifying(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that make two runs the same: all but the data's places, and the values that the recipe chooses.

    `baselines` is left out too, since the model does not depend on it.
    """
    derived = {*PLACES, *settings.get("chosen", ()), "baselines"}
    return {name: value for name, value in settings.items() if name not in derived}


def _parse(name: str, value: Any) -> Any:
    if name not in SETTINGS:
        raise ConfigError(f"There is no setting {name!r}{did_you_mean(name, SETTINGS)}; there are {', '.join(SETTINGS)}.")
    return SETTINGS[name].parse(value)


def _read_config_file(path: Path) -> dict[str, Any]:
    read = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        return dict(read(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path} cannot be read: {error}.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"The config file {path} is not a {path.suffix or 'TOML'} object of settings: {error}.") from None


def _parse_assignment(text: str) -> tuple[str, str]:
    name, equals_sign, value = text.partition("=")
    if not equals_sign:
        raise ConfigError(f"--set {text!r}: a setting and its value are expected, as in --set weight_decay=0.01.")
    return name.strip(), value.strip()


def _read_switches(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return setting -> value of the environment variables that are switched on."""
    values: dict[str, Any] = {}
    for variable, settings in SWITCHES.items():
        text = environment.get(variable, "")
        if text.lower() not in _SWITCHED:
            raise ConfigError(f"The environment variable {variable} is {text!r}; 0 or 1 was expected.")
        if _SWITCHED[text.lower()]:
            values |= settings
    return values
