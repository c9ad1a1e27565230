"""The report of a directory of runs, as shown by a browser and as Markdown."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from playwright.sync_api import Browser, Page, sync_playwright

from isinglass.cli import app
from isinglass.config import as_dict, resolve
from isinglass.errors import DataError
from isinglass.report.sections import _command, write_report
from isinglass.results import FailedRun, append_record
from tests.sample_bench import sample_result, write_sample_run

SCRIPT = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
CONTROL = "\x1b[31m \u202e"
TASKS = ("rte", "mrpc", "stsb", "mnli", "wnli")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """Return a directory of 20 runs with hostile texts, a failed run, a damaged line and a run without its steps.

    The runs are of five tasks, two precisions and two seeds.
    """
    directory = tmp_path_factory.mktemp("bench")
    for task in TASKS:
        for precision in ("fp32", "bf16"):
            for seed in (1, 2):
                write_sample_run(directory, task, seed=seed, precision=precision, notes=[f"a note {SCRIPT}"])
    examples = directory / "examples" / "rte-dev.jsonl"
    labels = [json.loads(line)["label"] for line in examples.read_text().splitlines()]
    texts = [SCRIPT, f"{CONTROL} {'very long ' * 100}the end"]
    examples.write_text("".join(json.dumps({"texts": texts, "label": label}) + "\n" for label in labels))
    failed = sample_result("rte", seed=3).config
    append_record(directory, FailedRun(config=failed, start_from=None, error=f"The loss became NaN. {SCRIPT}"))
    with open(directory / "results.jsonl", "a") as lines:
        lines.write("{broken\n")
    (directory / "runs" / "wnli-torch-fp32-seed2" / "steps.jsonl").unlink()
    write_report(directory)
    return directory


@pytest.fixture(scope="module")
def markdown(bench) -> str:
    return (bench / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium on PATH: the page is not tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


class Opened:
    """The opened page with all messages and requests of the browser."""

    def __init__(self, browser: Browser, path: Path, *, width: int = 1280, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        scheme = "dark" if dark else "light"
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture(scope="module")
def opened(browser, bench) -> Opened:
    return Opened(browser, bench / "report.html")


@pytest.fixture
def page(opened) -> Iterator[Page]:
    yield opened.page
    opened.page.reload()


def column(page: Page, title: str, number: int) -> list[str]:
    """Return the cells of a column of the table with this title, from top to bottom."""
    rows = page.locator(f".scroll[aria-label='{title}'] tbody tr")
    return rows.evaluate_all("(rows, i) => rows.map((row) => row.cells[i].textContent.trim())", number)


def head(page: Page, title: str, number: int):
    return page.locator(f".scroll[aria-label='{title}'] th").nth(number)


def test_the_page_opens_without_a_complaint_and_asks_for_nothing_but_itself(opened, bench):
    """Fails if the page loads a font from a CDN or runs a script that its own policy forbids."""
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {(bench / "report.html").as_uri()}


def test_every_plot_is_visible_and_has_a_name(page):
    """Fails if a plot is an empty box."""
    boxes = page.locator("svg").evaluate_all(
        "(all) => all.map((svg) => [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height])"
    )
    assert len(boxes) == 5 * 4 + 2 * (5 + 1)  # four plots for each task, and one for each configuration of each dev set
    assert all(width > 100 and height > 50 for width, height in boxes)
    names = page.locator("svg").evaluate_all("(all) => all.map((svg) => svg.getAttribute('aria-label'))")
    assert all(names) and page.locator("svg:not([role=img])").count() == 0


def test_all_ids_of_the_page_are_different(page):
    """Fails if a link of the table of contents or a clip path leads to the wrong element."""
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    links = page.evaluate("[...document.querySelectorAll('nav a')].map((link) => link.hash.slice(1))")
    assert len(links) == 9 and set(links) <= set(ids)


def test_a_click_sorts_and_another_reverses(page):
    """Fails if sorting compares 9.5 and 10.2 as text, or never reverses."""
    before = column(page, "Scores", 6)
    head(page, "Scores", 5).locator("button").click()
    scores = [float(cell.split()[0]) for cell in column(page, "Scores", 5)]
    assert scores == sorted(scores)
    assert head(page, "Scores", 5).get_attribute("aria-sort") == "ascending"
    head(page, "Scores", 5).locator("button").click()
    scores = [float(cell.split()[0]) for cell in column(page, "Scores", 5)]
    assert scores == sorted(scores, reverse=True)
    assert head(page, "Scores", 5).get_attribute("aria-sort") == "descending"
    assert sorted(column(page, "Scores", 6)) == sorted(before)


def test_the_keyboard_sorts_too(page):
    """Fails if a header can be reached only with a mouse."""
    head(page, "Scores", 0).locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, "Scores", 0) == sorted(column(page, "Scores", 0))
    page.keyboard.press("Space")
    assert column(page, "Scores", 0) == sorted(column(page, "Scores", 0), reverse=True)
    head(page, "Scores", 1).locator("button").press("Enter")
    assert head(page, "Scores", 0).get_attribute("aria-sort") is None


@pytest.mark.parametrize(
    "in_order",
    [
        ["00:41", "12:05", "59:59", "1:02:03", "10:00:00", "-"],
        ["6.4s", "41s", "1h 02m", "-"],
        ["9.5", "83.91", "84.1 ± 0.3 (3)", "100", "1,600", "NaN"],
        ["-3.20", "-0.10 to +0.20", "+0.05", "0.5 %", "failed"],
        ["7.10/9.00", "83.91/84.10", "84.04†"],
        ["apple", "banana 2", "banana 10", "cherry"],
    ],
)
def test_numbers_are_sorted_as_what_they_mean(page, in_order):
    """Guards against sorting an hour before a minute, a dash among the best, or `1,600` below `83.91`."""
    title = "Scores"
    page.locator(f".scroll[aria-label='{title}'] tbody").evaluate(
        """(body, cells) => {
            const row = body.rows[0];
            body.replaceChildren(...cells.map((text) => {
                const copy = row.cloneNode(true);
                copy.cells[2].textContent = text;
                return copy;
            }));
        }""",
        in_order[1::2] + in_order[::2],
    )
    button = head(page, title, 2).locator("button")
    button.click()
    assert column(page, title, 2) == in_order
    button.click()
    absent = [cell for cell in in_order if cell in ("-", "NaN", "failed")]
    present = [cell for cell in in_order if cell not in absent]
    assert column(page, title, 2) == [*reversed(present), *absent]


def test_a_text_of_the_data_stays_a_text(page):
    """Guards against running a sentence of a data set as a script in the reader's browser."""
    mistakes = page.locator("#mistakes details", has_text="RTE")
    mistakes.locator("summary").click()
    text = mistakes.locator("td.text").first.text_content()
    assert text == SCRIPT
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, body script[src]").count() == 0 and page.locator("script").count() == 1


def test_control_characters_are_shown_and_long_texts_cut(page):
    """Guards against a character that makes the rest of the page run from right to left."""
    content = page.content()
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", content)
    text = page.locator("#mistakes details", has_text="RTE").locator("td.text").nth(1).text_content()
    assert text.startswith(r"\x1b[31m \u202e very long") and text.endswith("…") and 590 <= len(text) <= 601


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_the_body_does_not_scroll_sideways(browser, bench, dark):
    """Fails if a wide table pushes the page off the screen."""
    opened = Opened(browser, bench / "report.html", width=375, dark=dark)
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 375
    assert opened.page.locator(".scroll").first.evaluate("(one) => getComputedStyle(one).overflowX") == "auto"
    opened.page.close()


def test_the_dark_page_is_dark_with_light_text_and_light_axes(browser, bench):
    """Fails if the dark page has a white background or black labels."""
    opened = Opened(browser, bench / "report.html", dark=True)
    brightness = "(one, what) => Math.max(...getComputedStyle(one)[what].match(/\\d+/g).slice(0, 3).map(Number))"
    assert opened.page.locator("body").evaluate(brightness, "backgroundColor") < 50
    assert opened.page.locator("body").evaluate(brightness, "color") > 200
    assert opened.page.locator("svg text").first.evaluate(brightness, "fill") > 200
    opened.page.close()


def test_what_is_missing_is_named(page, markdown):
    """Fails if the report omits a failed run, a damaged line or a lost file."""
    holes = page.locator("#runs").text_content()
    for found in (holes, markdown):
        assert "Failed runs" in found and "The loss became NaN." in found
        assert "Damaged lines of results.jsonl" in found
    line = page.locator(".scroll[aria-label='Damaged lines of results.jsonl'] td").first.text_content()
    assert line == str(5 * 2 * 2 + 2)
    curves = page.locator("#curves").text_content()
    assert "WNLI, torch fp32, seed 2 is left out: runs/wnli-torch-fp32-seed2/steps.jsonl does not exist." in curves


def test_the_markdown_has_the_tables_of_the_page(page, markdown):
    """Fails if a table is in only one of the two files."""
    titles = page.locator(".scroll").evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert len(titles) > 15
    assert [title for title in titles if f"### {title}\n" not in markdown] == []


def test_the_same_runs_give_the_same_report(tmp_path):
    """Fails if the report changes although nothing was run."""
    for seed in (1, 2):
        write_sample_run(tmp_path, "rte", seed=seed)
    paths = write_report(tmp_path)
    assert paths == [tmp_path / "report.html", tmp_path / "report.md"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_report(tmp_path)] == first
    assert not list(tmp_path.glob(".report*"))


def test_a_run_without_its_answers_is_named_and_the_rest_is_reported(tmp_path):
    """One lost file must not prevent the report."""
    for seed in (1, 2):
        result = write_sample_run(tmp_path, "mrpc", seed=seed)
    (tmp_path / result.predictions["dev"]).unlink()
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Predictions that cannot be read" in text and "MRPC, torch fp32, seed 2" in text
    assert "### Scores" in text


def test_runs_without_any_answers_are_reported(tmp_path):
    """Results of `isinglass train` may be collected by hand, without prediction files."""
    append_record(tmp_path, sample_result("rte"))
    append_record(tmp_path, dataclasses.replace(sample_result("stsb"), train_lengths=[], epoch_seconds=[]))
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Predictions that cannot be read" in text and "### Every run (2)" in text


def test_what_a_result_names_outside_of_the_directory_is_not_read(tmp_path):
    """Results from an untrusted source must not put the reader's own files into a page."""
    directory = tmp_path / "bench"
    result = write_sample_run(directory, "rte")
    shutil.move(directory / "runs", tmp_path / "elsewhere")
    outside = {"dev": f"../elsewhere/{Path(result.predictions['dev']).parent.name}/predictions-dev.tsv"}
    append_record(directory, dataclasses.replace(result, predictions=outside))
    write_report(directory)
    text = (directory / "report.md").read_text(encoding="utf-8")
    assert "no other file is read" in text and "Training loss in figures" not in text


def test_a_directory_without_results_is_refused_in_one_sentence(tmp_path):
    """Guards against a traceback or an empty page."""
    with pytest.raises(DataError, match="does not exist"):
        write_report(tmp_path)
    append_record(tmp_path, FailedRun(config=sample_result().config, start_from=None, error="The disk is full."))
    with pytest.raises(DataError, match=r"no finished run \(1 failed, 0 damaged\)"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_missing_package_is_named_with_what_installs_it(tmp_path):
    """Guards against a traceback after a plain `pip install isinglass`."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from isinglass.errors import MissingDependencyError\n"
        "from isinglass.report.sections import write_report\n"
        "try:\n    write_report(Path(sys.argv[1]))\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "The report needs matplotlib: `pip install 'isinglass[report]'`.\n"


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"precision": "bf16", "model": "a dir/it's $HOME", "data_dir": "/data/glue"},
        {"recipe": "small", "epochs": 7, "learning_rate": 3e-5, "max_length": 64, "batch_size": 16, "compile": True},
        {
            "backend": "tensorflow",
            "precision": "amp",
            "xla": True,
            "dropout": 0.0,
            "weight_decay": 0.01,
            "schedule": "constant",
        },
    ],
)
def test_the_command_of_the_report_asks_for_the_settings_of_the_run(tmp_path, flags):
    """Guards against a command that omits a setting and so repeats a different run."""
    config = resolve(task="wnli", flags={"seed": 7, **flags}, recipe=flags.get("recipe"))
    values = {name: getattr(config, name) for name in ("model", "backend", "recipe", "compile", "xla", "seed")}
    append_record(tmp_path, dataclasses.replace(sample_result("wnli"), **values, config=as_dict(config)))
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    words = shlex.split(re.findall(r"^    (isinglass train .*)$", text, flags=re.MULTILINE)[0])
    given = typer.main.get_command(app).commands["train"].make_context("train", words[2:]).params
    options = {name: given[name] for name in as_dict(config) if name in given}
    options["data_dir"] = options["data_dir"] and options["data_dir"].replace("GLUE_DIR", "/data/glue")
    repeated = resolve(
        task=options.pop("task"), recipe=options.pop("recipe"), flags=options, assignments=tuple(given["set"] or ())
    )
    assert repeated == config


def test_seeds_that_do_not_count_up_are_repeated_one_by_one(tmp_path):
    """`--runs 3` for the seeds 1, 5 and 9 would train with 1, 2 and 3."""
    for seed in (9, 1, 5):
        write_sample_run(tmp_path, "wnli", seed=seed)
    for seed in (3, 2):
        write_sample_run(tmp_path, "rte", seed=seed)
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert 'for seed in 1 5 9; do isinglass train wnli --backend torch --precision fp32 --seed "$seed"; done' in text
    assert "isinglass train rte --backend torch --precision fp32 --seed 2 --runs 2\n" in text


def test_a_run_that_starts_from_another_says_so_and_names_its_weights(tmp_path):
    """Guards against a command that starts from the plain model and so scores points less."""
    for seed in (1, 2):
        write_sample_run(tmp_path, "rte", seed=seed)
    for seed in (3, 4):
        write_sample_run(tmp_path, "rte", seed=seed, start_from="mnli")
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| task | torch fp32 | torch fp32, from MNLI |" in text
    for seed in (3, 4):
        command = f"isinglass train rte --backend torch --precision fp32 --model MNLI_RUN/model --seed {seed}\n"
        assert f"    # torch fp32, from MNLI, seed {seed}\n    {command}" in text


@pytest.mark.parametrize(("recipe", "is_named"), [("auto", False), ("classic", True)])
def test_the_command_for_own_files_names_a_recipe_that_is_not_their_default(recipe: str, is_named: bool) -> None:
    config = resolve(task="mine", recipe=recipe, flags={"train_file": ["a.csv"]})
    result = dataclasses.replace(sample_result("wnli"), recipe=recipe, config=as_dict(config))
    assert ("--recipe" in shlex.split(_command([result]))) is is_named
