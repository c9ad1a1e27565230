"""Tokens against `transformers`' own tokenizers, and the cache on disk."""

import resource
from pathlib import Path

import numpy as np
import pytest

from isinglass.data.examples import Examples
from isinglass.data.texts import StoredTexts
from isinglass.data.tokenization import _key, tokenize
from isinglass.errors import CheckpointError, ConfigError
from isinglass.storage import cache_dir
from tests.tiny import FAMILIES, save_tiny, sentence, tiny_tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISINGLASS_CACHE", str(tmp_path / "cache"))


def pairs(count: int, longest: int = 40, *, single: bool = False) -> Examples:
    rng = np.random.default_rng(0)
    columns = tuple([sentence(rng, int(rng.integers(1, longest))) for _ in range(count)] for _ in range(1 if single else 2))
    return Examples(texts=columns, labels=None, origin="here", line_numbers=range(1, count + 1))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_longest_first_truncation_equal_those_of_transformers(family: str, single: bool, tmp_path: Path) -> None:
    """Guards against other special tokens or types, and against truncating the second text instead of the longer one."""
    from transformers import AutoTokenizer

    directory = save_tiny(tmp_path / "model", family)
    reference = AutoTokenizer.from_pretrained(directory)
    examples = pairs(50, single=single)
    found = tokenize(examples, (directory / "tokenizer.json").read_text(), 32)
    expected = reference(*examples.texts, truncation="longest_first", max_length=32, return_token_type_ids=True)
    whole = reference(*examples.texts)["input_ids"]
    assert found.truncated == sum(len(ids) > 32 for ids in whole) > 0
    for i in range(50):
        a, b = found.offsets[i], found.offsets[i + 1]
        assert found.input_ids[a:b].tolist() == expected["input_ids"][i]
        assert found.token_type_ids[a:b].tolist() == expected["token_type_ids"][i]


def test_padding_asked_for_by_the_file_is_ignored() -> None:
    """The tokenizer.json of all-MiniLM-L6-v2 pads everything to 128."""
    tokenizer = tiny_tokenizer("bert")
    tokenizer.enable_padding(length=128)
    found = tokenize(pairs(3, 5), tokenizer.to_str(), 64)
    assert found.lengths.max() < 20


def test_the_second_call_maps_what_the_first_left(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer_json = tiny_tokenizer("bert").to_str()
    first = tokenize(pairs(20), tokenizer_json, 32)
    monkeypatch.setattr("isinglass.data.tokenization._tokenize", lambda *_: pytest.fail("tokenized again"))
    second = tokenize(pairs(20), tokenizer_json, 32)
    assert isinstance(second.input_ids, np.memmap)
    assert second.truncated == first.truncated > 0
    np.testing.assert_array_equal(first.input_ids, second.input_ids)


def test_the_key_is_the_content() -> None:
    """Another text, division into texts, length or tokenizer must change the key. Another file name must not."""

    def key(texts: tuple[list[str], ...], tokenizer: str = "t", length: int = 8, origin: str = "x") -> str:
        return _key(Examples(texts=texts, labels=None, origin=origin, line_numbers=[1]), tokenizer, length, None)

    base = (["ab", "c"], ["d", "e"])
    others = [key((["a", "bc"], ["d", "e"])), key((["ab", "c"], ["d", "f"])), key((["ab", "c", "d", "e"],))]
    others += [key(base, "u"), key(base, length=9)]
    assert len({key(base), *others}) == 6
    assert key(base, origin="y") == key(base)


def test_the_key_of_a_content_never_changes() -> None:
    """Guards against caches that grow because the same texts are looked up under another key or in another order."""
    texts = ([f"text {i} 😀" for i in range(5000)], [f"{i} é" for i in range(5000)])
    for columns in (texts, tuple(map(StoredTexts, texts))):
        examples = Examples(texts=columns, labels=None, origin="x", line_numbers=range(5000))
        assert _key(examples, "t", 8, None) == "8f098f1db53057c6fbee6db33c45431a"
        assert _key(examples, "t", 8, 2) == "cd0baa8aa352926a427aaf39eda645f1"


@pytest.mark.parametrize("overlap", [None, 4])
def test_tokens_of_many_blocks_are_those_of_one(overlap: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens stored in blocks, gathered in memory, or made at once must be the same. The files hold the arrays' bytes."""
    examples, tokenizer_json = pairs(50, single=True), tiny_tokenizer("bert").to_str()
    whole = tokenize(examples, tokenizer_json, 16, window_overlap=overlap, keep=False)
    monkeypatch.setattr("isinglass.data.tokenization.CHUNK", 7)
    names = ["input_ids", "token_type_ids", "offsets", *(["source"] if overlap else [])]
    for keep in (False, True):
        found = tokenize(examples, tokenizer_json, 16, window_overlap=overlap, keep=keep)
        assert found.truncated == whole.truncated and (found.source is None) == (overlap is None)
        for name in names:
            assert getattr(found, name).dtype == getattr(whole, name).dtype
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    (entry,) = (cache_dir() / "tokens").iterdir()
    assert {path.name for path in entry.iterdir()} == {"meta.json", *(f"{name}.bin" for name in names)}
    for name in names:
        assert (entry / f"{name}.bin").read_bytes() == getattr(whole, name).tobytes()


def test_a_damaged_entry_is_made_anew() -> None:
    tokenizer_json = tiny_tokenizer("bert").to_str()
    first = tokenize(pairs(20), tokenizer_json, 32).input_ids.copy()
    (entry,) = (cache_dir() / "tokens").iterdir()
    content = (entry / "input_ids.bin").read_bytes()
    for damaged in (content[:200], content[:201], b""):
        (entry / "input_ids.bin").write_bytes(damaged)
        np.testing.assert_array_equal(tokenize(pairs(20), tokenizer_json, 32).input_ids, first)
        assert (entry / "input_ids.bin").read_bytes() == content


def test_errors_name_the_file_and_the_least_length() -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be used"):
        tokenize(pairs(1), "{}", 8)
    with pytest.raises(ConfigError, match="max_length is 4; with 3 special tokens at least 5"):
        tokenize(pairs(1), tiny_tokenizer("bert").to_str(), 4)


def test_a_cache_that_cannot_be_written_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer_json = tiny_tokenizer("bert").to_str()
    expected = tokenize(pairs(20), tokenizer_json, 32).input_ids
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ISINGLASS_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(tokenize(pairs(20), tokenizer_json, 32).input_ids, expected)
    assert "cannot be written" in caplog.text
    assert "ISINGLASS_CACHE" in caplog.text


def test_a_disk_that_fills_up_is_said_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The limit on file size is real and is reached after some blocks are written, of which nothing may be left."""
    examples, tokenizer_json = pairs(10_000, 8), tiny_tokenizer("bert").to_str()
    expected = tokenize(examples, tokenizer_json, 32, keep=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        found = tokenize(examples, tokenizer_json, 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(found.input_ids, expected.input_ids)
    assert "cannot be written (File too large): the tokens stay in memory" in caplog.text
    assert [*(cache_dir() / "tokens").iterdir()] == []
