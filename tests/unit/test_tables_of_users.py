"""The readers of a user's tables: every format gives the same rows, and every mistake one sentence with its location."""

import bz2
import csv
import gzip
import io
import json
import os
import tracemalloc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.config.settings import TableSettings
from isinglass.data.columns import Columns, as_text, read_tables
from isinglass.data.files import expand
from isinglass.data.formats import open_table, parse_delimiter
from isinglass.errors import ConfigError, DataError

STRANGE = [
    "naïve 😀 \u05d0\u05d1 \u202b",
    'a "quoted", text',
    "two\nlines",
    "two\r\nlines",
    "tab\there",
    "a;b|c",
    "'",
    " x ",
    "NA",
]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, texts=("text",), label="label", delimiter=None, encoding="utf-8"):
    return read_tables([open_table(path, delimiter, encoding)], Columns(texts=tuple(texts), label=label))[0]


def refusal(path, texts=("text",), label="label", delimiter=None, encoding="utf-8"):
    with pytest.raises(DataError) as error:
        read(path, texts, label, delimiter, encoding)
    message = str(error.value)
    assert message.startswith(str(path)) and message.isprintable() and message.endswith(".")
    return message.removeprefix(str(path))


def as_csv(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL, end="\r\n", header=("text", "label")) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows])
    return stream.getvalue().encode()


def as_parquet(columns) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


# ---- valid files -------------------------------------------------------


def test_all_formats_and_compressions_give_the_same_rows(tmp_path: Path) -> None:
    rows = [(text, ("no", "yes")[i % 2]) for i, text in enumerate(STRANGE * 3)]
    lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for text, label in rows).encode()
    raw = "".join(json.dumps({"label": label, "text": text}, ensure_ascii=False) + "\n" for text, label in rows).encode()
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    contents = {
        "a.csv": as_csv(rows),
        "b.CSV": as_csv(rows, quoting=csv.QUOTE_ALL, end="\n"),
        "c.csv": b"\xef\xbb\xbf" + as_csv(rows),
        "d.tsv": as_csv(rows, delimiter="\t"),
        "e.csv": as_csv(rows, delimiter=";"),
        "f.tsv": as_csv(rows, delimiter="|"),
        "g.jsonl": lines,
        "h.ndjson": b"\xef\xbb\xbf" + raw,
        "i.json": raw.replace(b"\n", b"\r\n"),
        "j.parquet": as_parquet(columns),
        "k.parquet": as_parquet({name: pa.array(values).dictionary_encode() for name, values in columns.items()}),
        "l.parquet": as_parquet({name: pa.array(values, pa.large_string()) for name, values in columns.items()}),
        "m.csv.gz": gzip.compress(as_csv(rows)),
        "n.jsonl.gz": gzip.compress(lines[:50]) + gzip.compress(lines[50:]),
        "o.tsv.bz2": bz2.compress(as_csv(rows, delimiter="\t")),
        "p.csv.zst": pa.compress(as_csv(rows), "zstd", asbytes=True),
        "q.jsonl.zst": pa.compress(lines, "zstd", asbytes=True),
    }
    for name, content in contents.items():
        table = read(write(tmp_path / name, content))
        assert [*zip(table.texts[0], table.labels)] == rows, name
        first = 2 if "csv" in name.lower() or "tsv" in name else 1
        assert table.line_numbers.tolist() == [*range(first, first + len(rows))], name


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8),
    delimiter=st.sampled_from(",\t;|:"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_pythons_csv_module_writes_is_read_back(rows, delimiter, quoting, end, tmp_path_factory) -> None:
    """Empty rows are left out, and the numbers of the other rows must not change."""
    end = "\r\n" if quoting == csv.QUOTE_MINIMAL else end  # otherwise csv does not quote the other line ends
    path = tmp_path_factory.mktemp("csv") / "mine.csv"
    write(path, as_csv(rows, delimiter, quoting, end, header=("a", "b", "c")))
    kept = [(number, row) for number, row in enumerate(rows, 2) if any(row)]
    if not kept:
        assert "has no rows" in refusal(path, texts=("a", "b"), label="c", delimiter=delimiter)
        return
    table = read(path, texts=("a", "b"), label="c", delimiter=delimiter)
    found = [*zip(*table.texts, table.labels)]
    assert list(zip(table.line_numbers.tolist(), found)) == kept
    empty = len(rows) - len(kept)
    assert [f": {empty:,} empty row(s) left out, " in note for note in table.notes if "left out" in note] == [True] * (
        empty > 0
    )


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), TEXT), min_size=1, max_size=8))
def test_what_pythons_json_module_writes_is_read_back(rows, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("json") / "mine.jsonl"
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [{"text": "", "label": ""}, *rows]))
    table = read(path)
    assert [*table.texts[0]][1:] == [row.get("text", "") for row in rows]
    _, missing = read_tables([open_table(path)], Columns(texts=("text",)))
    assert missing == {i: "text" for i, row in enumerate(rows, 1) if "text" not in row}
    assert table.labels[1:] == [row.get("label") for row in rows]


def test_rows_are_counted_as_a_spreadsheet_counts_them(tmp_path: Path) -> None:
    """The header is row 1, a text of two lines is one row, and empty rows count. In JSON Lines, lines are counted."""
    path = write(tmp_path / "a.csv", '\ntext,label\n"one\ntwo",x\n\n,\nthree,y\n\n')
    table = read(path)
    assert table.line_numbers.tolist() == [3, 6]
    assert table.notes == (f"{path}: 1 empty row(s) left out, the first in row 5.",)
    path = write(tmp_path / "a.jsonl", '\n{"text": "one"}\n  \n{"text": "two"}')
    assert read(path, label=None).line_numbers.tolist() == [2, 4]
    path = write(tmp_path / "one.csv", 'text\n""\n\nlast')
    assert [*read(path, label=None).texts[0]] == ["", "last"]


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", as_parquet({"text": ["a"], "vector": [{"x": [1.0]}], "label": [1]}))
    assert read(path).labels == ["1"]
    path = write(tmp_path / "a.jsonl", '{"text": "a", "vector": {"x": [1.0]}, "label": 1}\n')
    assert read(path).labels == ["1"]
    path = write(tmp_path / "a.csv", "text,text,label,label,,\n1,2,x,y,,\n")
    assert "has the column 'text' twice" in refusal(path)
    path = write(tmp_path / "a.csv", "text,label,,\n1,2,x,y\n")
    assert read(path).labels == ["2"]


def test_numbers_and_booleans_are_spelled_alike_in_json_and_parquet(tmp_path: Path) -> None:
    values = [1, 2.0, 0.5, True, False, "x", None, float("nan"), 10**30, -3]
    names = ["1", "2", "0.5", "true", "false", "x", None, None, str(10**30), "-3"]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": one, "label": one}) + "\n" for one in values))
    table = read(path)
    assert table.labels == names and [*table.texts[0]] == [name or "" for name in names]
    for kind, values, names in (
        (pa.int8(), [1, None, -3], ["1", None, "-3"]),
        (pa.uint64(), [2**64 - 1], [str(2**64 - 1)]),
        (pa.float64(), [1.0, 0.1, None, float("nan")], ["1", "0.1", None, None]),
        (pa.float32(), [1.0, 0.1, None, float("nan")], ["1", "0.1", None, None]),
        (pa.float16(), [np.float16(0.5)], ["0.5"]),
        (pa.bool_(), [True, False, None], ["true", "false", None]),
        (pa.decimal128(5, 2), [Decimal("1.50"), None], ["1.50", None]),
        (pa.binary(), [b"a", None], ["a", None]),
        (pa.null(), [None], [None]),
    ):
        array = pa.array(values, kind)
        table = read(write(tmp_path / "a.parquet", as_parquet({"text": array, "label": array})))
        assert table.labels == names and [*table.texts[0]] == [name or "" for name in names], kind


def test_lists_are_labels_of_one_example(tmp_path: Path) -> None:
    lists = [["a", "b"], [], ["b"], None]
    found = [("a", "b"), (), ("b",), None]
    columns = {"text": ["x"] * 4, "label": lists}
    assert read(write(tmp_path / "a.parquet", as_parquet(columns))).labels == found
    lines = "".join(json.dumps({"text": "x", "label": one}) + "\n" for one in lists)
    assert read(write(tmp_path / "a.jsonl", lines)).labels == found
    columns = {"text": ["x"] * 2, "label": pa.array([[1, 2], [3]], pa.large_list(pa.int8()))}
    assert read(write(tmp_path / "a.parquet", as_parquet(columns))).labels == [("1", "2"), ("3",)]


def test_a_text_of_a_million_words_is_read(tmp_path: Path) -> None:
    text = "wörter " * 1_000_000
    for name, content in {
        "a.csv": as_csv([(text, "x"), ("short", "y")]),
        "a.jsonl": "".join(json.dumps({"text": one, "label": "x"}, ensure_ascii=False) + "\n" for one in (text, "short")),
    }.items():
        assert [*read(write(tmp_path / name, content)).texts[0]] == [text, "short"]


def test_a_line_or_field_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("isinglass.data.formats.LONGEST_VALUE", 200_000)
    csv.field_size_limit(131_072)
    path = write(tmp_path / "a.csv", b"text,label\n" + b"x" * 300_000)
    assert ", line 2: more than 0 MiB without a line end" in refusal(path)
    path = write(tmp_path / "a.csv", b'text,label\nx,y\n"' + b"x\n" * 200_000)
    assert ", row 3: quotes are open or misplaced (field larger than field limit (200000))" in refusal(path)
    path = write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 300_000)
    assert ", line 1: more than 0 MiB without a line end" in refusal(path)


# ---- invalid files -----------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("text,label\na,b\nc\n", ", row 3: 1 columns; the header has 2"),
        ("text,label\na,b\n\nc,d,e\n", ", row 4: 3 columns; the header has 2"),
        ("text,label\na,b\nwell, then,d\n", ", row 3: 3 columns; the header has 2: put a text that holds ','"),
        ('text,label\na,b\n"c"d,e\n', ", row 3: quotes are open or misplaced"),
        ('text,label\na,b\nc,"d\ne,f\n', ", row 3: quotes are open or misplaced (unexpected end of data)"),
        ('text,label\na,b\n"c,d\n"e",f\n', ", row 3: quotes are open or misplaced"),
        ("label,label,text\na,b,c\n", " has the column 'label' twice; found 'label', 'label', 'text'"),
        ("text,lable\na,b\n", " has no column 'label' (did you mean 'lable'?); found 'text', 'lable'"),
        ("text,label\n", " has no rows below its header"),
        ("text,label", " has no rows below its header"),
        ("text,label\n\n,\n", " has no rows below its header"),
        ("\n\r\n", " is empty; a header"),
        ("", " is empty; rows of text were expected"),
        ("text,label\na,b\nc\0,d\n", ", line 3: a NUL byte"),
        (b"text,label\na,b\nna\xefve,d\n", ", line 3, byte 3: 0xef is not UTF-8; save the file as UTF-8"),
        (
            "text,label\na,b\n".encode("utf-16"),
            ", line 1: a NUL byte; the file is damaged or perhaps UTF-16: save the file as UTF-8, or name its encoding: "
            "--encoding utf-16.",
        ),
        ("text,label\na,b\n".encode("utf-16-le"), ", line 1: a NUL byte"),
        (gzip.compress(b"text,label\na,b\n", mtime=0), ", line 1: a NUL byte"),
        ("a;b|c\n1;2|3\n", ": the header 'a;b|c' is not separated by ',', but may be by ';' or '|'"),
    ],
)
def test_a_damaged_csv_file_is_one_sentence_with_its_place(content, found: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "mine.csv", content))
    assert message.startswith(found), message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"text": "a", "label": 1}\n{"text": "b"\n', ", line 2: not JSON (Expecting ',' delimiter, column 13)"),
        ('{"text": "a", "label": 1}\n["b", 2]\n', ", line 2: a list; a JSON object in each line was expected"),
        ('{"text": "a", "label": 1}\n7\n', ", line 2: a number; a JSON object in each line"),
        ('{\n"text": "a"\n}\n', ", line 1: not JSON"),
        ("", " is empty"),
        ("\n\n", " is empty; JSON objects, in an array or one in each line, were expected"),
        ('{"txt": "a", "label": 1}\n', " has no column 'text' (did you mean 'txt'?); found 'txt', 'label'"),
        ('{"text": ["a"], "label": 1}\n', ", line 1: the column 'text' holds a list; a text was expected"),
        ('{"text": "a", "label": 1}\n\n{"text": {"x": 1}}\n', ", line 3: the column 'text' holds an object; a text"),
        ('{"text": "a", "label": {"x": 1}}\n', ", line 1: the label column 'label' holds an object"),
        ('{"text": "a", "label": [[1]]}\n', ", line 1: the label column 'label' holds a list"),
        ('{"text": "a", "label": ["x", null]}\n', ", line 1: the label column 'label' holds a list with an empty label"),
        ('{"text": "a", "label": [" "]}\n', ", line 1: the label column 'label' holds a list with an empty label"),
        ('{"text": "\\ud800", "label": 1}\n', ", line 1: the column 'text' holds half of a surrogate pair"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}\n", ", line 1: a number of too many digits"),
        ('{"text": ' + "[" * 100_000 + "\n", ", line 1: JSON nested too deeply"),
        (b'{"text": "a\0", "label": 1}\n', ", line 1: a NUL byte"),
        (b'{"text": "a", "label": 1}\n{"text": "\xe4"}\n', ", line 2, byte 11: 0xe4 is not UTF-8"),
    ],
)
def test_a_damaged_json_lines_file_is_one_sentence_with_its_place(content, found: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "mine.jsonl", content))
    assert message.startswith(found), message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"text,label\n", " is not a readable Parquet file: "),
        (b"", " is not a readable Parquet file: "),
        (as_parquet({"text": ["a"] * 100, "label": [1] * 100})[:-9], " is not a readable Parquet file: "),
        (
            as_parquet({"text": ["a"], "labels": [1]}),
            " has no column 'label' (did you mean 'labels'?); found 'text', 'labels'",
        ),
        (
            as_parquet({"text": [{"x": "a"}], "label": [1]}),
            ", row 1: the column 'text' holds an object; a text was expected",
        ),
        (as_parquet({"text": [["a"]], "label": [1]}), ", row 1: the column 'text' holds a list; a text was expected"),
        (
            as_parquet({"text": ["a"], "label": [[[1]]]}),
            ", row 1: the label column 'label' holds a list; a name, a number or a list",
        ),
        (
            as_parquet({"text": pa.array([1], pa.timestamp("s")), "label": [1]}),
            ", row 1: the column 'text' holds a value of the type datetime; a text",
        ),
        (as_parquet({"text": pa.array([b"a\xff"]), "label": [1]}), " is not a readable Parquet file: Invalid UTF8"),
        (as_parquet({"text": pa.array([], pa.string()), "label": pa.array([], pa.int8())}), " has no rows; at least one"),
    ],
)
def test_a_damaged_parquet_file_is_one_sentence(content: bytes, found: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "mine.parquet", content))
    assert message.startswith(found), message


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv.gz", b"text,label\na,b\n", " is not a readable gzip file: zlib inflate failed"),
        ("a.csv.gz", gzip.compress(as_csv([("a", "b")]), mtime=0)[:-9], " is not a readable gzip file: Truncated"),
        ("a.csv.bz2", b"text,label\na,b\n", " is not a readable bz2 file: bz2 decompress failed"),
        ("a.jsonl.zst", b'{"text": "a"}\n', " is not a readable zstd file: ZSTD decompress failed"),
        ("a.csv.gz", gzip.compress(b"text,label\na,\xff\n", mtime=0), ", line 2, byte 3: 0xff is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "\xff"}\n', mtime=0), ", line 2, byte 11: 0xff is not UTF-8"),
        ("a.csv.gz", b"", " is empty"),
        ("a.xlsx", b"PK", " has the ending '.xlsx'; supported endings are .csv, .tsv, .jsonl, .ndjson, .json, .parquet"),
        ("a", b"text,label", " has the ending ''; supported endings are .csv"),
        ("a.parquet.gz", b"PAR1", " has the ending '.gz'; supported endings are .csv"),
        ("a.zip", b"PK", " has the ending '.zip'; supported endings are .csv"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(name: str, content: bytes, found: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / name, content))
    assert message.startswith(found), message


def test_what_is_no_file_is_one_sentence(tmp_path: Path) -> None:
    assert " is a directory; a file was expected" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "mine.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert " is a pipe or a device, which may never end; a file was expected" in refusal(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    assert " is a pipe or a device" in refusal(tmp_path / "device.csv")
    (tmp_path / "round.csv").symlink_to("round.csv")
    assert "cannot be read" in refusal(tmp_path / "round.csv")


def test_another_delimiter_is_taken_from_the_header_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", 'id;text;label\n1;"well; then";x\n')
    assert tuple(open_table(path).guesses.values()) == (f"Columns are separated by ';', as the header of {path} shows.",)
    assert [*read(path).texts[0]] == ["well; then"]
    assert open_table(path, ";").guesses == open_table(path, ",").guesses == {}
    assert "has no column 'text'" in refusal(path, delimiter=",")
    path = write(tmp_path / "mine.csv", 'text\n"yes, indeed"\n')
    assert open_table(path).columns == ("text",)


@pytest.mark.parametrize(("typed", "delimiter"), [("\\t", "\t"), ("tab", "\t"), (";", ";"), ("\t", "\t"), ("·", "·")])
def test_a_delimiter_is_one_character(typed: str, delimiter: str) -> None:
    assert parse_delimiter(typed) == delimiter


@pytest.mark.parametrize("typed", ["", "::", '"', "\n", "\0", " "])
def test_what_is_no_delimiter_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match="one character was expected"):
        parse_delimiter(typed)


# ---- patterns ----------------------------------------------------------


def test_patterns_are_expanded_and_sorted(tmp_path: Path) -> None:
    names = ["b.csv", "a.csv", "c.jsonl", "[1].csv"]
    for name in names:
        write(tmp_path / name, "x")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "d.csv", "x")

    def found(*patterns: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in expand([str(tmp_path / one) for one in patterns])]

    assert found("*.csv") == ["[1].csv", "a.csv", "b.csv"]
    assert found("c.jsonl", "[ab].csv") == ["c.jsonl", "a.csv", "b.csv"]
    assert found("[1].csv") == ["[1].csv"]
    assert found("**/*.csv") == ["[1].csv", "a.csv", "b.csv", "deep/d.csv"]
    assert found("missing.csv") == ["missing.csv"]  # reported when it is opened


def test_a_pattern_without_a_match_and_a_file_named_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No file matches the pattern .*x\*\.csv"):
        expand([str(tmp_path / "x*.csv")])
    path = write(tmp_path / "a.csv", "x")
    (tmp_path / "link.csv").symlink_to(path)
    for other in ("a.csv", "*.csv", "link.csv", "../" + tmp_path.name + "/a.csv"):
        with pytest.raises(DataError, match="is named twice"):
            expand([str(path), str(tmp_path / other)])
    with pytest.raises(DataError, match="is not the name of a file"):
        expand(["a\0b"])


def test_numbers_are_spelled_as_their_width_has_them() -> None:
    values = [np.float32(0.1), np.float16(0.1), np.float64("nan"), np.float64(3), 3, True, 1e300, 5e-324, -0.0]
    assert [*map(as_text, values)] == ["0.1", "0.1", None, "3", "3", "true", "1e+300", "5e-324", "0"]
    for value in ({}, b"x", object(), 1j):
        with pytest.raises(TypeError):
            as_text(value)


# ---- JSON arrays -------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl", "mine.json.gz"])
def test_a_json_array_gives_the_rows_of_json_lines(name: str, indent: int | None, tmp_path: Path) -> None:
    rows = [{"text": text, "label": number, "x": [{"y": "]"}]} for number, text in enumerate(STRANGE)]
    content = json.dumps(rows, indent=indent, ensure_ascii=False).encode()
    table = read(write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content))
    assert [*table.texts[0]] == STRANGE and table.labels == [*map(str, range(len(STRANGE)))]
    assert table.where(1) == f"{tmp_path / name}, object 2"


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["text", "label", "x"]), TEXT), min_size=1, max_size=8))
def test_an_array_that_pythons_json_module_writes_is_read_back(rows, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("json") / "mine.json"
    write(path, json.dumps([{"text": "", "label": ""}, *rows]))
    assert [*read(path).texts[0]][1:] == [row.get("text", "") for row in rows]


def test_objects_longer_than_what_is_read_at_once_are_read_whole(tmp_path: Path) -> None:
    rows = [{"text": character * size, "label": size} for character, size in zip("aé\\😀", (1, 65_537, 300_000, 70_000))]
    for ensure_ascii in (True, False):
        table = read(write(tmp_path / "mine.json", json.dumps(rows, ensure_ascii=ensure_ascii)))
        assert [*table.texts[0]] == [row["text"] for row in rows]


def test_an_array_takes_the_memory_of_its_longest_object(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    row = json.dumps({"text": "x" * 1000, "label": 1})
    path.write_text("[" + ",".join([row] * 20_000) + "]")
    tracemalloc.start()
    try:
        count = sum(len(chunk.numbers) for chunk in open_table(path).chunks(("text",)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000 and peak < 2_000_000 < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[]", " is empty; JSON objects, in an array or one in each line, were expected"),
        ("[", ", object 1: not JSON (Expecting value, at the end of the file); a JSON object was expected"),
        ('[{"text": "a", "label": 1}', ": the end of the file after object 1; a comma or the array's ] was expected"),
        ('[{"text": "a", "label": 1},]', ", object 2: not JSON (Expecting value, at ']')"),
        ('[{"text": "a", "label": 1}\n{"text": "b"}]', ": '{' after object 1; a comma or the array's ]"),
        ('[{"text": "a", "label": 1}]\n{}', ": text after the array, which ends with object 1"),
        ('[{"text": "a", "label": 1}, ["b", 2]]', ", object 2: a list; an array of JSON objects was expected"),
        ('["a", "b"]', ", object 1: a text; an array of JSON objects"),
        ('[{"text": "a "b", "label": 1}, {"text": "c"}]', ", object 1: not JSON (Expecting ',' delimiter, at 'b\", "),
        ('[{"text": "a", "label": 1}, {"text": "b', ", object 2: not JSON (Unterminated string starting at, at '\"b')"),
        ('[{"text": "a", "label": ' + "9" * 5000 + "}]", ", object 1: a number of too many digits"),
        ("[" * 100_000, ", object 1: JSON nested too deeply"),
        ('[{"text": "a", "label": 1}, {"text": 1, "label": {}}]', ", object 2: the label column 'label' holds an object"),
        (b'[{"text": "a"},\n {"text": "\xe4"}]', ", line 2, byte 12: 0xe4 is not UTF-8; save the file as UTF-8"),
        (
            b"[" + b'{"text": "a", "label": 1},\n' * 9000 + b'{"text": "\xe4"}]',
            ", line 9001, character 11: 0xe4 is not UTF-8; save the file as UTF-8",
        ),
    ],
)
def test_a_damaged_json_array_is_one_sentence_with_its_place(content, found: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "mine.json", content))
    assert message.startswith(found), message


# ---- encodings ---------------------------------------------------------

WESTERN = [{"text": "naïve € “café”", "label": "ß"}, {"text": "two\nlines", "label": "é"}]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "gb18030", "utf-7"])
def test_a_text_in_any_encoding_gives_the_same_rows(encoding: str, ending: str, tmp_path: Path) -> None:
    rows = WESTERN * 3_000  # more than is read at once
    text = {".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}.get(ending)
    if ending == ".json":
        text = json.dumps(rows, ensure_ascii=False)
    if text is None:
        text = as_csv([row.values() for row in rows], "\t" if ending == ".tsv" else ",").decode()
    content = text.encode(encoding)
    path = write(tmp_path / f"mine{ending}", gzip.compress(content) if ending.endswith(".gz") else content)
    table = read(path, encoding=encoding)
    assert [*table.texts[0]] == [row["text"] for row in rows] and {*table.labels} == {"ß", "é"}


@pytest.mark.parametrize(
    ("content", "likely"),
    [
        ("text,label\nun café,a\n".encode("cp1252"), "line 2, byte 7: 0xe9 is not UTF-8; {}: perhaps --encoding cp1252."),
        (b"text,label\ncaf\xe9\x81,a\n", "line 2, byte 4: 0xe9 is not UTF-8; {}: perhaps --encoding latin-1."),
        (
            "text,label\n素敵な日,a\n".encode("shift_jis"),
            "line 2, byte 1: 0x91 is not UTF-8; {}: --encoding cp1251, gb18030 or shift_jis, say.",
        ),
        (
            "text,label\na,b\n".encode("utf-16-be"),
            "line 1: a NUL byte; the file is damaged or perhaps UTF-16: {}: --encoding utf-16-be.",
        ),
    ],
)
def test_what_is_not_utf_8_is_told_by_line_with_a_likely_encoding(content: bytes, likely: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "mine.csv", content))
    assert message == ", " + likely.format("save the file as UTF-8, or name its encoding")


def test_what_is_not_of_the_named_encoding_is_told_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", b"text,label\n" + b"a,b\n" * 50_000 + b"caf\xe9 \x81,b\n")
    assert refusal(path, encoding="CP1252").startswith(", line 50002, character 6: 0x81 is not CP1252; save the file as")
    path = write(tmp_path / "mine.csv", "text,label\na,b\n".encode("utf-16") + b"\x00\xd8\x00")
    assert refusal(path, encoding="utf-16").startswith(", line 3, character 1: 0x00 is not UTF-16")
    path = write(tmp_path / "mine.csv", "text,label\na,b\n".encode("utf-16"))
    assert "NUL byte" in refusal(path, encoding="cp1252") and "--encoding utf-16" in refusal(path, encoding="cp1252")


def test_utf_8_that_is_read_in_another_encoding_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "text,label\ncafé,a\n")
    note = f"{path} is valid UTF-8, but is read as cp1252, as --encoding says: look at the texts."
    assert read(path, encoding="cp1252").notes == (note,)
    assert read(path, encoding="utf-8-sig").notes == ()
    assert read(write(path, "text,label\ncafe,a\n"), encoding="cp1252").notes == ()


@pytest.mark.parametrize("name", ["", "nope", "base64", "rot13", "undefined", "utf\0"])
def test_what_is_no_encoding_of_texts_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="it must be an encoding that Python knows, such as utf-8, utf-16, cp1252"):
        TableSettings(encoding=name)
