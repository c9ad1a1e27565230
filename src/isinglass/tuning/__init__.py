"""The search for settings: trials by Optuna, and a recipe file of the best one."""

from isinglass.tuning.data import tuning_data
from isinglass.tuning.harness import Tuned, tune
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import TunedTrial
from isinglass.tuning.trials import TuningObserver

__all__ = ["SearchSpace", "Tuned", "TunedTrial", "TuningObserver", "tune", "tuning_data"]
