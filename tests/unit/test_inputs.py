"""Texts to predict: which columns are read, what is refused, and in which pieces they come."""

import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isinglass.data.inputs import Inputs, open_input
from isinglass.data.texts import CHUNK
from isinglass.errors import ConfigError, DataError
from isinglass.tasks import TASKS
from isinglass.tasks.custom import custom_task
from tests.unit.test_custom_data import refused, write, write_json

OWN = custom_task(
    name="mine", kind="classification", labels=["no", "yes"], text_columns=["text"], label_column="label", splits=["train"]
)
PAIRS = custom_task(
    name="pairs", kind="classification", labels=["no", "yes"], text_columns=["q", "a"], label_column="y", splits=["train"]
)


def texts(inputs: Inputs) -> list[list[str]]:
    """Return all texts of each column."""
    pieces = [*inputs.pieces()]
    return [[text for piece in pieces for text in piece.examples.texts[i]] for i in range(len(inputs.columns))]


def test_texts_are_read_from_a_table_or_from_lines(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.csv", [(1, "one"), (2, ""), (3, "three")], ("id", "text")))
    inputs = open_input(path, OWN)
    assert inputs.check() == (3, [])
    (piece,) = inputs.pieces()
    assert piece.examples.texts == (["one", "", "three"],) and piece.examples.labels is None
    assert piece.examples.where(2) == f"{path}, row 4"
    path = Path(write_json(tmp_path / "a.jsonl", [{"text": "one"}, {"x": 1}, {"text": None}]))
    inputs = open_input(path, OWN)
    note = f"{path}: 2 missing text(s) used as empty ones, the first in line 2."
    assert inputs.check() == (3, [note]) and texts(inputs) == [["one", "", ""]] and inputs.late_notes() == [note]
    for name, content, expected in (("a.txt", 'one, "two"\n', 'one, "two"'), ("plain", "one\n", "one")):
        (tmp_path / name).write_text(content)
        assert texts(open_input(tmp_path / name, OWN)) == [[expected]]


def test_a_published_task_takes_tsv_as_lines_without_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('one "\ttwo\n')
    assert texts(open_input(path, TASKS["rte"])) == [['one "'], ["two"]]
    path.write_text('first\tsecond\n"one"\ttwo\n')
    assert texts(open_input(path, TASKS["rte"], text_columns=("first", "second"))) == [["one"], ["two"]]


# ---- columns -----------------------------------------------------------


def test_a_column_of_another_name_is_named(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.csv", [("one", "two", 3)], ("said", "answer", "a")))
    assert texts(open_input(path, OWN, text_columns=("said", None))) == [["one"]]
    assert texts(open_input(path, PAIRS, text_columns=("said", None))) == [["one"], ["3"]], "the other keeps its name"
    assert texts(open_input(path, PAIRS, text_columns=("said", "answer"))) == [["one"], ["two"]]
    assert "no column 'sad' (did you mean 'said'?)" in refused(lambda: open_input(path, OWN, text_columns=("sad", None)))
    message = refused(lambda: open_input(path, OWN, text_columns=("said", "answer")), ConfigError)
    assert message == "The model is for single texts: leave --text-column2 out."
    (tmp_path / "a.txt").write_text("one\n")
    message = refused(lambda: open_input(tmp_path / "a.txt", OWN, text_columns=("text", None)), ConfigError)
    assert "one example in each line: leave --text-column out" in message


def test_a_csv_file_without_header_is_refused(tmp_path: Path) -> None:
    """Its first row would be taken for a header, and get no prediction."""
    path = tmp_path / "a.csv"
    path.write_text("This was by far the best of all\nnot for me\n")
    assert refused(lambda: open_input(path, OWN)) == (
        f"{path} has no column 'text', from which the model takes its texts; found 'This was by far the best of all', which "
        f"look like texts and not like a header: add a header, or save the texts as lines of a .txt file."
    )
    path.write_text("fine\nnot for me\n")
    assert refused(lambda: open_input(path, OWN)) == (
        f"{path} has no column 'text', from which the model takes its texts; found 'fine': name yours with --text-column "
        f"or, if the first row is no header, add a header, or save the texts as lines of a .txt file."
    )
    path.write_text("first,second\none,two\n")
    assert "no column 'sentence1'" in refused(lambda: open_input(path, TASKS["rte"]))
    path.write_text("q,second\none,two\n")
    assert "no column 'a', " in refused(lambda: open_input(path, PAIRS))
    assert "name yours with --text-column2" in refused(lambda: open_input(path, PAIRS))


def test_formats_that_name_their_columns_may_have_other_names_if_they_are_just_as_many(tmp_path: Path) -> None:
    path = Path(write_json(tmp_path / "a.jsonl", [{"said": "one"}]))
    inputs = open_input(path, OWN)
    assert inputs.check() == (1, [f"{path}: 'said' used as 'text'."]) and texts(inputs) == [["one"]]
    path = Path(write_json(tmp_path / "a.jsonl", [{"said": "one", "by": "me"}]))
    assert refused(lambda: open_input(path, OWN)).endswith("found 'said', 'by': name yours with --text-column.")


def test_columns_are_kept(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "one", "a,b": [1], "at": None}, {"id": 8, "text": "two", "a,b": [], "at": 0.5}]
    path = Path(write_json(tmp_path / "a.jsonl", rows))
    (piece,) = open_input(path, OWN, keep=["id, at", "a,b"]).pieces()
    assert piece.kept == {"id": [7, 8], "at": [None, 0.5], "a,b": [[1], []]}
    (piece,) = open_input(path, OWN, keep=["id", "all"]).pieces()
    assert [*piece.kept] == ["id", "text", "a,b", "at"] and piece.kept["text"] == ["one", "two"]
    assert "no column 'idd' (did you mean 'id'?)" in refused(lambda: open_input(path, OWN, keep=["idd"]))


# ---- pieces ------------------------------------------------------------


def test_a_large_file_comes_in_pieces(tmp_path: Path) -> None:
    rows = 2 * CHUNK + 10
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"text {i}\n" for i in range(rows)))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(rows)))
    (tmp_path / "a.txt").write_text("".join(f"text {i}\n" for i in range(rows)))
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(rows)]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.txt", "a.parquet"):
        inputs = open_input(tmp_path / name, OWN)
        pieces = [piece.examples for piece in inputs.pieces()]
        assert inputs.check() == (rows, [])
        assert [text for piece in pieces for text in piece.texts[0]] == [f"text {i}" for i in range(rows)]
        assert max(map(len, pieces)) < 2 * CHUNK and len(pieces) in (2, 3)
        assert pieces[-1].where(len(pieces[-1]) - 1) == f"{tmp_path / name}, " + {
            "a.csv": f"row {rows + 1}", "a.parquet": f"row {rows}"
        }.get(name, f"line {rows}")  # fmt: skip


def test_a_mistake_in_the_last_row_shows_before_the_first_piece(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\n" + "text,1\n" * CHUNK + "text\n")
    inputs = open_input(tmp_path / "a.csv", OWN)
    assert f"row {CHUNK + 2}: 1 columns; the header has 2" in refused(inputs.check)
    (tmp_path / "a.csv").write_text("text\n")
    assert "has no rows below its header; at least one was expected" in refused(open_input(tmp_path / "a.csv", OWN).check)


def test_the_lines_of_a_pipe_come_as_they_are_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    was_read = threading.Event()

    def send() -> None:
        with open(tmp_path / "pipe", "w") as pipe:
            for line in ("one\n", "two\nthree\n"):
                pipe.write(line)
                pipe.flush()
                assert was_read.wait(30), "a line was not read before the next one came"
                was_read.clear()

    sender = threading.Thread(target=send)
    sender.start()
    inputs = open_input(tmp_path / "pipe", OWN)
    assert inputs.is_stream
    pieces = []
    for piece in inputs.pieces():
        pieces.append(piece.examples.texts[0])
        was_read.set()
    sender.join()
    assert pieces == [["one"], ["two", "three"]]


def test_arrow_types_are_those_of_the_file(tmp_path: Path) -> None:
    kinds = {"at": pa.timestamp("ms"), "group": pa.dictionary(pa.int32(), pa.string()), "raw": pa.binary(), "n": pa.int8()}
    columns = {name: pa.array([None], kind) for name, kind in kinds.items()} | {"text": pa.array(["one"])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    inputs = open_input(tmp_path / "a.parquet", OWN, keep=["at,group,raw,n"])
    expected = {"at": pa.timestamp("ms"), "group": pa.string(), "raw": pa.large_string(), "n": pa.int8()}
    assert inputs.arrow_types() == expected
    write(tmp_path / "a.csv", [("one", 1)], ("text", "id"))
    assert open_input(tmp_path / "a.csv", OWN, keep=["id"]).arrow_types() == {"id": pa.string()}


def test_invalid_texts_are_named(tmp_path: Path) -> None:
    path = Path(write_json(tmp_path / "a.jsonl", [{"text": "one"}, {"text": ["two"]}]))
    with pytest.raises(DataError, match="line 2: the column 'text' holds a list; a text was expected"):
        open_input(path, OWN).check()
