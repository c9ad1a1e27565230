"""The search for settings: trials by Optuna, and a recipe file of the best one."""

from isinglass.tuning.harness import Tuned, tune, tuning_data
from isinglass.tuning.search import SearchSpace, TunedTrial, TuningObserver

__all__ = ["SearchSpace", "Tuned", "TunedTrial", "TuningObserver", "tune", "tuning_data"]
