"""A small part of the inputs of `soak/fuzz.py`, regressions that it found, and checks that it detects faulty readers."""

import dataclasses
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.config import RECIPES, TrainConfig, as_dict, resolve
from isinglass.data.custom import read_custom
from isinglass.data.examples import encode_labels
from isinglass.data.files import LONGEST_LINE, DataFile
from isinglass.data.glue import read_tsv
from isinglass.data.inputs import open_input
from isinglass.errors import DataError, IsinglassError
from isinglass.report.answers import Reader
from isinglass.report.bench import Bench, check_tasks
from isinglass.report.sections import write_report
from isinglass.results import (
    LARGEST_RESULTS,
    LONGEST_RECORD,
    MOST_DAMAGED,
    RESULTS,
    FailedRun,
    RunResult,
    append_record,
    file_below,
    read_records,
)
from isinglass.submission.check import check_submission
from isinglass.tasks import TASKS
from tests.fuzzing import FEW, TARGETS, Case, check, flaw, make_case, version_1, zip_of_good_files
from tests.sample_bench import sample_result, write_sample_run

ROOT = Path(__file__).parents[2]
INPUTS = 300
RTE = TASKS["rte"]


# ---- the property, over a part of the inputs ---------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_files_are_taken_or_refused_in_one_sentence(target: str, tmp_path: Path) -> None:
    """Some inputs of each kind are valid, because a reader that refuses everything would have the property too."""
    outcomes = {seed: check(make_case(target, seed), tmp_path) for seed in range(INPUTS)}
    escaped = {seed: outcome.escaped for seed, outcome in outcomes.items() if outcome.escaped}
    assert escaped == {}
    accepted = sum(outcome.accepted for outcome in outcomes.values())
    assert 0.02 * INPUTS < accepted < 0.6 * INPUTS


@settings(deadline=None, max_examples=100)
@given(
    content=st.binary(max_size=300),
    kind=st.sampled_from(
        ["results.jsonl", "result.json", "mine.txt", "glue.zip", "mine.csv", "mine.jsonl", "mine.parquet", "mine.tsv.zst"]
    ),
)
def test_bytes_of_hypothesis_are_refused_in_one_sentence(content: bytes, kind: str, tmp_path_factory) -> None:
    def read(directory: Path) -> bool:
        path = directory / kind
        readers = {
            "results.jsonl": lambda: read_records(directory),
            "result.json": lambda: RunResult.read(path),
            "mine.txt": lambda: open_input(path, TASKS["cola"]).check(),
            "glue.zip": lambda: check_submission(path, rows=FEW),
        }
        own = TrainConfig(task="mine", train_file=(str(path),))
        return bool(readers.get(kind, lambda: read_custom(own))())

    assert check(Case(files={kind: content}, read=read), tmp_path_factory.mktemp("bytes")).escaped == ""


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    """A printed seed must reproduce the input on any machine."""
    for target in TARGETS:
        assert make_case(target, 7).files == make_case(target, 7).files


# ---- faulty readers are detected ---------------------------------------


def raises(error: BaseException):
    def read(_: Path) -> bool:
        raise error

    return read


def writes_beside(directory: Path) -> bool:
    (directory.parent / "beside.txt").write_text("x")
    return True


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (raises(KeyError("x")), "KeyError"),
        (raises(RecursionError("deep")), "RecursionError"),
        (raises(MemoryError()), "MemoryError"),
        (raises(SystemExit(3)), "SystemExit"),
        (raises(zipfile.BadZipFile("x")), "BadZipFile"),
        (raises(struct.error("x")), "error"),
        (raises(ValueError("Exceeds the limit (4300 digits)")), "ValueError"),
        (raises(DataError("two\nlines of a message")), "does not print"),
        (raises(DataError("a message in \x1b[31mred")), "does not print"),
        (raises(DataError("turned \u202eround")), "does not print"),
        (raises(DataError("long " * 200)), "1000 characters"),
        (raises(DataError("")), "0 characters"),
        (lambda directory: bool((directory / "x").read_bytes().decode()), "UnicodeDecodeError"),
        (lambda _: bool(np.float32(1e30) * np.float32(1e30)), "RuntimeWarning"),
        (writes_beside, "written outside"),
        (lambda directory: bool((directory.parent / "new").mkdir()), "written outside"),
    ],
)
def test_a_reader_with_a_mistake_is_reported(read, found: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    outcome = check(Case(files={"x": b"\xff"}, read=read), tmp_path / "inside")
    assert found in outcome.escaped
    assert not outcome.accepted


def test_a_reader_without_a_mistake_is_not_reported(tmp_path: Path) -> None:
    outcome = check(Case(files={"x": b""}, read=raises(DataError("x, line 1: no rows; some were expected."))), tmp_path)
    assert (outcome.accepted, outcome.escaped) == (False, "")

    def writes_inside(directory: Path) -> bool:
        (directory / "y").write_text("x")
        (directory / "y").rename(directory / "z")
        return True

    assert check(Case(files={}, read=writes_inside), tmp_path).accepted


def test_the_soak_runs_and_records_each_target(tmp_path: Path) -> None:
    output = tmp_path / "fuzz.jsonl"
    command = [sys.executable, str(ROOT / "soak" / "fuzz.py"), "--inputs", "40", "--target", "tsv", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (line["target"], line["inputs"], line["escaped"]) == ("tsv", 40, 0)
    assert line["accepted"] + line["refused"] == 40 and line["peak_memory_mib"] > 0


# ---- regressions: tables and texts -------------------------------------


def split_with(directory: Path, content: bytes) -> None:
    (directory / "RTE").mkdir(exist_ok=True)
    (directory / "RTE" / "dev.tsv").write_bytes(content)


def refused(call) -> str:
    with pytest.raises(IsinglassError) as caught:
        call()
    assert flaw(str(caught.value)) == ""
    return str(caught.value)


def test_a_header_of_thousands_of_columns_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    split_with(tmp_path, b"\t".join(b"c%d" % i for i in range(50_000)) + b"\n")
    message = refused(lambda: read_tsv(RTE, RTE.dev[0], tmp_path))
    assert "no column 'sentence1'" in message and message.endswith("....")


def test_a_long_label_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    split_with(tmp_path, b"index\tsentence1\tsentence2\tlabel\n0\ta\tb\t" + "\U0010ffff".encode() * 50_000 + b"\n")
    examples = read_tsv(RTE, RTE.dev[0], tmp_path)
    assert "line 2: the label is" in refused(lambda: encode_labels(examples, RTE, RTE.labels))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    split_with(tmp_path, b"index\tsentence1\n" + b"x" * (LONGEST_LINE + (1 << 17)))
    message = refused(lambda: list(DataFile.at(tmp_path / "RTE" / "dev.tsv").lines()))
    assert "line 2: more than 1 MiB without a line end" in message


def test_long_lines_that_end_in_time_are_whole(tmp_path: Path) -> None:
    """Blocks can end anywhere in a line."""
    lines = ["x" * n for n in (70_000, 65_535, 1, 65_536, 0, 500_000)]
    (tmp_path / "mine.txt").write_text("\n".join(lines) + "\n")
    (piece,) = open_input(tmp_path / "mine.txt", TASKS["cola"]).pieces()
    assert [*piece.examples.texts[0]] == lines
    numbered = [
        number
        for number, block in DataFile.at(tmp_path / "mine.txt").lines()
        for number in range(number, number + len(block))
    ]
    assert numbered == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
def test_devices_and_pipes_are_not_read_as_data(target: str, tmp_path: Path) -> None:
    """Reading a device would fill the memory, and reading a pipe would block forever."""
    (tmp_path / "RTE").mkdir()
    os.mkfifo(tmp_path / "RTE" / "pipe")
    for name in ("RTE/dev.tsv", RESULTS, "result.json"):
        (tmp_path / name).symlink_to(tmp_path / "RTE" / "pipe" if target == "pipe" else target)
    assert "a pipe or a device" in refused(lambda: read_tsv(RTE, RTE.dev[0], tmp_path))
    assert "a pipe or a device" in refused(lambda: read_records(tmp_path))
    assert "a pipe or a device" in refused(lambda: RunResult.read(tmp_path / "result.json"))


def test_links_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    for name in ("RTE/dev.tsv", RESULTS, "result.json"):
        (tmp_path / name).symlink_to(tmp_path / name)
    assert "cannot be read" in refused(lambda: read_tsv(RTE, RTE.dev[0], tmp_path))
    assert "cannot be read" in refused(lambda: read_records(tmp_path))
    assert "cannot be read" in refused(lambda: RunResult.read(tmp_path / "result.json"))


def test_names_beside_a_missing_file_are_printable(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    for name in ("a\x1b[31m\nb.tsv", "\udcff.tsv", "x" * 200):
        (tmp_path / "RTE" / name).touch()
    assert r"a\x1b[31m\nb.tsv" in refused(lambda: read_tsv(RTE, RTE.dev[0], tmp_path))


# ---- regressions: results ----------------------------------------------


def damaged_reason(directory: Path, line: str) -> str:
    """Return why the only line of a `results.jsonl` is not a record."""
    (directory / RESULTS).write_text(line + "\n")
    records = read_records(directory)
    assert (records.results, records.failed) == ([], [])
    (damage,) = records.damaged
    assert flaw(f"line 1: {damage.reason}") == ""
    return damage.reason


def changed(field: str, token: str, **changes: object) -> str:
    """Return a record with one field, or one setting, replaced by a piece of JSON."""
    values = json.loads(sample_result(**changes).to_json())
    if field in ("split", "metrics", "majority"):
        values = version_1(values)
    holder, name = (values["config"], field.removeprefix("config.")) if field.startswith("config.") else (values, field)
    holder[name] = "@"
    return json.dumps(values).replace('"@"', token)


@pytest.mark.parametrize("depth", [500, 950, 985, 100_000])
def test_deep_nesting_is_damage(depth: int, tmp_path: Path) -> None:
    """JSON's reader, repr and JSON's writer each raise a RecursionError at a different depth."""
    for field in ("metrics", "scores", "config", "config.model", "notes"):
        assert damaged_reason(tmp_path, changed(field, "[" * depth + "]" * depth))
    (tmp_path / "result.json").write_text(changed("config", '{"a":' * depth + "1" + "}" * depth))
    refused(lambda: RunResult.read(tmp_path / "result.json"))


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("train_seconds", "NaN"),  # cannot be written again
        ("train_seconds", "1e999"),
        ("epoch_seconds", "[1.0, Infinity]"),
        ("peak_memory_bytes", "9" * 400),
        ("peak_memory_bytes", "9" * 5000),  # more digits than Python converts
        ("config.epochs", "1e999"),  # an OverflowError
        ("config.learning_rate", "9" * 400),
        ("config.seed", '"1"'),
        ("config.seed", "2"),  # differs from the result's seed
        ("config.epochs", "[3]"),
        ("config.max_length", "1000000000000"),  # the report would draw an axis of that length
        ("metrics", '{"accuracy": "high"}'),
        ("metrics", '{"accuracy": {"dev": 1}}'),
        ("metrics", "{}"),
        ("majority", '{"f1": 0.5}'),
        ("versions", '{"python": 3}'),
        ("notes", "[null]"),
        ("collapsed", "0"),
        ("split", '"dev+dev"'),
        ("split", "3"),
        ("scores", '{"dev": {"accuracy": 0.5}}'),
        ("scores", '{"dev": {"accuracy": {"value": 0.5}}}'),
        ("scores", '{"dev": {"accuracy": {"value": "high", "majority": null}}}'),
        ("scores", '{"dev": {"accuracy": {"value": 0.5, "majority": 0.5, "more": 1}}}'),
        ("scores", '{"dev": {"no such metric": {"value": 0.5, "majority": 0.5}}}'),
        ("schema_version", "3"),
        ("schema_version", '"2"'),
        ("schema_version", "null"),
    ],
)
def test_what_no_run_can_have_written_is_damage(field: str, token: str, tmp_path: Path) -> None:
    """Each of these caused a traceback, in the reader or in the report."""
    assert damaged_reason(tmp_path, changed(field, token))


def test_names_in_a_record_are_cut_and_printable(tmp_path: Path) -> None:
    values = json.loads(sample_result().to_json())
    assert "there is no field" in damaged_reason(tmp_path, json.dumps(values | {"a\n\x1b[31m" + "x" * 5000: 1}))
    assert "There is no setting" in damaged_reason(
        tmp_path, json.dumps(values | {"config": values["config"] | {"x" * 5000: 1}})
    )
    (tmp_path / "result.json").write_text(json.dumps(values | {"a\tb": 1}))
    assert r"there is no field 'a\tb'" in refused(lambda: RunResult.read(tmp_path / "result.json"))
    refused(lambda: file_below(tmp_path, "/" + "x" * 5000))


@pytest.mark.parametrize("name", ["seed", "learning_rate", "data_dir"])
def test_a_setting_that_an_earlier_version_did_not_know_has_its_default(name: str, tmp_path: Path) -> None:
    """The report uses every setting. Results of hours must not count as damaged because a version has one setting more."""
    values = json.loads(sample_result().to_json())
    del values["config"][name]
    failed = {"failed": {"config": values["config"], "start_from": None, "error": "x"}}
    default = {"seed": TrainConfig().seed} if name == "seed" else {}
    lines = json.dumps(values | default) + "\n" + json.dumps(failed) + "\n"
    (tmp_path / RESULTS).write_text(lines)
    records = read_records(tmp_path)
    assert not records.damaged
    for one in (*records.results, *records.failed):
        assert one.config[name] == getattr(TrainConfig(), name)


def test_the_settings_of_every_recipe_are_taken(tmp_path: Path) -> None:
    """Guards against refusing settings that a run writes."""
    for recipe in RECIPES:
        config = resolve(task="wnli", recipe=recipe, flags={"precision": "amp", "layout": "rows", "dropout": 0})
        values = {name: getattr(config, name) for name in ("model", "seed", "recipe")}
        append_record(tmp_path, dataclasses.replace(sample_result("wnli"), **values, config=as_dict(config)))
    records = read_records(tmp_path)
    assert (len(records.results), records.damaged) == (len(RECIPES), [])


def test_a_file_that_is_no_results_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / RESULTS
    path.write_text("x\n" * (MOST_DAMAGED + 1))
    assert "more than 1,000 lines are no records" in refused(lambda: read_records(tmp_path))
    path.write_bytes(b"")
    os.truncate(path, LARGEST_RESULTS + 1)
    assert "has more than 256 MiB" in refused(lambda: read_records(tmp_path))


def test_a_line_that_is_too_long_is_damage_and_the_next_is_read(tmp_path: Path) -> None:
    long = json.dumps("x" * (3 * LONGEST_RECORD + 17))
    (tmp_path / RESULTS).write_text(f"{long}\n{sample_result().to_json()}\n\n{long}")
    records = read_records(tmp_path)
    assert len(records.results) == 1
    assert [(damage.number, damage.reason) for damage in records.damaged] == [
        (1, "it has more than 1 MiB"),
        (4, "it has more than 1 MiB"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "test"},
        {"split": "dev_matched", "metrics": {"accuracy": 0.5}, "majority": {"accuracy": 0.5}},
        {"metrics": {"f1": 0.5}, "majority": {"f1": 0.5}},
        {"start_from": "MNLI"},
        {"start_from": "x" * 5000},
    ],
)
def test_the_report_refuses_scores_that_are_not_the_tasks(changes: dict, tmp_path: Path) -> None:
    """Guards against a KeyError in the middle of a table."""
    append_record(tmp_path, sample_result("rte", **changes))
    assert "A result of RTE, seed 1," in refused(lambda: Bench(tmp_path))
    assert "A result of RTE, seed 1," in refused(lambda: check_tasks(read_records(tmp_path).results))


@pytest.mark.parametrize(
    "line", ['{"loss": ' + "[" * 100_000, '{"loss": ' + "9" * 400 + "}", '{"loss": "' + "x" * 5000 + '"}']
)
def test_files_beside_the_results_do_not_stop_the_report(line: str, tmp_path: Path) -> None:
    """These files come from the same untrusted source: what cannot be read is left out and reported."""
    result = write_sample_run(tmp_path, "rte", rows=8)
    run = (tmp_path / result.predictions["dev"]).parent
    (run / "steps.jsonl").write_text(line + "\n")
    (tmp_path / "examples" / "rte-dev.jsonl").write_text(line + "\n")
    refused(lambda: Reader(tmp_path)(result, "dev"))
    write_sample_run(tmp_path, "wnli", rows=8)
    markdown = write_report(tmp_path)[1].read_text()
    assert "steps.jsonl cannot be read" in markdown.replace("\\", "")


def test_the_columns_of_predictions_are_not_repeated_at_length(tmp_path: Path) -> None:
    result = write_sample_run(tmp_path, "rte", rows=8)
    (tmp_path / result.predictions["dev"]).write_text("index\tprediction\t" + "\x1b[31m\t" * 10_000 + "\n")
    assert "line 1: the columns are index" in refused(lambda: Reader(tmp_path)(result, "dev"))


# ---- regressions: submissions ------------------------------------------


def test_millions_of_empty_lines_are_not_counted_to_the_end(tmp_path: Path) -> None:
    """Fifteen million empty lines took many seconds and were accepted."""
    archive = tmp_path / "glue.zip"
    archive.write_bytes(zip_of_good_files({"RTE.tsv": b"\n" * 500_000}))
    (problem,) = check_submission(archive, rows=FEW)
    assert str(problem) == "RTE.tsv: more than 10006 lines; expected 3 rows, as many as the test set has."


def test_what_does_not_print_is_short_in_a_problem(tmp_path: Path) -> None:
    """Sixty unprintable characters became six hundred in the message."""
    archive = tmp_path / "glue.zip"
    archive.write_bytes(zip_of_good_files({"RTE.tsv": b"3\t" + "\U0010ffff".encode() * 60 + b"\n"}))
    assert all(flaw(str(problem)) == "" for problem in check_submission(archive, rows=FEW))
    archive.write_bytes(zip_of_good_files({"RTE.tsv": b"", "AX.tsv": b"\xff" * 200 + b"\n"}))
    assert all(flaw(str(problem)) == "" for problem in check_submission(archive, rows=FEW))


# ---- pages and spreadsheets --------------------------------------------

MARKUP = "<script>hacked()</script>\"'><img src=x onerror=hacked()>&amp;\x1b[31m\u202e\x00]]>$x^2$"


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_no_text_of_a_result_becomes_markup(tmp_path: Path) -> None:
    """Names, notes, versions, devices and errors come from a file, and appear in tables, plots, titles and commands."""
    directory = tmp_path / "bench<b>&"
    directory.mkdir()
    strange = {
        "model": f"here/{MARKUP.replace('/', '')}",
        "device": MARKUP,
        "notes": [MARKUP],
        "git_commit": MARKUP,
        "versions": {"isinglass": MARKUP, MARKUP: MARKUP},
    }
    for seed in (1, 2):
        write_sample_run(directory, "rte", rows=8, seed=seed, **strange)
    config = sample_result("wnli", model=MARKUP).config | {"data_dir": MARKUP}
    append_record(directory, FailedRun(config=config, start_from=None, error=MARKUP))
    with open(directory / RESULTS, "ab") as lines:
        lines.write(json.dumps({MARKUP: 1}).encode() + b"\n")
    page, markdown = (path.read_text() for path in write_report(directory))
    elements = Elements(page).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert not {"img", "iframe", "object", "embed", "base", "form", "foreignobject"} & {tag for tag, _ in elements}
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert "hacked()&lt;/script&gt;" in page and "<b>" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", page + markdown)
    prose = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))  # indented lines are code
    assert not re.search(r"(?<!\\)<(script|img)", prose)


def test_no_label_can_be_a_formula_in_a_spreadsheet() -> None:
    """Prediction files use the task's own label names. The names of a checkpoint are matched with them, never copied."""
    for task in TASKS.values():
        assert all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]*", name) for name in task.labels or ())
        assert task.match_labels(["=cmd()", *(task.labels or ())[1:]]) is None
