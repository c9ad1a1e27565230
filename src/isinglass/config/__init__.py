"""Settings of a run: declared once in `settings`, put together by `resolve`, saved with each result."""

from isinglass.config.recipes import RECIPES as RECIPES
from isinglass.config.resolution import PLACES as PLACES
from isinglass.config.resolution import as_dict as as_dict
from isinglass.config.resolution import resolve as resolve
from isinglass.config.resolution import without_places as without_places
from isinglass.config.settings import GROUPS as GROUPS
from isinglass.config.settings import SETTINGS as SETTINGS
from isinglass.config.settings import KindChoice as KindChoice
from isinglass.config.settings import Precision as Precision
from isinglass.config.settings import TrainConfig as TrainConfig
