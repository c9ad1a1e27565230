"""Text from data never becomes markup: report.md, cards and tables, parsed by a real Markdown parser."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from isinglass.names import printable
from isinglass.report.bench import Bench
from isinglass.report.page import Report
from isinglass.report.sections import make_report, write_report
from isinglass.results import FailedRun, append_record
from isinglass.tables import Table, escaped
from isinglass.tasks.custom import custom_task
from isinglass.training.card import model_card
from tests.sample_bench import sample_result, write_sample_run

GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ALPHABET = "\\`*_~[]()<>&|#!$-+=.:;'\"{}^/1 awé@\n\t\r\u2028\x1b\ud800"
IMAGE = "![x](https://tracker.example/x.png)"
HOSTILE = (
    IMAGE,
    "[x](javascript:alert(1))",
    "<img src=https://tracker.example/x.png>",
    "<script>alert(1)</script>",
    "<https://tracker.example>",
    "[x]: https://tracker.example",
    "a | b\n| - | - |",
    "# x",
    "- x",
    "1. x",
    "---",
    "```\nx",
    "    x",
    "**x** _x_ ~~x~~ `x`",
    "&lt;b&gt; &#33;",
    "\\[x\\](y)",
    "x\\",
)
PLACE = "PLACEHOLDER"
some_text = st.one_of(st.sampled_from(HOSTILE), st.text(st.sampled_from(ALPHABET), min_size=1, max_size=30))


def structure(markdown: str) -> list[str]:
    """Return the types of all tokens except plain text."""
    return [token.type for token in every_token(GITHUB.parse(markdown)) if token.type not in ("text", "text_special")]


def every_token(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from every_token(token.children or ())


def visible(markdown: str) -> str:
    return "".join(token.content for token in every_token(GITHUB.parse(markdown)) if not token.children)


def filled(value: Any, text: str) -> Any:
    """Return the value with the placeholder replaced in each of its texts."""
    if isinstance(value, str):
        return value.replace(PLACE, text)
    if dataclasses.is_dataclass(value):
        changes = {one.name: filled(getattr(value, one.name), text) for one in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, Mapping):
        return {filled(key, text): filled(item, text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(filled(item, text) for item in value)
    return value


def bench_with(text: str, directory: Path) -> Path:
    """Write a directory of runs whose texts, notes, devices, models and errors are `text`; return it."""
    for seed in (1, 2):
        changes = {"notes": [text], "device": text, "model": text, "versions": {"isinglass": "1", text: text}}
        result = write_sample_run(directory, "rte", seed=seed, **changes)
    examples = directory / "examples" / "rte-dev.jsonl"
    lines = [json.loads(line) | {"texts": [text, text]} for line in examples.read_text().splitlines()]
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    append_record(directory, FailedRun(config=result.config | {"seed": 3}, start_from=None, error=text))
    with open(directory / "results.jsonl", "a") as stream:
        stream.write(json.dumps(text) + "\n")
    return directory


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(Bench(bench_with(PLACE, tmp_path_factory.mktemp("bench"))), with_published=True)


@settings(max_examples=50, deadline=None)
@example(IMAGE)
@given(some_text)
def test_no_text_changes_what_the_report_is_made_of(report: Report, text: str) -> None:
    """No text may add an image, a link, a tag, a row, a heading or a list that a harmless word would not add."""
    harmless, found = (filled(report, word).written_as("report.md") for word in ("word", text))
    assert structure(found) == structure(harmless)
    assert visible(found).count(printable(text).strip()) >= visible(harmless).count("word")
    assert not {"image", "link_open", "html_inline", "html_block"} & {*structure(found)}


def test_the_report_of_hostile_files_has_no_image_link_or_tag(tmp_path: Path) -> None:
    """Guards against a text that bypasses the writer, by testing the same property from files to report.md."""
    write_report(bench_with(IMAGE, tmp_path))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not {"image", "link_open", "html_inline", "html_block"} & {*structure(page)}
    assert IMAGE in visible(page)


@settings(deadline=None)
@given(some_text)
def test_no_text_changes_what_a_card_is_made_of(text: str) -> None:
    def card(word: str) -> str:
        names = (word, "other")
        task = custom_task(
            name="own",
            kind="classification",
            labels=("a", "b"),
            text_columns=[word],
            label_column="l",
            splits=["train", "dev"],
        )
        task = dataclasses.replace(task, title=word, labels=names, positive_label=word, warning=word, citation=word)
        result = dataclasses.replace(
            sample_result("rte"),
            model=f"dir/{word}",
            device=word,
            notes=[f"x {word}"],
            recipe=word,
            versions={word: word},
        )
        made = model_card(result, task, names)
        return made.split("\n---\n", 1)[1]

    allowed = structure(card("word"))
    found = structure(card(text))
    assert found == allowed


@settings(deadline=None)
@given(st.lists(st.tuples(some_text, some_text), min_size=1, max_size=4))
def test_a_table_keeps_its_cells(rows: list[tuple[str, str]]) -> None:
    table = Table(title="t", columns=("a", "b"), rows=tuple(rows), notes=(rows[0][0],))
    cells = [token.content for token in every_token(GITHUB.parse(table.to_markdown())) if token.type == "inline"]
    assert len(cells) == 1 + 2 + 2 * len(rows) + 1
    assert structure(table.to_markdown()) == structure(
        dataclasses.replace(table, rows=(("x", "y"),) * len(rows), notes=("x",)).to_markdown()
    )


@settings(deadline=None)
@given(some_text)
@example("1 #")
@example("C# and F ## ")
def test_any_text_is_shown_as_it_is_wherever_it_begins(text: str) -> None:
    for before in ("", "- ", "# ", "> "):
        assert visible(f"{before}{escaped(text)}").strip() == printable(text).strip()
