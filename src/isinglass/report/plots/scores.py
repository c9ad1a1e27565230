"""The scores of each seed beside that of the most frequent label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isinglass.report.plots.canvas import INK, Series, legend, rows_of_panels, style, to_svg


@dataclass(frozen=True, kw_only=True)
class ScorePanel:
    """One metric of one scored split: scores of each seed in percent (None: NaN), and of the most frequent label."""

    label: str
    scores: Mapping[Series, Sequence[float | None]]
    majority: float | None


@style()
def seed_scores(key: str, title: str, panels: Sequence[ScorePanel]) -> str:
    """Draw panels side by side: a dot for each seed, a bar at their mean, a dashed line at the majority."""
    rows = [_missing(one, [panel.scores[one] for panel in panels]) for one in panels[0].scores]
    figure, axes = rows_of_panels(title, rows, [panel.label for panel in panels], foot=20)
    dashes = (0, (3, 2))
    for ax, panel in zip(axes, panels, strict=True):
        known = [] if panel.majority is None else [panel.majority]
        for row, (one, scores) in enumerate(panel.scores.items()):
            values = [score for score in scores if score is not None]
            known += values
            ax.plot(values, [row] * len(values), "o", color=one.ink, markersize=6.5, markeredgewidth=0, alpha=0.6)
            if values:
                ax.vlines(float(np.mean(values)), row - 0.2, row + 0.2, color=INK, linewidth=1.6)
            if panel.majority is not None:
                ax.vlines(panel.majority, row - 0.2, row + 0.3, color=INK, linewidth=1.1, linestyle=dashes)
        low, high = (min(known), max(known)) if known else (0.0, 100.0)
        margin = max(0.08 * (high - low), 0.5)
        ax.set_xlim(low - margin, high + margin)
    handles = axes[0].plot([], [], "o", color=INK, alpha=0.6, markeredgewidth=0, label="one seed")
    handles += axes[0].plot([], [], "|", color=INK, markersize=9, markeredgewidth=1.6, label="mean")
    if any(panel.majority is not None for panel in panels):
        handles += axes[0].plot([], [], color=INK, linewidth=1.1, linestyle=dashes, label="most frequent label")
    legend(figure, handles)
    return to_svg(figure, key, f"{title}: score of each seed beside that of the most frequent label")


def _missing(series: Series, scores: Sequence[Sequence[float | None]]) -> str:
    """Return the name, with the number of seeds that have no score in some panel."""
    missing = max(sum(score is None for score in panel) for panel in scores)
    return f"{series.label} ({missing} NaN)" if missing else series.label
