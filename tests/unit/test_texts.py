"""Columns of texts on disk: they behave like lists, take almost no memory, and work without a writable disk."""

import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.data.examples import Examples
from isinglass.data.glue import read_tsv
from isinglass.data.texts import CHUNK, StoredTexts, encoded
from isinglass.storage import cache_dir
from isinglass.tasks import TASKS

PLAIN = [f"text {i} 😀" for i in range(2 * CHUNK + 7)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISINGLASS_CACHE", str(tmp_path / "cache"))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_alike(column: StoredTexts, plain: list[str]) -> None:
    assert len(column) == len(plain) and [*column] == plain and column[-1] == plain[-1]
    assert column[5:9] == plain[5:9] and column[4000:20_000] == plain[4000:] and column[::-3] == plain[::-3]
    assert column[9:5] == [] and [*reversed(column)][:2] == plain[:-3:-1]
    assert plain[7] in column and column.index(plain[5000]) == 5000
    for index in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError):
            column[index]


def test_texts_on_disk_behave_like_a_list() -> None:
    check_alike(StoredTexts(PLAIN), PLAIN)


def test_texts_come_in_portions_of_any_size() -> None:
    """Guards against blocks whose size is not `CHUNK`, by which texts are found again."""
    column = StoredTexts()
    for begin, end in ((0, 1), (1, CHUNK - 1), (CHUNK - 1, CHUNK), (CHUNK, CHUNK), (CHUNK, 2 * CHUNK + 1)):
        column.extend(PLAIN[begin:end])
        assert [*column] == PLAIN[:end]
    column.extend(iter(PLAIN[2 * CHUNK + 1 :]))
    check_alike(column, PLAIN)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(), max_size=6), min_size=1, max_size=9))
def test_any_text_is_read_back_and_encoded_as_from_a_list(texts: list[str]) -> None:
    """Covers all Python strings, including halves of surrogate pairs, which no file can hold, and NUL."""
    many = texts * (CHUNK // len(texts) + 1)
    column = StoredTexts(many)
    assert column[: len(many)] == many
    for (characters, utf8), (expected, plain) in zip(encoded(column), encoded(many), strict=True):
        assert characters.tolist() == expected.tolist() and utf8 == plain


def test_the_file_has_no_name_and_goes_with_the_column() -> None:
    """A killed process must leave nothing behind."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = open_files()
    column = StoredTexts(PLAIN)
    assert [*cache_dir().iterdir()] == [] and open_files() == before + 1
    del column
    assert open_files() == before
    few = StoredTexts(PLAIN[: CHUNK - 1])
    assert len(few) == CHUNK - 1 and open_files() == before


@pytest.mark.parametrize("size", [0, 100_000, 200_000])
def test_on_a_full_disk_texts_stay_in_memory(size: int) -> None:
    """The limit on file size is real. The first or the second block does not fit, or only part of it does."""
    with files_of_at_most(size):
        check_alike(StoredTexts(PLAIN), PLAIN)


def test_where_nothing_can_be_written_texts_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ISINGLASS_CACHE", str(tmp_path / "file"))
    check_alike(StoredTexts(PLAIN), PLAIN)


@pytest.mark.parametrize("index", [[7, 0, 7], [5000, 3, 8192, 8198, 4999], [], [*range(0, 8199, 2)]])
def test_examples_are_taken_alike_from_lists_and_from_disk(index: list[int]) -> None:
    origins = ["a"] * 5 + ["b"] * (len(PLAIN) - 5)
    parts = {"labels": PLAIN, "origin": "a and 1 more", "line_numbers": range(len(PLAIN)), "origins": origins}
    for column in (PLAIN, StoredTexts(PLAIN)):
        taken = Examples(texts=(column, column), **parts).take(np.array(index, np.int64))
        assert [*taken.texts[1]] == taken.labels == [PLAIN[i] for i in index]
        assert [taken.where(i) for i in range(len(index))] == [f"{origins[i]}, line {i}" for i in index]


def test_a_file_of_many_rows_takes_a_few_bytes_of_memory_for_each(tmp_path: Path) -> None:
    """As Python strings these pairs took 400 bytes each. Only the label's place in a list and a line number remain."""
    rows = 60_000
    (tmp_path / "RTE").mkdir()
    with open(tmp_path / "RTE" / "train.tsv", "w") as lines:
        lines.write("index\tsentence1\tsentence2\tlabel\n")
        lines.writelines(f"{i}\tsentence {i} {'a' * 80}\tother {i} {'b' * 40}\tentailment\n" for i in range(rows))
    read_tsv(TASKS["rte"], TASKS["rte"].train, tmp_path)  # fills caches
    tracemalloc.start()
    try:
        examples = read_tsv(TASKS["rte"], TASKS["rte"].train, tmp_path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = (slice(CHUNK), slice(rows // CHUNK * CHUNK, None))  # the last one read, and the incomplete one
    held = sum(len(text) + 60 for column in examples.texts for block in blocks for text in column[block])
    assert len(examples) == rows and kept - held < 32 * rows
