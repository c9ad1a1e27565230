"""The search for settings: trials by Optuna, and a recipe file of the best."""

from isinglass.tuning.data import tuning_data
from isinglass.tuning.search import Tuned, tune
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import TunedTrial
from isinglass.tuning.trials import WORKER, Elsewhere

__all__ = ["WORKER", "Elsewhere", "SearchSpace", "Tuned", "TunedTrial", "tune", "tuning_data"]
