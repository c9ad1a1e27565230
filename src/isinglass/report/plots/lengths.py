"""How long the training examples are, and what padding would add."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from isinglass.report.plots.canvas import INK, SERIES, WIDTH, figures, legend, new_axes, new_figure, style, to_svg


@style()
def length_histogram(key: str, title: str, counts: Sequence[int], max_length: int) -> str:
    """Draw how many examples have each length and, below, what padding all of them to `max_length` would add."""
    found: Int64[np.ndarray, " lengths"] = np.zeros(max(max_length + 1, len(counts)), np.int64)
    found[: len(counts)] = counts
    at_least = found[::-1].cumsum()[::-1]  # examples that have a token at this position
    share = 1 - float(at_least[1 : max_length + 1].sum()) / (found.sum() * max_length)
    figure = new_figure(title, 278)
    top, bottom = (new_axes(figure, 48, y, WIDTH - 64, 92) for y in (30, 132))
    top.stairs(found[1:], np.arange(1, len(found) + 1) - 0.5, fill=True, color=SERIES[0])
    edges = np.arange(max_length + 1) + 0.5
    bottom.stairs(at_least[1 : max_length + 1], edges, fill=True, color=SERIES[0], label="tokens of text")
    bottom.stairs(
        np.full(max_length, found.sum()),
        edges,
        baseline=at_least[1 : max_length + 1],
        fill=True,
        color=SERIES[1],
        alpha=0.3,
        label=f"padding ({share:.0%})",
    )
    for ax in (top, bottom):
        ax.axvline(max_length + 0.5, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        ax.set_xlim(0, 1.02 * (len(found) - 0.5))
        ax.set_ylim(bottom=0)
        ax.grid(axis="y")
        ax.locator_params(axis="y", nbins=4)
        ax.yaxis.set_major_formatter(lambda value, _: figures(value))
        ax.set_ylabel("examples")
        ax.yaxis.set_label_coords(-0.145, 0.5)
    top.text(0.98 * max_length, 0.98, f"max_length {max_length}", ha="right", va="top", transform=top.get_xaxis_transform())
    top.set_xticklabels([])
    bottom.set_xlabel("length, or position, in tokens")
    legend(figure, bottom.get_legend_handles_labels()[0])
    return to_svg(figure, key, f"{title}: {share:.0%} of the tokens of padding to {max_length} are padding")
