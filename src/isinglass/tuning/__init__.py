"""The search for settings: trials by Optuna, and a recipe file of the best one."""

from isinglass.tuning.harness import Tuned, tune, tuning_data
from isinglass.tuning.search import TunedTrial, TuningObserver
from isinglass.tuning.search_space import SearchSpace

__all__ = ["SearchSpace", "Tuned", "TunedTrial", "TuningObserver", "tune", "tuning_data"]
