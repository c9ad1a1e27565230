"""The training loss against the step."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from isinglass.report.plots.canvas import WIDTH, Series, cut, figures, new_axes, new_figure, style, to_svg

RAW_POINTS, SMOOTH_POINTS = 240, 120  # most points drawn of one run's loss


@style()
def learning_curves(key: str, title: str, losses: Mapping[Series, Sequence[Float64[np.ndarray, " steps"]]]) -> str:
    """Draw a panel for each series, all to one scale: the smoothed loss of each seed, and the first seed's own behind it."""
    columns = min(2, len(losses))
    rows = -(-len(losses) // columns)
    width = (WIDTH - 58 - 14 * (columns - 1)) / columns
    figure = new_figure(title, 44 + 112 * rows)
    highest = max(float(np.nanmax(loss)) for runs in losses.values() for loss in runs)
    longest = max(len(loss) for runs in losses.values() for loss in runs)
    for i, (one, runs) in enumerate(losses.items()):
        ax = new_axes(figure, 42 + (width + 14) * (i % columns), 38 + 112 * (i // columns), width, 84)
        steps = _spread(len(runs[0]), RAW_POINTS)
        ax.plot(steps, runs[0][steps], color=one.ink, linewidth=0.7, alpha=0.35)
        for loss in runs:
            steps = _spread(len(loss), SMOOTH_POINTS)
            ax.plot(steps, smooth(loss)[steps], color=one.ink, linewidth=1.1)
        ax.set(xlim=(0, max(longest - 1, 1)), ylim=(0, 1.05 * highest or 1.0))
        ax.grid(axis="y")
        ax.locator_params(nbins=4)
        ax.xaxis.set_major_formatter(lambda value, _: figures(value))
        ax.set_title(cut(one.label, 44 // columns + 2), fontsize=9.5, loc="left", pad=4)
        ax.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= len(losses))
        if i % columns == 0:
            ax.set_ylabel("training loss")
            ax.yaxis.set_label_coords(-28 / width, 0.5)
        if i + columns >= len(losses):
            ax.set_xlabel("step")
    return to_svg(figure, key, f"{title}: training loss against step")


def smooth(loss: Float64[np.ndarray, " steps"]) -> Float64[np.ndarray, " steps"]:
    """Return the mean of each step with its neighbours: a twentieth of all steps together, fewer at the ends.

    Example: of 60 steps, each becomes the mean of three: itself, the one before and the one after.
    """
    half = len(loss) // 40
    sums = np.concatenate([[0.0], np.cumsum(loss)])
    steps = np.arange(len(loss))
    first, last = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(loss))
    mean: Float64[np.ndarray, " steps"] = (sums[last] - sums[first]) / (last - first)
    return mean


def _spread(steps: int, most: int) -> Int64[np.ndarray, " points"]:
    """Return at most `most` step numbers, evenly spread, including the first and the last."""
    return np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(np.int64))
