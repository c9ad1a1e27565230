"""What all plots share: figures, axes and colours, and the SVG that they become.

Text and axes are drawn in a colour that stands for the page's ink, and series in colours that stand for `--series-1`,
`--series-2`, ..., so that the page's style decides how they look on a light and on a dark ground. Lengths are in the units
of the SVG's own box, which a page shows at about one CSS pixel each.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from matplotlib.artist import Artist
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
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelsize": 10,
    "axes.linewidth": 0.6,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.4,
}


@dataclass(frozen=True)
class Series:
    """What a colour stands for: its name, and which of the palette's colours it has on the whole page."""

    label: str
    colour: int

    @property
    def ink(self) -> str:
        """The colour to draw with."""
        return SERIES[self.colour % len(SERIES)]


@contextmanager
def style() -> Iterator[None]:
    """Draw in the page's style, whatever the user's settings of matplotlib are."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever the user's matplotlibrc says
        mpl.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's fonts draw the text, not matplotlib's
        yield


def legend(figure: "Figure", handles: Sequence["Artist"]) -> None:
    """Add a legend below the axes."""
    figure.legend(handles=handles, loc="lower left", ncols=3, bbox_to_anchor=(0, 0), borderaxespad=0, columnspacing=1.4)


def figures(value: float) -> str:
    """Return a number with three significant digits: `0.512`, `30.5`, `1,600`, `394k`, `1.2M`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 1e5:
        return f"{value / 1e3:.0f}k"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cut(text: str, most: int) -> str:
    """Return at most `most` characters of a text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def new_figure(title: str, height: float, *, width: float = WIDTH, subtitle: str = "") -> "Figure":
    """Return a figure with its title at the upper left; lengths in units of the SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
    figure.text(0, 1 - 3 / height, title, fontsize=11, fontweight="bold", va="top")
    if subtitle:
        figure.text(0, 1 - 19 / height, cut(subtitle, 44), fontsize=9.5, va="top")
    return figure


def new_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Return axes at a position in units of the SVG from its upper left."""
    whole_width, whole_height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    )


def rows_of_panels(
    title: str, rows: Sequence[str], panels: Sequence[str], *, foot: float = 0
) -> tuple["Figure", list["Axes"]]:
    """Return panels side by side that share their rows. Row i lies around y = i, its label above it at the left."""
    height = 34.0 * len(rows)
    figure = new_figure(title, 24 + height + 34 + foot)
    gap = 16.0
    width = (WIDTH - 16 - gap * (len(panels) - 1)) / len(panels)
    axes = [new_axes(figure, 8 + i * (width + gap), 24, width, height) for i in range(len(panels))]
    for ax, label in zip(axes, panels, strict=True):
        ax.set(ylim=(len(rows) - 0.6, -0.8), yticks=[], xlabel=label)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=5 if len(panels) == 1 else 3)
    box = {"facecolor": GROUND, "edgecolor": "none", "pad": 1.0}
    for row, label in enumerate(rows):
        transform = axes[0].get_yaxis_transform()
        axes[0].text(0, row - 0.42, cut(label, 60), transform=transform, fontsize=9.5, va="center", bbox=box)
    return figure, axes


def to_svg(figure: "Figure", key: str, label: str) -> str:
    """Return the figure as an element of a page; `label` says what it shows."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), facecolor="none")
    return _inline(text.getvalue(), key, label)


def _inline(svg: str, key: str, label: str) -> str:
    """Return an SVG fit for a page: colours by name, short numbers, ids only where something refers to them."""
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib wrote it
    root.remove(root[0])  # a style sheet that would apply to the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (element.text or "").strip() or None, None
        for name in list(element.attrib):
            element.set(name.rpartition("}")[2], _attribute(name, element.attrib.pop(name), key))
    used = set(re.findall(rf"#({re.escape(key)}-[^)\s]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": "plot",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
        "style": f"max-width: {1.36 * float(root.attrib['viewBox'].split()[2]):.0f}px",
    }
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
