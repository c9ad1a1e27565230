"""Settings of a run: declared once in `settings`, put together by `resolve`, saved with each result."""

from isinglass.config.recipes import RECIPES, Recipe
from isinglass.config.resolution import PLACES, as_dict, resolve, without_places
from isinglass.config.setting import Panel, Setting, Settings, settings_of
from isinglass.config.settings import (
    GROUPS,
    SETTINGS,
    Backend,
    DataSettings,
    ExecutionSettings,
    KindChoice,
    Layout,
    LongTexts,
    ModelSettings,
    OptimizerSettings,
    Precision,
    Schedule,
    TableSettings,
    TrainConfig,
    TrainingSettings,
)

__all__ = [
    "GROUPS",
    "PLACES",
    "RECIPES",
    "SETTINGS",
    "Backend",
    "DataSettings",
    "ExecutionSettings",
    "KindChoice",
    "Layout",
    "LongTexts",
    "ModelSettings",
    "OptimizerSettings",
    "Panel",
    "Precision",
    "Recipe",
    "Schedule",
    "Setting",
    "Settings",
    "TableSettings",
    "TrainConfig",
    "TrainingSettings",
    "as_dict",
    "resolve",
    "settings_of",
    "without_places",
]
