"""Plots as inline SVG: text stays text, ink is `currentColor`, colours are CSS variables, ids are unique to the plot.

Each function takes plain values and returns one `<svg>` element for an HTML page. `key` names the plot: ids begin with it.

Text and axes are drawn in a colour that stands for the page's ink, and series in colours that stand for `--series-1`,
`--series-2`, ..., so that the page's style decides how they look on a light and on a dark ground. Lengths are in the units
of the SVG's own box, which a page shows at about one CSS pixel each.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import Float64, Int64

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK: Final = "#010203"  # drawn nowhere else, and replaced by currentColor
GROUND: Final = "#040506"  # replaced by the colour on which the page shows its plots
SERIES: Final = ("#0072b2", "#d55e00", "#009e73", "#b8609a", "#a6761d", "#4c9fd4", "#7a68c4", "#6b7785")
COLOURS: Final = {  # what is drawn -> what the page is given
    INK: "currentColor",
    GROUND: "var(--surface, Canvas)",
    **{colour: f"var(--series-{i}, {colour})" for i, colour in enumerate(SERIES, start=1)},
}
WIDTH: Final = 304.0
Confusion = Int64[np.ndarray, "true predicted"]
RAW_POINTS, SMOOTH_POINTS = 240, 120  # most points drawn of one run's loss


@dataclass(frozen=True)
class Series:
    """What a colour stands for: its name, and which of the palette's colours it has on the whole page."""

    label: str
    colour: int

    @property
    def ink(self) -> str:
        """The colour to draw with."""
        return SERIES[self.colour % len(SERIES)]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One measure with its unit: a value for each run of each series (or NaN), and that of the most frequent label."""

    label: str
    values: Mapping[Series, Float64[np.ndarray, " runs"]]
    majority: float | None = None


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the page's style, whatever the user's settings of matplotlib are."""
    from matplotlib import style

    page = Path(__file__).parent / "templates" / "plots.mplstyle"
    with style.context(page, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's fonts draw the text, not matplotlib's
        yield


@_style()
def seed_scores(key: str, title: str, panels: Sequence[Panel]) -> str:
    """Draw panels side by side: a dot for each seed, a bar at their mean, a dashed line at the majority."""
    rows = []
    for series in panels[0].values:
        missing = max(np.isnan(panel.values[series]).sum() for panel in panels)
        rows.append(f"{series.label} ({missing} NaN)" if missing else series.label)
    figure, axes = _rows_of_panels(title, rows, [panel.label for panel in panels], foot=20)
    dashed: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (3, 2))}
    for ax, panel in zip(axes, panels, strict=True):
        drawn = [] if panel.majority is None else [panel.majority]
        for row, (series, values) in enumerate(panel.values.items()):
            values = values[~np.isnan(values)]
            drawn += values.tolist()
            ax.plot(values, [row] * len(values), "o", color=series.ink, markersize=6.5, markeredgewidth=0, alpha=0.6)
            if len(values):
                ax.vlines(values.mean(), row - 0.2, row + 0.2, color=INK, linewidth=1.6)
            if panel.majority is not None:
                ax.vlines(panel.majority, row - 0.2, row + 0.3, **dashed)
        low, high = (min(drawn), max(drawn)) if drawn else (0.0, 100.0)
        margin = max(0.08 * (high - low), 0.5)
        ax.set_xlim(low - margin, high + margin)
    handles = axes[0].plot([], [], "o", color=INK, alpha=0.6, markeredgewidth=0, label="one seed")
    handles += axes[0].plot([], [], "|", color=INK, markersize=9, markeredgewidth=1.6, label="mean")
    if any(panel.majority is not None for panel in panels):
        handles += axes[0].plot([], [], label="most frequent label", **dashed)
    figure.legend(handles=handles, ncols=3, bbox_to_anchor=(0, 0))
    return _to_svg(figure, key, f"{title}: score of each seed beside that of the most frequent label")


@_style()
def speed_bars(key: str, title: str, panels: Sequence[Panel]) -> str:
    """Draw a bar for the mean of each series' runs, and a line from the lowest run to the highest."""
    rows = [series.label for series in panels[0].values]
    figure, axes = _rows_of_panels(title, rows, [panel.label for panel in panels])
    for ax, panel in zip(axes, panels, strict=True):
        highest = max(values.max() for values in panel.values.values()) or 1.0
        for row, (series, values) in enumerate(panel.values.items()):
            ax.barh(row, values.mean(), height=0.36, color=series.ink)
            if len(values) > 1:
                ax.hlines(row, values.min(), values.max(), color=INK, linewidth=1.2)
            ax.text(values.max() + 0.05 * highest, row, _figures(values.mean()), va="center", fontsize=9)
        power = 10.0 ** np.floor(np.log10(highest))
        ax.set_xlim(0, 1.55 * highest)
        ax.set_xticks([0, max(step * power for step in (1, 2, 5) if step * power <= highest)])
        ax.xaxis.set_major_formatter(lambda value, _: _figures(value))
    return _to_svg(figure, key, f"{title}: {', '.join(panel.label for panel in panels)} by configuration")


@_style()
def learning_curves(key: str, title: str, losses: Mapping[Series, Sequence[Float64[np.ndarray, " _"]]]) -> str:
    """Draw a panel for each series, all to one scale: the smoothed loss of each seed, and the first seed's own behind it."""
    columns = min(2, len(losses))
    width = (WIDTH - 58 - 14 * (columns - 1)) / columns
    figure = _new_figure(title, 44 + 112 * -(-len(losses) // columns))
    highest = max(float(np.nanmax(loss)) for runs in losses.values() for loss in runs)
    longest = max(len(loss) for runs in losses.values() for loss in runs)
    for i, (series, runs) in enumerate(losses.items()):
        row, column = divmod(i, columns)
        ax = _new_axes(figure, 42 + (width + 14) * column, 38 + 112 * row, width, 84)
        steps = _spread(len(runs[0]), RAW_POINTS)
        ax.plot(steps, runs[0][steps], color=series.ink, linewidth=0.7, alpha=0.35)
        for loss in runs:
            steps = _spread(len(loss), SMOOTH_POINTS)
            ax.plot(steps, smooth(loss)[steps], color=series.ink, linewidth=1.1)
        ax.set(xlim=(0, max(longest - 1, 1)), ylim=(0, 1.05 * highest or 1.0))
        ax.grid(axis="y")
        ax.locator_params(nbins=4)
        ax.xaxis.set_major_formatter(lambda value, _: _figures(value))
        ax.set_title(_cut(series.label, 44 // columns + 2), fontsize=9.5, loc="left", pad=4)
        is_lowest = i + columns >= len(losses)
        ax.tick_params(labelleft=column == 0, labelbottom=is_lowest)
        if column == 0:
            ax.set_ylabel("training loss")
            ax.yaxis.set_label_coords(-28 / width, 0.5)
        if is_lowest:
            ax.set_xlabel("step")
    return _to_svg(figure, key, f"{title}: training loss against step")


def smooth(loss: Float64[np.ndarray, " steps"]) -> Float64[np.ndarray, " steps"]:
    """Return the mean of each step with its neighbours: a twentieth of all steps together, fewer at the ends.

    Example: of 60 steps, each becomes the mean of three: itself, the one before and the one after.
    """
    half = len(loss) // 40
    sums = np.concatenate([[0.0], np.cumsum(loss)])
    steps = np.arange(len(loss))
    first, last = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(loss))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _spread(steps: int, most: int) -> Int64[np.ndarray, " points"]:
    """Return at most `most` step numbers, evenly spread, including the first and the last."""
    return np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(np.int64))


@_style()
def length_histogram(key: str, title: str, counts: Sequence[int], max_length: int) -> str:
    """Draw how many examples have each length and, below, what padding all of them to `max_length` would add."""
    found = np.pad(np.array(counts, np.int64), (0, max(0, max_length + 1 - len(counts))))
    examples = found.sum()
    text = found[::-1].cumsum()[::-1][1 : max_length + 1]  # examples that have a token at each position
    share = 1 - float(text.sum()) / (examples * max_length)
    figure = _new_figure(title, 278)
    top, bottom = (_new_axes(figure, 48, y, WIDTH - 64, 92) for y in (30, 132))
    top.stairs(found[1:], np.arange(1, len(found) + 1) - 0.5, fill=True, color=SERIES[0])
    edges = np.arange(max_length + 1) + 0.5
    padding: dict[str, Any] = {"fill": True, "color": SERIES[1], "alpha": 0.3, "label": f"padding ({share:.0%})"}
    bottom.stairs(text, edges, fill=True, color=SERIES[0], label="tokens of text")
    bottom.stairs(np.full(max_length, examples), edges, baseline=text, **padding)
    for ax in (top, bottom):
        ax.axvline(max_length + 0.5, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        ax.set(xlim=(0, 1.02 * (len(found) - 0.5)), ylabel="examples")
        ax.set_ylim(bottom=0)
        ax.grid(axis="y")
        ax.locator_params(axis="y", nbins=4)
        ax.yaxis.set_major_formatter(lambda value, _: _figures(value))
        ax.yaxis.set_label_coords(-0.145, 0.5)
    top.text(0.98 * max_length, 0.98, f"max_length {max_length}", ha="right", va="top", transform=top.get_xaxis_transform())
    top.set_xticklabels([])
    bottom.set_xlabel("length, or position, in tokens")
    figure.legend(*bottom.get_legend_handles_labels(), ncols=3, bbox_to_anchor=(0, 0))
    return _to_svg(figure, key, f"{title}: {share:.0%} of the tokens of padding to {max_length} are padding")


@_style()
def confusion_matrix(key: str, title: str, series: Series, labels: Sequence[str], counts: Confusion) -> str:
    """Draw true labels as rows and predicted labels as columns; each cell has its count and its share of the row."""
    from matplotlib.patches import Rectangle

    figure, ax = _square(title, series)
    size = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for (i, j), count in np.ndenumerate(counts):
        alpha = 0.04 + 0.5 * float(shares[i, j])
        ax.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, color=series.ink, alpha=alpha, linewidth=0))
        ax.text(j, i - 0.04, f"{count:,}", ha="center", va="bottom", fontsize=11)
        ax.text(j, i + 0.04, f"{shares[i, j]:.0%}", ha="center", va="top", fontsize=9.5)
    ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted label")
    names = [_cut(name, 48 // size) for name in labels]
    ax.set_xticks(range(size), names)
    ax.set_yticks(range(size), names, rotation=90, va="center")
    ax.tick_params(labelsize=8.5)
    ax.set_ylabel("true label", labelpad=7)
    ax.spines["bottom"].set_visible(False)
    return _to_svg(figure, key, f"{title}, {series.label}: predicted labels against true labels")


@_style()
def value_scatter(
    key: str, title: str, series: Series, pairs: Float64[np.ndarray, "N 2"], score_range: tuple[float, float]
) -> str:
    """Draw predicted values against true ones, a dot for each pair of the two, and the line where both are the same."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    figure, ax = _square(title, series)
    predicted = pairs[:, 1]
    dots = pairs[np.isfinite(predicted)].repeat(2, 0)  # lines of no length, with round ends:
    if len(dots):  # one element for all, where each marker would be one
        lines = Outline(dots, np.tile([Outline.MOVETO, Outline.LINETO], len(dots) // 2))
        ax.add_patch(PathPatch(lines, edgecolor=series.ink, fill=False, linewidth=3.4, capstyle="round", alpha=0.5))
    low = min(score_range[0], float(np.nanmin(predicted, initial=score_range[0])))
    high = max(score_range[1], float(np.nanmax(predicted, initial=score_range[1])))
    ends = (low - 0.03 * (high - low), high + 0.03 * (high - low))
    ax.plot(score_range, score_range, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    ax.set(xlim=ends, ylim=ends, xlabel="true score", ylabel="predicted score")
    ax.grid()
    return _to_svg(figure, key, f"{title}, {series.label}: predicted scores against true scores")


def _figures(value: float) -> str:
    """Return a number with three significant digits: `0.512`, `30.5`, `1,600`, `394k`, `1.2M`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 1e5:
        return f"{value / 1e3:.0f}k"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _new_figure(title: str, height: float, *, width: float = WIDTH) -> "Figure":
    """Return a figure with its title at the upper left; lengths in units of the SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    figure.text(0, 1 - 3 / height, title, fontsize=11, fontweight="bold", va="top")
    return figure


def _new_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Return axes at a position in units of the SVG from its upper left."""
    whole_width, whole_height = figure.get_size_inches() * 72
    bottom = whole_height - top - height
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def _square(title: str, series: Series) -> tuple["Figure", "Axes"]:
    """Return a figure of one series, whose name stands below the title, and its square axes."""
    side = 186.0
    figure = _new_figure(title, side + 76, width=side + 54)
    figure.text(0, 1 - 19 / (side + 76), _cut(series.label, 44), fontsize=9.5, va="top")
    return figure, _new_axes(figure, 44, 42, side, side)


def _rows_of_panels(
    title: str, rows: Sequence[str], panels: Sequence[str], *, foot: float = 0
) -> tuple["Figure", list["Axes"]]:
    """Return panels side by side that share their rows. Row i lies around y = i, its label above it at the left."""
    height, gap = 34.0 * len(rows), 16.0
    figure = _new_figure(title, 24 + height + 34 + foot)
    width = (WIDTH - 16 - gap * (len(panels) - 1)) / len(panels)
    axes = [_new_axes(figure, 8 + i * (width + gap), 24, width, height) for i in range(len(panels))]
    for ax, label in zip(axes, panels, strict=True):
        ax.set(ylim=(len(rows) - 0.6, -0.8), yticks=[], xlabel=label)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=5 if len(panels) == 1 else 3)
    box = {"facecolor": GROUND, "edgecolor": "none", "pad": 1.0}
    for row, label in enumerate(rows):
        transform = axes[0].get_yaxis_transform()
        axes[0].text(0, row - 0.42, _cut(label, 60), transform=transform, fontsize=9.5, va="center", bbox=box)
    return figure, axes


def _to_svg(figure: "Figure", key: str, label: str) -> str:
    """Return the figure as an element of a page; `label` says what it shows.

    Colours are by name, numbers short, and ids only where something refers to them.
    """
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ET.fromstring(text.getvalue())  # noqa: S314 - matplotlib wrote it
    root.remove(root[0])  # a style sheet that would apply to the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (element.text or "").strip() or None, None
        element.attrib = {name.rpartition("}")[2]: _attribute(name, value, key) for name, value in element.items()}
    used = set(re.findall(rf"#({re.escape(key)}-[^)\s]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    box = root.attrib["viewBox"]
    style = f"max-width: {1.36 * float(box.split()[2]):.0f}px"
    root.attrib = {"xmlns": "http://www.w3.org/2000/svg", "class": "plot", "viewBox": box, "role": "img"}
    root.attrib |= {"aria-label": label, "style": style}
    return ET.tostring(root, encoding="unicode")


def _attribute(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "d":
        value = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
        return re.sub(r"\s*\n\s*", "", value)
    if name == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)  # the page's own
        return re.sub(r"#[0-9a-f]{6}", lambda found: COLOURS.get(found[0], found[0]), value)
    return re.sub(r"(^|url\()#", rf"\g<1>#{key}-", value)
