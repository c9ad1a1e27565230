"""Plots as inline SVG: the properties that a page relies on, and what is drawn."""

import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from isinglass.report import plots
from isinglass.report.plots import Panel, Series

FP32, BF16 = Series("torch fp32", 0), Series("torch bf16, a <b> & $x$", 1)


def draw(kind: str, key: str = "k") -> str:
    rng = np.random.default_rng(0)
    match kind:
        case "scores":
            scores = {FP32: np.array([60.0, 65.0, np.nan]), BF16: np.array([61.0, 52.7, 64.0])}
            panels = [
                Panel(label="accuracy (%)", values=scores, majority=52.7),
                Panel(label="F1 (%)", values=scores, majority=None),
            ]
            return plots.seed_scores(key, "RTE $a$ <i>", panels)
        case "speed":
            units = ("examples/s", "real tokens/s", "training (minutes)")
            values = {FP32: np.array([30.0, 31.0]), BF16: np.array([1600.0])}
            panels = [Panel(label=unit, values=values) for unit in units]
            return plots.speed_bars(key, "RTE", panels)
        case "curves":
            return plots.learning_curves(key, "RTE", {FP32: [rng.random(90), rng.random(90)], BF16: [rng.random(90)]})
        case "lengths":
            return plots.length_histogram(key, "RTE", [0] * 10 + [5, 9, 4] + [0] * 5 + [2], 20)
        case "confusion":
            return plots.confusion_matrix(
                key, "RTE", BF16, ["entailment", "not_entailment"], np.array([[120, 26], [60, 71]])
            )
        case "scatter":
            return plots.value_scatter(key, "STS-B", FP32, rng.uniform((0, -1), (5, 6), (40, 2)), (0.0, 5.0))
    raise AssertionError(kind)


LABELS = {
    "scores": ["accuracy (%)", "F1 (%)"],
    "speed": ["examples/s", "real tokens/s", "training (minutes)"],
    "curves": ["training loss", "step"],
    "lengths": ["examples", "length, or position, in tokens"],
    "confusion": ["predicted label", "true label"],
    "scatter": ["predicted score", "true score"],
}
every_plot = pytest.mark.parametrize("kind", LABELS)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@every_plot
def test_a_plot_is_xml_with_a_title_labels_and_units(kind):
    """Fails if a plot has no units, or if text is drawn as outlines, which a screen reader cannot read."""
    svg = draw(kind)
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label")
    assert [float(size) > 100 for size in root.get("viewBox").split()[2:]] == [True, True]
    written = texts(svg)
    assert written and set(LABELS[kind]) <= set(written)
    assert any(text.startswith(("RTE", "STS-B")) for text in written)


@every_plot
def test_every_colour_is_the_pages_own(kind):
    """Guards against black text on a dark page, and against a white box around a plot."""
    svg = draw(kind)
    without_variables = re.sub(r"var\(--[a-z0-9-]+, (#[0-9a-f]{6}|Canvas)\)", "", svg)
    assert not re.search(r"#[0-9a-f]{6}|\b(black|white)\b|rgb", re.sub(r'="#[^"]*"|url\(#[^)]*\)', "", without_variables))
    for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        assert "fill: currentColor" in element.get("style")
        assert "font-family" not in element.get("style")


def test_ids_of_all_plots_of_a_page_are_different_and_every_reference_is_answered():
    """If the clip paths of two plots share an id, the frame of the first clips the second."""
    page = "".join(draw(kind, f"{kind}-{i}") for kind in LABELS for i in range(2))
    ids = re.findall(r'\bid="([^"]+)"', page)
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert ids and len(ids) == len(set(ids))
    assert {first or second for first, second in references} == set(ids)


@every_plot
def test_the_same_values_give_the_same_bytes(kind):
    """Guards against a date or a random id, which would make every report differ from the last one."""
    assert draw(kind) == draw(kind)
    assert "<metadata" not in draw(kind) and "<style" not in draw(kind)


def test_names_are_text_and_not_formulas_or_markup():
    """Guards against `$x$` shown as a formula, or `<b>` interpreted as a tag."""
    assert "RTE $a$ <i>" in texts(draw("scores"))
    assert any("<b> & $x$" in text for text in texts(draw("scores")))


def test_a_score_that_is_not_a_number_is_counted():
    """Guards against a seed that silently disappears from the plot."""
    assert "torch fp32 (1 NaN)" in texts(draw("scores"))


def test_a_task_without_a_majority_has_no_line_in_the_legend():
    """The legend of a regression must not explain a line that does not exist."""
    panel = Panel(label="Pearson, in hundredths", values={FP32: np.array([80.0])}, majority=None)
    assert "most frequent label" not in texts(plots.seed_scores("k", "STS-B", [panel]))
    assert "most frequent label" in texts(draw("scores"))


def test_scores_that_are_all_missing_still_make_a_plot():
    """A minimum of no numbers would raise an error."""
    panel = Panel(label="accuracy (%)", values={FP32: np.full(2, np.nan)}, majority=None)
    assert "torch fp32 (2 NaN)" in texts(plots.seed_scores("k", "RTE", [panel]))


def test_smoothing_keeps_a_constant_a_line_and_the_number_of_steps():
    """Guards against a moving mean that pulls the ends of the curve towards zero."""
    np.testing.assert_allclose(plots.smooth(np.full(100, 0.7)), 0.7)
    line = np.arange(200.0)
    np.testing.assert_allclose(plots.smooth(line)[5:-5], line[5:-5])
    np.testing.assert_allclose(plots.smooth(np.array([3.0, 1.0])), [3.0, 1.0])


def test_a_long_run_is_thinned():
    """Three epochs of QQP are 34,000 steps, which would make a page of a hundred megabytes."""
    loss = np.random.default_rng(0).random(34_000)
    assert len(plots.learning_curves("k", "QQP", {FP32: [loss] * 5})) < 60_000


def test_the_share_of_padding_is_that_of_the_lengths():
    """The shaded area must be what padding would add."""
    lengths = [10] * 5 + [11] * 9 + [12] * 4 + [18] * 2
    expected = 1 - sum(lengths) / (20 * len(lengths))
    assert f"padding ({expected:.0%})" in texts(draw("lengths"))
    assert "max_length 20" in texts(draw("lengths"))


def test_every_cell_of_a_matrix_shows_its_count_and_its_share_of_the_row():
    """Guards against a transposed matrix: rows are true labels."""
    written = texts(draw("confusion"))
    assert [text for text in written if text.isdigit()] == ["120", "26", "60", "71"]
    assert [text for text in written if text.endswith("%")] == ["82%", "18%", "46%", "54%"]


def test_a_label_that_never_occurs_divides_by_nothing():
    """A small dev set may have a row of zeros."""
    svg = plots.confusion_matrix("k", "RTE", FP32, ["a", "b"], np.array([[3, 1], [0, 0]]))
    assert [text for text in texts(svg) if text.endswith("%")] == ["75%", "25%", "0%", "0%"]


def test_a_scatter_has_a_dot_for_each_example():
    """Guards against a renderer that removes dots of length zero when it simplifies a path."""
    truth = np.random.default_rng(0).uniform(0, 5, 1500)
    svg = plots.value_scatter("k", "STS-B", FP32, np.stack([truth, truth], 1), (0.0, 5.0))
    dots = next(path for path in re.findall(r' d="([^"]+)"', svg) if path.count("M") > 100)
    assert dots.count("M") == 1500


def test_letters_that_matplotlib_has_no_shape_for_are_no_warning():
    """The fonts of the reader show a model's name in Chinese."""
    assert "模型" in texts(plots.confusion_matrix("k", "模型", FP32, ["a", "b"], np.eye(2, dtype=np.int64)))


def test_nothing_of_matplotlib_is_changed_or_shared():
    """A report made in a notebook must not leave its colours, or a hidden list of open figures, behind."""
    program = (
        "import sys, matplotlib\n"
        "from tests.unit.test_plots import draw\n"
        "settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != 'backend'}\n"
        "before = settings()\n"
        "draw('scores')\n"
        "assert settings() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
