"""GLUE's files, valid and damaged."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.data.examples import encode_labels
from isinglass.data.glue import read_tsv
from isinglass.data.inputs import open_input
from isinglass.errors import DataError, IsinglassError
from isinglass.tasks import TASKS, get_task
from tests.tiny import write_glue

RTE = TASKS["rte"]
HEADER = b"index\tsentence1\tsentence2\tlabel\n"


def read(tmp_path: Path, content: bytes, task=RTE, split: str = "dev"):
    where = task.split(split)
    (tmp_path / task.folder).mkdir(exist_ok=True)
    (tmp_path / task.folder / where.file).write_bytes(content)
    return read_tsv(task, where, tmp_path)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "demo"])
def test_every_split_of_every_task_is_read(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    write_glue(task, tmp_path, rows=5)
    for split in task.splits:
        examples = read_tsv(task, split, tmp_path)
        assert len(examples) == 5
        assert len(examples.texts) == (2 if task.is_pair else 1)
        assert (examples.labels is None) == (split.label_column is None)
        if examples.labels is not None:
            assert len(encode_labels(examples, task, task.labels)) == 5


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    """A CSV reader would swallow the tab and the line end between two quotes."""
    content = HEADER + b'0\t"Yes\tno"\tentailment\n1\t" a\t" b\tnot_entailment\n'
    examples = read(tmp_path, content)
    assert list(zip(*examples.texts)) == [('"Yes', 'no"'), ('" a', '" b')]


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    """Python's splitlines would cut at a carriage return, U+2028, U+0085 or a vertical tab inside a sentence."""
    odd = "a\rb\u2028c\u0085d\x0be"
    examples = read(tmp_path, HEADER + f"0\t{odd}\tx\tentailment\n".encode())
    assert [*examples.texts[0]] == [odd]


def test_byte_order_mark_crlf_and_a_missing_final_newline_are_taken(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + HEADER.replace(b"\n", b"\r\n") + b"0\tx\ty\tentailment\r\n1\tp\tq\tnot_entailment"
    examples = read(tmp_path, content)
    assert examples.labels == ["entailment", "not_entailment"]
    assert list(examples.line_numbers) == [2, 3]


def test_short_rows_of_qqp_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The original release of QQP has some short rows."""
    content = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t1\n4\t5\t6\tonly one\n7\t8\t9\tc\td\t0\n"
    examples = read(tmp_path, content, TASKS["qqp"])
    assert examples.labels == ["1", "0"]
    assert "1 rows with missing columns left out, the first in line 3" in examples.notes[0]
    assert "line 3" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (HEADER, "no rows below its header"),
        (b"index\tsentence1\tlabel\n0\tx\tentailment\n", "line 1 has no column 'sentence2' (did you mean 'sentence1'?)"),
        (b"sentence1\tsentence2\tlabel\tlabel\n", "line 1 has the column 'label' twice"),
        (HEADER + b"0\tx\ty\tentailment\n1\tx\tentailment\n", "line 3: 3 tab-separated fields; the header has 4"),
        (HEADER + b"0\tx\ty\tz\tentailment\n", "line 2: 5 tab-separated fields; the header has 4"),
        (HEADER + b"0\tx\ty\tentailment\n1\tp\t\xff\tentailment\n", "line 3, byte 5: 0xff is not UTF-8"),
        (HEADER + b"0\tx\0\ty\tentailment\n", "line 2: a NUL byte"),
    ],
)
def test_damaged_files_get_one_sentence_with_file_and_line(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert "RTE/dev.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("rte", b"0\tx\ty\tentailement\n", "the label is 'entailement' (did you mean 'entailment'?)"),
        ("rte", b"0\tx\ty\t\n", "the label is ''; RTE has 'entailment', 'not_entailment'"),
        ("wnli", b"0\tx\ty\t2\n", "the label is '2'; WNLI has '0', '1'"),
    ],
)
def test_unknown_labels_name_the_line_and_the_labels(task: str, line: bytes, message: str, tmp_path: Path) -> None:
    examples = read(tmp_path, HEADER + line, TASKS[task])
    with pytest.raises(DataError) as caught:
        encode_labels(examples, TASKS[task], TASKS[task].labels)
    assert message in str(caught.value)
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize("score", ["5.5", "-0.1", "nan", "inf", "high", ""])
def test_scores_outside_their_range_are_refused(score: str, tmp_path: Path) -> None:
    task = TASKS["stsb"]
    examples = read(tmp_path, f"sentence1\tsentence2\tscore\na\tb\t2.5\nc\td\t{score}\n".encode(), task)
    with pytest.raises(DataError, match=r"line 3: the score is .* a number from 0 to 5"):
        encode_labels(examples, task, None)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a directory"):
        read_tsv(RTE, RTE.dev[0], tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no folder RTE"):
        read_tsv(RTE, RTE.dev[0], tmp_path)
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_text("x")
    with pytest.raises(DataError, match=r"dev\.tsv does not exist: .* holds train\.tsv"):
        read_tsv(RTE, RTE.dev[0], tmp_path)
    (tmp_path / "RTE" / "dev.tsv").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        read_tsv(RTE, RTE.dev[0], tmp_path)


@settings(max_examples=200)
@given(content=st.binary(max_size=200), header=st.booleans())
def test_no_bytes_make_the_reader_fail_in_another_way(content: bytes, header: bool, tmp_path_factory) -> None:
    """Whatever the file contains, the reader must return examples or raise one of our own errors."""
    path = tmp_path_factory.mktemp("fuzz")
    try:
        examples = read(path, HEADER * header + content)
        encode_labels(examples, RTE, RTE.labels)
    except IsinglassError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_the_users_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("one\ttwo\nthree\tfour\n", encoding="utf-8")
    (piece,) = open_input(path, TASKS["rte"]).pieces()
    assert [*map(list, piece.examples.texts)] == [["one", "three"], ["two", "four"]]
    with pytest.raises(DataError, match="line 1: 2 tab-separated fields; one text without tabs"):
        list(open_input(path, TASKS["cola"]).pieces())


def test_task_names_are_found_in_any_spelling() -> None:
    assert get_task("STS-B") is get_task("sts_b") is TASKS["stsb"]
    with pytest.raises(IsinglassError, match=r"no task 'mprc' \(did you mean 'mrpc'\?\)"):
        get_task("mprc")
