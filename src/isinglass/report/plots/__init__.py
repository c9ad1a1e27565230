"""Plots as inline SVG: text stays text, ink is `currentColor`, colours are CSS variables, ids are unique to the plot.

Each function takes plain values and returns one `<svg>` element for an HTML page. `key` names the plot: ids begin with it.
"""

from isinglass.report.plots.answers import confusion_matrix, value_scatter
from isinglass.report.plots.canvas import Series
from isinglass.report.plots.curves import learning_curves, smooth
from isinglass.report.plots.lengths import length_histogram
from isinglass.report.plots.scores import ScorePanel, seed_scores
from isinglass.report.plots.speed import SpeedPanel, speed_bars

__all__ = [
    "ScorePanel",
    "Series",
    "SpeedPanel",
    "confusion_matrix",
    "learning_curves",
    "length_histogram",
    "seed_scores",
    "smooth",
    "speed_bars",
    "value_scatter",
]
