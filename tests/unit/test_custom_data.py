"""From a user's files or lists to a task: what is inferred and reported, what is refused, and how the dev set is drawn."""

import gzip
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.custom import hold_out, read_custom
from isinglass.data.examples import encode_labels
from isinglass.data.inputs import open_input
from isinglass.errors import ConfigError, DataError
from isinglass.tasks import MULTILABEL, REGRESSION
from isinglass.tasks.custom import from_json, to_json
from isinglass.tasks.kinds import parse_number
from tests.memory import memory_data

ROWS = [(f"text {i}", ("no", "yes")[i % 2]) for i in range(20)]


def write(path: Path, rows, header=("text", "label"), delimiter=",") -> str:
    lines = "".join(delimiter.join(map(str, row)) + "\n" for row in (header, *rows))
    path.write_text(lines, encoding="utf-8")
    return str(path)


def write_json(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(train, **options: Any) -> TrainConfig:
    files = {
        name: (value,) if isinstance(value, str) else value
        for name, value in {"train_file": train, **options}.items()
        if name.endswith("_file")
    }
    return TrainConfig(**{"task": "mine", **options, **files})


def splits_of(data) -> dict:
    return {split.name: data.read(split) for split in data.task.splits}


def labels_task(labels, **options: Any):
    """Return the task that is inferred from labels in memory, with distinct texts."""
    return memory_data(name="mine", texts=([f"text {i}" for i in range(len(labels))],), labels=labels, **options)


def refused(call, kind=DataError) -> str:
    with pytest.raises(kind) as error:
        call()
    message = str(error.value)
    assert message.isprintable() and 10 <= len(message) <= 500 and message.endswith("."), message
    return message


# ---- columns -----------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "texts", "label"),
    [
        ("text,label", ("text",), "label"),
        ("id,Review,date,Stars", ("Review",), "Stars"),
        ("label,title,text,category", ("text",), "label"),
        ("idx,sentence1,sentence2,label", ("sentence1", "sentence2"), "label"),
        ("Premise,Hypothesis,gold_label", ("Premise", "Hypothesis"), "gold_label"),
        ("question1,question2,is_duplicate", ("question1", "question2"), "is_duplicate"),
        ("text_a,text_b,target", ("text_a", "text_b"), "target"),
        ("Text A,Text-B,y", ("Text A", "Text-B"), "y"),
        ("said,sentiment", ("said",), "sentiment"),
        ("tweet,what", ("tweet",), "what"),
        (" comment ,class", (" comment ",), "class"),
    ],
)
def test_columns_are_guessed_where_there_is_one_choice_and_it_is_said(header, texts, label, tmp_path: Path) -> None:
    columns = header.split(",")
    rows = [[f"{i % 2}" if name == label else f"{name} {i}" for name in columns] for i in range(20)]
    data = open_data(config(write(tmp_path / "mine.csv", rows, columns)))
    assert data.task.train.text_columns == texts and data.task.train.label_column == label
    shown = ", ".join(map(repr, texts))
    assert data.notes[0] == f"Columns: text {shown}, label {label!r} (guessed)."
    assert splits_of(data)["train"].texts[0][0].startswith(texts[0])


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("id,said,what", "text (--text-column, for pairs --text-column2 too) and which is label (--label-column)"),
        ("said,what", "text (--text-column, for pairs --text-column2 too) and which is label"),
        ("title,body,label", "text (--text-column"),
        ("text,score,rating", "label (--label-column)"),
        ("label,labels,text", "label (--label-column)"),
        ("sentence1,sentence2,text1,text2,label", "text (--text-column"),
    ],
)
def test_columns_with_no_or_several_choices_are_asked_for(header: str, lacking: str, tmp_path: Path) -> None:
    columns = header.split(",")
    path = write(tmp_path / "mine.csv", [["x"] * len(columns)], columns)
    message = refused(lambda: read_custom(config(path)))
    assert message.startswith(f"{path}: it is not plain which column is {lacking}")
    assert message.endswith(f"its first row names {', '.join(map(repr, columns))}.")


def test_named_columns_are_taken_and_the_others_guessed_around_them(tmp_path: Path) -> None:
    rows = [(f"a {i}", f"b {i}", i % 2, i % 3) for i in range(20)]
    path = write(tmp_path / "mine.csv", rows, ("title", "body", "label", "target"))
    data = read_custom(config(path, text_column="body", label_column="target"))
    assert not any("Columns" in note for note in data.notes) and data.task.labels == ("0", "1", "2")
    data = read_custom(config(path, text_column="body", text_column2="title"))
    assert data.task.is_pair and data.notes[0] == "Columns: text 'body', 'title', label 'label' (guessed)."
    message = refused(lambda: read_custom(config(path, text_column="bodi")))
    assert message == f"{path} has no column 'bodi' (did you mean 'body'?); found 'title', 'body', 'label', 'target'."
    assert "for two purposes" in refused(
        lambda: read_custom(config(path, text_column="label", label_column="label")), ConfigError
    )
    assert "name text_column too" in refused(lambda: read_custom(config(path, text_column2="title")), ConfigError)
    twice = write(tmp_path / "twice.csv", [("a", "b", "0")], ("text", "text", "label"))
    assert "it is not plain which column is text" in refused(lambda: read_custom(config(twice)))
    assert "has the column 'text' twice" in refused(lambda: read_custom(config(twice, text_column="text")))


def test_every_file_needs_the_columns_but_a_test_set_may_hide_its_labels(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    test = write(tmp_path / "test.csv", [("one",), ("two",)], ("text",))
    data = read_custom(config(train, test_file=test))
    assert data.task.split("test").label_column is None and splits_of(data)["test"].labels is None
    empty = write(tmp_path / "empty.csv", [("one", ""), ("two", "")])
    data = read_custom(config(train, test_file=empty))
    assert splits_of(data)["test"].labels is None and data.task.split("test").label_column is None
    assert f"{empty}: the column 'label' is empty: hidden labels." in data.notes
    both = config(train, test_file=(test, empty))
    assert refused(lambda: read_custom(both)).startswith(f"{test} has no column 'label'; found 'text'")
    assert f"{test} has no column 'label'" in refused(lambda: read_custom(config(train, validation_file=test)))
    other = write(tmp_path / "other.csv", ROWS, ("txt", "label"))
    assert f"{other} has no column 'text'" in refused(lambda: read_custom(config((train, other))))


# ---- rows and their locations ------------------------------------------


def test_several_files_are_one_split_and_each_row_keeps_its_place(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", ROWS[:6])
    write_json(tmp_path / "a.jsonl", [{"text": text, "label": label} for text, label in ROWS[6:]])
    data = read_custom(config((str(tmp_path / "*.csv"), str(tmp_path / "a.jsonl")), validation_fraction=0.2))
    splits = splits_of(data)
    assert [len(splits[name]) for name in ("train", "dev")] == [16, 4]
    for examples in splits.values():
        assert examples.origin == f"{tmp_path / 'b.csv'} and 1 more file(s)" and examples.unit == "row"
        for i, text in enumerate(examples.texts[0]):
            number_ = int(text.split()[1])
            file, row = (tmp_path / "b.csv", number_ + 2) if number_ < 6 else (tmp_path / "a.jsonl", number_ - 5)
            assert examples.where(i) == f"{file}, row {row}"
    write(tmp_path / "c.csv", [("x", "")])
    message = refused(lambda: read_custom(config(str(tmp_path / "*.csv"))))
    assert message.startswith(f"{tmp_path / 'c.csv'}, row 2: the column 'label' is empty")


def test_the_same_rows_in_any_format_make_the_same_data(tmp_path: Path) -> None:
    rows = [(f'text {i}, "quoted" 😀', i % 3) for i in range(30)]
    quoted = [('"' + text.replace('"', '""') + '"', label) for text, label in rows]
    paths = [
        write(tmp_path / "a.csv", quoted),
        write(tmp_path / "a.tsv", quoted, delimiter="\t"),
        write_json(tmp_path / "a.jsonl", [dict(zip(("text", "label"), row)) for row in rows]),
    ]
    pq.write_table(pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}), tmp_path / "a.parquet")
    for source in paths[:3]:
        (tmp_path / (Path(source).name + ".gz")).write_bytes(gzip.compress(Path(source).read_bytes()))
        (tmp_path / (Path(source).name + ".zst")).write_bytes(pa.compress(Path(source).read_bytes(), "zstd", asbytes=True))
    found = []
    for path in sorted(tmp_path.iterdir()):
        data = read_custom(config(str(path)))
        found.append((data.task, {name: ([*one.texts[0]], one.labels) for name, one in splits_of(data).items()}))
    assert len(found) == 10 and all(one == found[0] for one in found)


@pytest.mark.parametrize(
    ("rows", "place", "column"),
    [
        ([("a", "1"), ("", "0")], "row 3", "text"),
        ([("a", "1"), ("b", "")], "row 3", "label"),
        ([("  ", "1"), ("b", "")], "row 2", "text"),
        ([("a", " ")], "row 2", "label"),
        ([("\u2003", "1")], "row 2", "text"),
    ],
)
def test_a_missing_text_or_label_is_refused_or_left_out_and_counted(rows, place, column, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", rows)
    assert refused(lambda: read_custom(config(path))).startswith(f"{path}, {place}: the column '{column}' is empty")
    path = write(tmp_path / "mine.csv", [*rows, *ROWS])
    data = read_custom(config(path, drop_incomplete=True))
    count = sum(not (text.strip() and label.strip()) for text, label in rows)
    assert f"{path}: {count} incomplete row(s) left out, the first: {path}, {place}." in data.notes
    if count == len(rows):
        path = write(tmp_path / "mine.csv", rows)
        assert "nothing is left to use" in refused(lambda: read_custom(config(path, drop_incomplete=True)))


def test_null_and_nan_are_missing_in_json_and_parquet(tmp_path: Path) -> None:
    for row in ({"text": None, "label": 1}, {"label": 1}):
        path = write_json(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, row])
        assert f"{path}, line 2: the column 'text' is empty" in refused(lambda: read_custom(config(path)))
    for row in ({"text": "a", "label": None}, {"text": "a"}, {"text": "a", "label": float("nan")}):
        path = write_json(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, row])
        assert f"{path}, line 2: the column 'label' is empty" in refused(lambda: read_custom(config(path)))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "label": [float("nan"), None]}), path)
    message = refused(lambda: read_custom(config(str(path))))
    assert f"{path}, row 1: the column 'label' is empty (1 more rows are incomplete)" in message


def test_what_many_files_have_in_common_is_noted_once(tmp_path: Path) -> None:
    for name in "cab":
        write(tmp_path / f"{name}.csv", ROWS, delimiter=";")
    notes = read_custom(config(str(tmp_path / "*.csv"))).notes
    assert [note for note in notes if "separated" in note] == [
        f"Columns are separated by ';', as the header of {tmp_path / 'a.csv'} shows."
    ]


def test_the_same_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", ROWS)
    (tmp_path / "link.csv").symlink_to(path)
    for other in (path, str(tmp_path / "link.csv")):
        assert "is both train and dev set" in refused(lambda: read_custom(config(path, validation_file=other)))


# ---- labels ------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["b", "a"] * 5, "classification", ("a", "b")),
        ([10, 9, 2] * 5, "classification", ("2", "9", "10")),
        ([0, 1] * 5, "classification", ("0", "1")),
        ([True, False] * 5, "classification", ("false", "true")),
        ([1.0, 2.0, 3.0] * 5, "classification", ("1", "2", "3")),
        (["1.0", "0.0"] * 5, "classification", ("0.0", "1.0")),
        ([*range(20)] * 2, "classification", tuple(map(str, range(20)))),
        ([*range(21)] * 2, "classification", tuple(map(str, range(21)))),
        ([*range(1, 6)] * 5, "classification", ("1", "2", "3", "4", "5")),
        ([*range(11)] * 5, "classification", tuple(map(str, range(11)))),
        ([-1, 0, 1] * 5, "classification", ("-1", "0", "1")),
        ([101, 205, 3170] * 5, "classification", ("101", "205", "3170")),
        ([float(number) for number in range(77)] * 2, "classification", tuple(map(str, range(77)))),
        ([f"{number}.0" for number in range(77)] * 2, "classification", tuple(f"{number}.0" for number in range(77))),
        ([*range(500)] * 3, "classification", tuple(map(str, range(500)))),
        ([number / 2 for number in range(500)] * 3, "regression", None),
        ([1.0, 2.5] * 5, "regression", None),
        (["1", "2.5e0", "-3"] * 5, "regression", None),
        (["1", "1_0"] * 5, "classification", ("1", "1_0")),
        ([["b"], ["a", "b"], []] * 5, "multilabel", ("a", "b")),
        ([["b", "b"], ["a"]] * 5, "multilabel", ("a", "b")),
        (["٣", "1"] * 5, "classification", ("1", "٣")),
    ],
)
def test_the_kind_of_task_is_told_by_the_labels_and_said(labels, kind, names) -> None:
    data = labels_task(labels)
    assert (data.task.kind.name, data.task.labels) == (kind, names)
    assert any(note.startswith(f"Kind: {kind}, ") for note in data.notes)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([*range(1, 101)] * 5, "100 different whole numbers from 1 to 100 in 500 rows"),
        ([*range(1990, 2021)] * 9, "31 different whole numbers from 1990 to 2020 in 279 rows"),
        ([*range(30), 31] * 9, "31 different whole numbers from 0 to 31 in 279 rows with gaps"),
        ([*range(0, 101, 4)] * 9, "26 different whole numbers from 0 to 100 in 234 rows with gaps"),
        ([*range(77), *range(76)], "77 different whole numbers from 0 to 76 in 153 rows, but only 1 with 76"),
        ([*range(1, 13), 5], "12 different whole numbers from 1 to 12 in 13 rows, few rows for each"),
        ([*range(100)], "100 different whole numbers from 0 to 99 in 100 rows, but only 1 with 0"),
        ([-(10**30), *range(30)] * 3, "31 different whole numbers from -1"),
    ],
)
def test_whole_numbers_that_may_be_classes_or_scores_are_asked_for(labels, found: str) -> None:
    message = refused(lambda: labels_task(labels))
    assert message.startswith(f"training data: the label column 'label' holds {found}")
    assert message.endswith(": classes or scores? Name the kind: --kind classification or --kind regression.")
    assert labels_task(labels, kind="regression").task.kind is REGRESSION


def test_whole_numbers_that_are_taken_as_classes_are_noted() -> None:
    note = "The labels are whole numbers and taken as classes: for scores choose --kind regression."
    assert note in labels_task([*range(77)] * 3).notes and note in labels_task([1, 2, 3, 4, 5] * 3).notes
    for labels, options in (([0, 1] * 5, {}), (["a", "b", "c"] * 5, {}), ([1, 2, 3] * 5, {"kind": "classification"})):
        assert note not in labels_task(labels, **options).notes
    assert "Kind: regression, to 2 different numbers, because some have a fraction." in labels_task([1.0, 2.5] * 5).notes


@pytest.mark.parametrize("values", [pa.array([*range(77)] * 3, pa.int16()), pa.array([*map(float, range(77)), None] * 3)])
def test_whole_numbers_of_parquet_are_classes_in_whichever_type(values, tmp_path: Path) -> None:
    """pandas makes floats of integers where some are missing."""
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(len(values))], "label": values}), path)
    data = read_custom(config(str(path), drop_incomplete=True))
    assert data.task.labels == tuple(map(str, range(77)))


def test_a_file_in_another_encoding_is_read_for_training_and_for_prediction(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"café {text},{label}é\n" for text, label in ROWS), encoding="cp1252")
    data = read_custom(config(str(path), encoding="cp1252"))
    assert data.task.labels == ("noé", "yesé") and data.read(data.task.splits[0]).texts[0][0].startswith("café")
    assert "--encoding cp1252" in refused(lambda: read_custom(config(str(path))))
    again = read_custom(config(str(path), encoding="cp1252"), data.task)
    assert again.read(data.task.splits[0]).labels == data.read(data.task.splits[0]).labels
    (piece,) = open_input(path, data.task, encoding="cp1252").pieces()
    assert piece.examples.texts[0][0] == "café text 0"
    lines = tmp_path / "mine.txt"
    lines.write_text("café\nthé\n", encoding="utf-16")
    (piece,) = open_input(lines, data.task, encoding="utf-16").pieces()
    assert [*piece.examples.texts[0]] == ["café", "thé"]
    assert "line 1: a NUL byte" in refused(lambda: [*open_input(lines, data.task).pieces()])


def test_the_kind_may_be_chosen_where_the_labels_allow_it() -> None:
    assert labels_task([1, 2, 3] * 5, kind="regression").task.kind is REGRESSION
    assert labels_task([0.5, 1.5] * 5, kind="classification").task.labels == ("0.5", "1.5")
    message = refused(lambda: labels_task([["a"], ["b"]] * 5, kind="classification"), ConfigError)
    assert "kind is classification, but 'label' holds several labels of an example" in message
    message = refused(lambda: labels_task(["a", "b"] * 5, kind="multilabel"), ConfigError)
    assert "name what separates several with --label-delimiter" in message
    message = refused(lambda: labels_task(["1.5", "b"] * 5, kind="regression"))
    assert message == "training data, index 1: the score is 'b'; mine needs a finite number."
    assert "index 0: the score is '1_000'" in refused(lambda: labels_task(["1_000", "2"] * 5, kind="regression"))
    message = refused(lambda: labels_task(["1.5", "1e39"] * 5, kind="regression"))
    assert "index 1: the score is '1e39'" in message
    assert "positive_label" in refused(lambda: labels_task([1.5, 2.5] * 5, positive_label="1.5"), ConfigError)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["a"] * 5, "The label column 'label' tells nothing apart: all are 'a'"),
        ([1.5] * 5, "tells nothing apart: all are '1.5'"),
        ([["a"]] * 5, "tells nothing apart: all are 'a'"),
        ([[]] * 5, "tells nothing apart: no row has any"),
        ([f"x{i}" for i in range(30)], "The column 'label' has 30 different values in 30 rows"),
        ([f"x{i}" for i in range(10_001)] * 3, "has 10,001 different values in 30,003 rows"),
        (
            [*range(2, 62), "n/a"],
            "training data, index 60: the label is 'n/a', but 60 others are numbers: correct or remove it",
        ),
        (["a", "b", " a"], "index 2: the label is ' a', and 'a' in training data, index 0: remove the spaces"),
        (["a", "b "], "index 1: the label is 'b ': remove the spaces"),
        (
            ["1", "0", "1.0"],
            "index 2: the label is '1.0', and '1' in training data, index 0: the same number in two spellings",
        ),
        (["1", "01"], "index 0: the label is '1', and '01' in training data, index 1: the same number"),
        (["1", "true", "0"], "index 1: the label is 'true', and '1' in training data, index 0: booleans beside numbers"),
        (["a", "b\x1b[31m"], "index 1: The label 'b\\x1b[31m' cannot be a name"),
        (["a", "=cmd()"], "index 1: The label '=cmd()' begins like a spreadsheet's formula"),
        (["a", "x" * 201], "cannot be a name"),
        (["a", "\ud800"], "index 1: The label '\\ud800' cannot be a name"),
        (
            ["a", None],
            "training data, index 1: the column 'label' is empty: fill it in, or leave such rows out with --drop-",
        ),
        (["a", ["b"]], "training data, index 0: the label is one name, in training data, index 1 a list"),
        (
            ["a", {"b": 1}],
            "index 1: the label column 'label' holds an object; a name, a number or a list of names was expected",
        ),
        (["a", ["b", None]], "index 1: the label column 'label' holds a list with an empty label"),
    ],
)
def test_labels_that_must_be_a_mistake_are_one_sentence(labels, found: str) -> None:
    assert found in refused(lambda: labels_task(labels))


def test_doubts_are_notes() -> None:
    notes = labels_task(["Pos", "pos", "neg", "rare"] + ["Pos", "pos", "neg"] * 3).notes
    assert "Labels that differ in upper and lower case only are different labels here: 'Pos' (4) and 'pos' (4)." in notes
    assert "1 label(s) with a single training example: 'rare'." in notes
    notes = labels_task([["a"], [], ["b"], []] * 4).notes
    assert "8 of 16 training rows have no label." in notes and "No training row has more than one label." in notes


@pytest.mark.parametrize(
    ("labels", "given", "positive"),
    [
        (["ham", "spam"], None, "spam"),
        (["Positive", "negative"], None, "Positive"),
        (["yes", "zero"], None, "yes"),
        (["-1", "1"], None, "1"),
        (["1", "2"], None, "2"),
        (["false", "true"], None, "true"),
        (["left", "right"], None, "right"),
        (["good", "spam"], None, "spam"),
        (["left", "right"], "left", "left"),
    ],
)
def test_the_positive_label_is_given_or_known_or_the_last(labels, given, positive) -> None:
    data = labels_task(labels * 5, positive_label=given)
    assert data.task.positive_label == positive and data.task.metrics == ("accuracy", "f1")
    assert f"Positive label, which F1 counts: {positive!r}{'' if given else ' (guessed)'}." in data.notes


def test_a_positive_label_that_cannot_be_is_refused() -> None:
    assert "(did you mean 'spam'?)" in refused(lambda: labels_task(["ham", "spam"] * 5, positive_label="span"), ConfigError)
    assert "one of two classes" in refused(lambda: labels_task(["a", "b", "c"] * 5, positive_label="a"), ConfigError)


def test_a_label_outside_of_the_training_data_is_refused_with_its_row(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    other = write(tmp_path / "other.csv", [("a", "yes"), ("b", "yess")])
    for option in ("validation_file", "test_file"):
        message = refused(lambda: read_custom(config(train, **{option: other})))
        assert message.startswith(
            f"{other}, row 3: the label 'yess' (did you mean 'yes'?) does not occur in the training data"
        )
    message = refused(lambda: read_custom(config(train, test_file=write(tmp_path / "t.csv", [("a", "1"), ("b", "yes")]))))
    assert f"{tmp_path / 't.csv'}, row 2: the label '1' does not occur" in message


def test_labels_in_one_text_are_separated(tmp_path: Path) -> None:
    rows = [("a", "x; y"), ("b", ""), ("c", "y;;y"), ("d", "x")] * 5
    path = write(tmp_path / "mine.csv", rows)
    data = read_custom(config(path, label_delimiter=";", validation_file=write(tmp_path / "dev.csv", [("a", "y;x")])))
    assert data.task.labels == ("x", "y") and data.task.kind is MULTILABEL
    assert splits_of(data)["train"].labels == [("x", "y"), (), ("y",), ("x",)] * 5
    assert splits_of(data)["dev"].labels == [("y", "x")]
    assert encode_labels(splits_of(data)["train"], data.task, ("y", "x"))[:3].tolist() == [[1, 1], [0, 0], [1, 0]]
    lists = write_json(tmp_path / "a.jsonl", [{"text": "a", "label": ["x"]}])
    assert "needs no label_delimiter" in refused(lambda: read_custom(config(lists, label_delimiter=";")), ConfigError)
    assert "label_delimiter is empty" in refused(lambda: read_custom(config(path, label_delimiter="")), ConfigError)
    nulls = write_json(tmp_path / "b.jsonl", [{"text": "a", "label": "x;y"}, {"text": "a", "label": None}])
    assert "line 2: the column 'label' is empty" in refused(lambda: read_custom(config(nulls, label_delimiter=";")))


def test_a_json_label_of_mixed_types_is_taken_by_its_spelling(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", [{"text": f"{i}", "label": (1, "a", "1")[i % 3]} for i in range(30)])
    assert read_custom(config(path)).task.labels == ("1", "a")
    path = write_json(tmp_path / "a.jsonl", [{"text": f"{i}", "label": (1, "x", ["y"])[i % 3]} for i in range(30)])
    assert f"{path}, line 1: the label is one name, in {path}, line 3 a list" in refused(lambda: read_custom(config(path)))


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("-.5", -0.5), ("1e3", 1000.0), ("+2.", 2.0), ("007", 7.0)])
def test_what_is_a_number(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "one", "1_0", "nan", "inf", "1e999", "0x1", "1,5", "٣", ".", " 1", "1\n", "e5", "--1"])
def test_what_is_no_number(text: str) -> None:
    assert not math.isfinite(parse_number(text))


# ---- the dev split -----------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    strata=st.lists(st.integers(0, 6), min_size=1, max_size=200),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_each_stratum_gives_its_share(strata, fraction, seed) -> None:
    strata = np.array(strata)
    held = hold_out(strata, fraction, seed)
    assert np.array_equal(held, hold_out(strata, fraction, seed))
    for stratum, size in Counter(strata.tolist()).items():
        count = int(held[strata == stratum].sum())
        assert count == (0 if size == 1 else min(max(1, round(size * fraction)), size - 1))


def test_the_dev_set_is_drawn_by_its_own_seed_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [(f"text {i}", "rare" if i in (3, 77) else "single" if i == 50 else ("no", "yes")[i % 2]) for i in range(200)]
    path = write(tmp_path / "mine.csv", rows)
    drawn = {}
    for seed in (42, 43):
        data = read_custom(config(path, split_seed=seed, seed=seed + 1, validation_fraction=0.25))
        train, dev = (splits_of(data)[name] for name in ("train", "dev"))
        assert sorted([*train.line_numbers, *dev.line_numbers]) == [*range(2, 202)]
        assert [*train.line_numbers] == sorted(train.line_numbers) and [*dev.line_numbers] == sorted(dev.line_numbers)
        assert Counter(dev.labels) == {"no": 25, "yes": 24, "rare": 1} and "single" in train.labels
        assert data.notes[-1] == (
            f"The dev set is 50 of 200 training rows, 25% of each label (split_seed {seed}); 150 are trained on."
        )
        drawn[seed] = [*dev.texts[0]]
    again = read_custom(config(path, split_seed=42, seed=7, validation_fraction=0.25))
    assert drawn[42] == [*splits_of(again)["dev"].texts[0]] != drawn[43]


def test_the_dev_set_of_a_regression_spans_its_range() -> None:
    scores = np.random.default_rng(0).normal(size=500)
    data = labels_task(scores.tolist())
    dev = np.sort(encode_labels(splits_of(data)["dev"], data.task, None))
    assert len(dev) == 50
    for part, of_all in zip(np.split(dev, 10), np.split(np.sort(scores), 10)):
        assert of_all[0] - 1e-6 <= part[0] and part[-1] <= of_all[-1] + 1e-6


def test_too_few_rows_for_a_dev_set_are_refused() -> None:
    for labels in (["a", "b"], ["a", "b", "c"], [["a", "b"]]):
        assert "too few rows to hold some back" in refused(lambda: labels_task(labels))
    assert labels_task(["a", "b", "b"]).notes[-1].startswith("The dev set is 1 of 3 training rows")
    data = labels_task(["a", "b"], dev=((["c"],), ["a"]))
    assert [len(one) for one in splits_of(data).values()] == [2, 1]


# ---- a known task ------------------------------------------------------


def test_a_known_task_is_read_again_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", [(text, label, 1) for text, label in ROWS], ("said", "what", "x"))
    now = config(path, text_column="said", label_column="what", validation_fraction=0.3)
    data = read_custom(now)
    task = from_json(json.loads(to_json(data.task)), "task.json")
    again = open_data(config(path, validation_fraction=0.3), task)  # the task names the columns
    assert again.task == data.task and again.notes == ()
    for name, examples in splits_of(data).items():
        other = splits_of(again)[name]
        assert ([*other.texts[0]], other.labels) == ([*examples.texts[0]], examples.labels)
        assert "The dev set is 6 of 20" in other.notes[-1]


def test_a_known_task_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    task = read_custom(config(write(tmp_path / "train.csv", ROWS))).task
    dev = write(tmp_path / "dev.csv", [("a", "yes")])
    test = write(tmp_path / "test.csv", [("a",)], ("text",))
    data = read_custom(config("gone.csv", validation_file=dev, test_file=test), task)
    assert data.read(data.task.split("dev")).labels == ["yes"]
    assert data.read(data.task.split("test")).labels is None and data.task.split("test").label_column is None
    assert "gone.csv does not exist" in refused(lambda: data.read(data.task.train))
    data = read_custom(config(dev, test_file="gone.csv"), task)
    assert "gone.csv does not exist" in refused(lambda: data.read(data.task.split("test")))


def test_a_known_task_refuses_labels_that_it_does_not_know(tmp_path: Path) -> None:
    task = read_custom(config(write(tmp_path / "train.csv", ROWS))).task
    path = write(tmp_path / "new.csv", [*ROWS, ("a", "perhaps")])
    data = read_custom(config(path), task)
    message = refused(lambda: data.read(data.task.train))
    assert message == f"{path}, row 22: the label is 'perhaps'; mine has 'no', 'yes'."
    lists = write_json(tmp_path / "a.jsonl", [{"text": "a", "label": ["yes"]}] * 9)
    data = read_custom(config(lists), task)
    assert "line 1: a list of labels; mine needs one label" in refused(lambda: data.read(data.task.train))
    several = labels_task([["a"], ["b"]] * 5).task
    data = read_custom(config(path), several)
    assert "row 2: one label; mine needs a list of labels" in refused(lambda: data.read(data.task.train))


# ---- invalid texts -----------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "labels", "found"),
    [
        ((["a", None],), ["a", "b"], "training data, index 1: the column 'text' is empty: fill it in, or leave"),
        ((["a", "b"], ["c", " "]), ["a", "b"], "training data, index 1: the column 'text2' is empty"),
        ((["a", ["b"]],), ["a", "b"], "training data, index 1: the column 'text' holds a list; a text was expected"),
        ((["a", b"\xff"],), ["a", "b"], "index 1: the column 'text' holds a value of the type bytes"),
        ((["a", "\ud800"],), ["a", "b"], "index 1: the column 'text' holds half of a surrogate pair"),
        (([],), [], "training data has no rows; at least one was expected"),
    ],
)
def test_values_that_are_no_texts_are_one_sentence(texts, labels, found: str) -> None:
    assert found in refused(lambda: memory_data(name="m", texts=texts, labels=labels))
