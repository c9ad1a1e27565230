"""Predictions against labels: a matrix of counts, or a dot for each example of a regression."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from isinglass.report.plots.canvas import INK, Series, cut, new_axes, new_figure, style, to_svg


@style()
def confusion_matrix(
    key: str, title: str, series: Series, labels: Sequence[str], counts: Int64[np.ndarray, "true predicted"]
) -> str:
    """Draw true labels as rows and predicted labels as columns; each cell has its count and its share of the row."""
    from matplotlib.patches import Rectangle

    side, size = 186.0, len(labels)
    figure = new_figure(title, side + 76, width=side + 54, subtitle=series.label)
    ax = new_axes(figure, 44, 42, side, side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for (i, j), count in np.ndenumerate(counts):
        alpha = 0.04 + 0.5 * float(shares[i, j])
        ax.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, color=series.ink, alpha=alpha, linewidth=0))
        ax.text(j, i - 0.04, f"{count:,}", ha="center", va="bottom", fontsize=11)
        ax.text(j, i + 0.04, f"{shares[i, j]:.0%}", ha="center", va="top", fontsize=9.5)
    ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xticks=range(size), yticks=range(size))
    names = [cut(name, 48 // size) for name in labels]
    ax.set_xticklabels(names)
    ax.set_yticklabels(names, rotation=90, va="center")
    ax.tick_params(labelsize=8.5)
    ax.set_xlabel("predicted label")
    ax.set_ylabel("true label", labelpad=7)
    ax.spines["bottom"].set_visible(False)
    return to_svg(figure, key, f"{title}, {series.label}: predicted labels against true labels")


@style()
def value_scatter(
    key: str,
    title: str,
    series: Series,
    truth: Float64[np.ndarray, " N"],
    predicted: Float64[np.ndarray, " N"],
    score_range: tuple[float, float],
) -> str:
    """Draw predicted values against true ones, a dot for each example, and the line where both are the same."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    side = 186.0
    figure = new_figure(title, side + 76, width=side + 54, subtitle=series.label)
    ax = new_axes(figure, 44, 42, side, side)
    dots = np.stack([truth, predicted], 1)[np.isfinite(predicted)].repeat(2, 0)  # lines of no length, with round ends:
    codes = np.tile([Path.MOVETO, Path.LINETO], len(dots) // 2)  # one element for all, where each marker would be one
    if len(dots):
        ax.add_patch(
            PathPatch(Path(dots, codes), edgecolor=series.ink, fill=False, linewidth=3.4, capstyle="round", alpha=0.5)
        )
    low = min(score_range[0], float(np.nanmin(predicted, initial=score_range[0])))
    high = max(score_range[1], float(np.nanmax(predicted, initial=score_range[1])))
    margin = 0.03 * (high - low)
    ax.plot(score_range, score_range, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    ax.set(xlabel="true score", ylabel="predicted score")
    ax.grid()
    return to_svg(figure, key, f"{title}, {series.label}: predicted scores against true scores")
