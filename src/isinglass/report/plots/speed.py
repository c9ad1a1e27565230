"""Throughput and training time as bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isinglass.report.plots.canvas import INK, Series, figures, rows_of_panels, style, to_svg


@dataclass(frozen=True, kw_only=True)
class SpeedPanel:
    """One measure with its unit: a value for each run of each series."""

    label: str
    values: Mapping[Series, Sequence[float]]


@style()
def speed_bars(key: str, title: str, panels: Sequence[SpeedPanel]) -> str:
    """Draw a bar for the mean of each series' runs, and a line from the lowest run to the highest."""
    series = list(panels[0].values)
    figure, axes = rows_of_panels(title, [one.label for one in series], [panel.label for panel in panels])
    for ax, panel in zip(axes, panels, strict=True):
        highest = max(max(values) for values in panel.values.values()) or 1.0
        for row, (one, values) in enumerate(panel.values.items()):
            mean = float(np.mean(values))
            ax.barh(row, mean, height=0.36, color=one.ink)
            if len(values) > 1:
                ax.hlines(row, min(values), max(values), color=INK, linewidth=1.2)
            ax.text(max(values) + 0.05 * highest, row, figures(mean), va="center", fontsize=9)
        ax.set_xlim(0, 1.55 * highest)
        ax.set_xticks([0, _round_below(highest)])
        ax.xaxis.set_major_formatter(lambda value, _: figures(value))
    return to_svg(figure, key, f"{title}: {', '.join(panel.label for panel in panels)} by configuration")


def _round_below(value: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value))
