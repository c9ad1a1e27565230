"""`isinglass predict` and `isinglass evaluate` on files as people have them: columns, formats, streams."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isinglass.config import resolve
from isinglass.runs.directory import write_run
from isinglass.training.trainer import train
from tests.end_to_end.test_cli import isinglass
from tests.tiny import WORDS, save_tiny

ROWS = [(f"c-{i}", f"{WORDS[i]} {('bad', 'good')[i % 2]}", ("no", "yes")[i % 2]) for i in range(24)]
QUICK = {"epochs": 1, "batch_size": 16, "max_length": 24, "learning_rate": 1e-3}


def write(path: Path, rows, header=("id", "text", "label")) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a run on a file of the user's own, whose dev set is a part of it, and a test file."""
    directory = tmp_path_factory.mktemp("run")
    model = save_tiny(directory / "model")
    train_file = write(directory / "mine.csv", ROWS * 2)
    test_file = write(directory / "test.csv", [(i, f'{text}\n"so"', label) for i, text, label in ROWS])
    files = {"train_file": (str(train_file),), "test_file": (str(test_file),), "model": str(model)}
    write_run(train(resolve(task="mine", flags=files | QUICK)), directory / "mine", overwrite=False)
    return directory / "mine"


def read(path: Path, delimiter: str = "\t") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [*csv.DictReader(file, delimiter=delimiter)]


def test_a_run_names_row_text_and_label_of_each_prediction(run: Path) -> None:
    rows = read(run / "predictions-test.tsv")
    assert [*rows[0]] == ["index", "prediction", "label", "row", "text", "probability:no", "probability:yes"]
    assert [(row["row"], row["text"], row["label"]) for row in rows] == [
        (str(i), f'{text}\n"so"', label) for i, (_, text, label) in enumerate(ROWS, 2)
    ]
    for row in read(run / "predictions-dev.tsv"):
        source = (ROWS * 2)[int(row["row"]) - 2]
        assert (row["text"], row["label"]) == source[1:]


def test_a_file_without_header_is_refused_and_its_lines_are_not(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "plain.csv", [(text,) for _, text, _ in ROWS[:6]], None)
    done = isinglass("predict", run, "--input", "plain.csv", cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("isinglass: plain.csv has no column 'text', from which the model takes its texts; found ")
    assert "--text-column" in done.err and "a .txt file" in done.err
    (tmp_path / "plain.csv").rename(tmp_path / "plain.txt")
    done = isinglass("predict", run, "--input", "plain.txt", cwd=tmp_path)
    assert done.status == 0 and done.out.count("\n") == 7


def test_columns_are_named_and_kept_in_each_format(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "new.csv", ROWS, ("id", "body", "label"))
    options = ("--input", "new.csv", "--text-column", "body", "--keep-columns", "id,body", "--top", 1)
    for ending in ("csv", "tsv", "jsonl", "parquet"):
        done = isinglass("predict", run, *options, "--output", f"out.{ending}", cwd=tmp_path)
        assert done.status == 0, done.err
    with open(tmp_path / "out.jsonl") as lines:
        rows = [json.loads(line) for line in lines]
    assert [(row["index"], row["id"], row["body"]) for row in rows] == [(i, *row[:2]) for i, row in enumerate(ROWS)]
    assert [*rows[0]] == ["index", "prediction", "id", "body", "top1", "probability1"]
    assert all(row["prediction"] == row["top1"] and 0.5 <= row["probability1"] <= 1 for row in rows)
    as_text = [{name: str(value) for name, value in row.items()} for row in rows]
    assert read(tmp_path / "out.csv", ",") == read(tmp_path / "out.tsv") == as_text
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert table == [row | {"probability1": pytest.approx(row["probability1"], abs=1e-5)} for row in rows]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input", "new.csv", "--output", "a.json"), "choose one of .csv, .tsv, .jsonl, .parquet"),
        (("--input", "new.csv", "--keep-columns", "index"), "new.csv has a column 'index', as the predictions have"),
        (("--keep-columns", "id"), "--keep-columns is for a file of your own: name it with --input"),
        (("--text-column", "id"), "--text-column is for a file of your own: name it with --input"),
        (("--input", "new.csv", "--top", 0), "top is 0; it must be at least 1"),
        (("--input", "-", "--text-column", "id"), "standard input has no columns"),
    ],
)
def test_what_has_no_use_is_refused(options, said: str, run: Path, tmp_path: Path) -> None:
    write(tmp_path / "new.csv", ROWS, ("index", "text", "label"))
    done = isinglass("predict", run, *options, cwd=tmp_path)
    assert (done.status, done.out) == (2, "") and said in done.err and done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_predicting_the_test_set_of_own_data_names_its_rows(run: Path, tmp_path: Path) -> None:
    done = isinglass("predict", run, "--top", 1, "--output", "out.tsv", cwd=tmp_path)
    assert done.status == 0, done.err
    rows = read(tmp_path / "out.tsv")
    assert [*rows[0]] == ["index", "prediction", "label", "row", "text", "top1", "probability1"]
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in read(run / "predictions-test.tsv")]


def test_a_line_is_answered_before_the_next_one_is_sent(run: Path) -> None:
    """A program that asks and waits for the answer would wait for ever."""
    command = [sys.executable, "-m", "isinglass", "predict", str(run), "--input", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, bufsize=1, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        for number, (_, text, _) in enumerate(ROWS[:4]):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            if number == 0:
                assert process.stdout.readline() == "index\tprediction\tprobability:no\tprobability:yes\n"
            assert process.stdout.readline().split("\t")[0] == str(number)
        process.stdin.close()
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert process.returncode == 0


# ---- evaluate ----------------------------------------------------------


def test_a_test_file_with_other_columns_is_scored_when_they_are_named(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "new.csv", [(i, f'{text}\n"so"', label) for i, text, label in ROWS], ("id", "body", "team"))
    options = ("--test-file", "new.csv", "--text-column", "body", "--label-column", "team", "--json")
    done = isinglass("evaluate", run, *options, cwd=tmp_path)
    assert done.status == 0, done.err
    scored = json.loads((run / "result.json").read_text())
    assert json.loads(done.out)["metrics"] == scored["metrics"]["test"]


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        (
            ("id", "body", "label"),
            (),
            "has no column 'text', from which the model takes its texts; found 'id', 'body',",
        ),
        (
            ("id", "text", "team"),
            (),
            "found 'id', 'text', 'team': name yours with --label-column, or use `isinglass",
        ),
        (("id", "text", "team"), ("--label-column", "tem"), "has no column 'tem' with the labels; found"),
        (("id", "body", "label"), ("--text-column", "bdy"), "has no column 'bdy' (did you mean 'body'?)"),
        (("id", "text", "label"), ("--text-column2", "id"), "for single texts: leave --text-column2 out"),
    ],
)
def test_wrong_columns_are_named_with_those_that_were_expected(header, options, said, run: Path, tmp_path: Path) -> None:
    write(tmp_path / "new.csv", ROWS, header)
    done = isinglass("evaluate", run, "--test-file", "new.csv", *options, cwd=tmp_path)
    assert (done.status, done.out) == (2, "") and said in done.err, done.err


def test_columns_without_a_test_file_are_refused(run: Path, tmp_path: Path) -> None:
    done = isinglass("evaluate", run, "--label-column", "team", cwd=tmp_path)
    assert done.status == 2 and "--label-column is for a file of your own: name it with --test-file" in done.err
