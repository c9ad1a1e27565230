"""Tokenize texts in batches with the Rust `tokenizers`, and cache the token ids on disk by content, to be memory-mapped.

Token ids are stored without padding: all examples lie end to end on one axis, and `offsets` says where each begins.

Example, two pairs, `max_length` 8 (ids of BERT's vocabulary):

    ("a cat", "sat")   [CLS] a cat [SEP] sat [SEP]       input_ids      101 1037 4937 102 2938 102 101 2053 102 2748 102
    ("no", "yes")      [CLS] no [SEP] yes [SEP]          token_type_ids   0    0    0   0    1   1   0    0   0    1   1
                                                         offsets        0, 6, 11
"""

import errno
import functools
import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from isinglass.data.examples import Examples
from isinglass.data.texts import CHUNK, encoded
from isinglass.errors import CheckpointError, ConfigError
from isinglass.storage import cache_dir, held, sync

logger = logging.getLogger(__name__)

FORMAT: Final = "isinglass-tokens-1"  # part of the cache key: raise the number when the stored arrays change


@dataclass(frozen=True, kw_only=True)
class TokenizedTexts:
    """N examples as token ids, T tokens in all. Arrays may be read-only memory maps.

    Attributes:
        input_ids: int32 (T,), each example with its special tokens, no padding.
        token_type_ids: uint8 (T,), 0 for the first text and its special tokens, 1 for the second; all 0 if the tokenizer
            does not distinguish them.
        offsets: int64 (N + 1,): example i is `input_ids[offsets[i]:offsets[i + 1]]`.
        truncated: how many examples were cut to `max_length`.
        source: int64 (N,), for long texts read in windows: the position of each window's text. None: each example is a
            text of its own.
    """

    input_ids: Int32[np.ndarray, " T"]
    token_type_ids: UInt8[np.ndarray, " T"]
    offsets: Int64[np.ndarray, " N_plus_1"]
    truncated: int
    source: Int64[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Number of tokens of each example."""
        return np.diff(self.offsets)

    def per_text(self, outputs: Float32[np.ndarray, "N outputs"]) -> Float32[np.ndarray, "M outputs"]:
        """Return a model's outputs for each text: for texts read in windows the mean over a text's windows."""
        if self.source is None:
            return outputs
        starts = np.flatnonzero(np.diff(self.source, prepend=-1))
        means = np.add.reduceat(outputs, starts) / np.bincount(self.source)[:, None]
        averaged: Float32[np.ndarray, "M outputs"] = means.astype(np.float32)
        return averaged


_Array = np.ndarray[Any, np.dtype[Any]]
_REQUIRED_ARRAYS: Final = ("input_ids", "token_type_ids", "offsets")


@dataclass(frozen=True)
class _Part:
    """The tokens of a few thousand texts: what each array of `TokenizedTexts` gets appended, and how many texts were cut."""

    arrays: dict[str, _Array]
    truncated: int


def tokenize(
    examples: Examples, tokenizer_json: str, max_length: int, *, window_overlap: int | None = None, keep: bool = True
) -> TokenizedTexts:
    """Tokenize, or map the result of an earlier call with the same tokenizer, length and texts from the cache.

    Pairs longer than `max_length` lose tokens from the longer text first. Padding that `tokenizer_json` requests is ignored.

    Args:
        tokenizer_json: the text of a checkpoint's `tokenizer.json`.
        max_length: most tokens of an example, special tokens included.
        window_overlap: read long texts in windows of `max_length` tokens instead of cutting them; each window has special
            tokens and shares this many tokens with the one before.
        keep: use the cache. Without it nothing is left on disk: for texts that are seen once.

    Raises:
        CheckpointError: `tokenizer_json` cannot be used.
        ConfigError: `max_length` leaves no room beside the special tokens and the overlap, or pairs in windows.
    """
    tokenize_parts = functools.partial(_tokenize, examples, tokenizer_json, max_length, window_overlap)
    if not keep:
        return _concatenate(tokenize_parts())
    directory = cache_dir() / "tokens" / _key(examples, tokenizer_json, max_length, window_overlap)
    cached = _load(directory)
    if cached is not None:
        return cached
    with _one_writer(directory):
        cached = _load(directory)  # another process may have made it meanwhile
        if cached is not None:
            return cached
        try:
            return _store(tokenize_parts(), directory)
        except OSError as error:
            logger.warning(
                f"The token cache {cache_dir()} cannot be written ({error.strerror}): the tokens stay in memory; "
                f"name another directory with ISINGLASS_CACHE."
            )
    return _concatenate(tokenize_parts())


@contextmanager
def _one_writer(directory: Path) -> Iterator[None]:
    """Let one of several processes make a cache entry while the others wait; nobody waits where nothing can be written."""
    lock = directory.with_name(f".{directory.name}.lock")
    with ExitStack() as stack:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(lock, str(directory), wait_seconds=math.inf))
            stack.callback(lock.unlink, missing_ok=True)
        yield


def _key(examples: Examples, tokenizer_json: str, max_length: int, window_overlap: int | None) -> str:
    """Return the digest of everything that the tokens depend on."""
    digest = hashlib.blake2b(digest_size=16)
    lengths = f"{max_length}" if window_overlap is None else f"{max_length}/{window_overlap}"
    digest.update(f"{FORMAT} {lengths} {len(examples.texts)} {len(examples)}\0{tokenizer_json}".encode())
    for column in examples.texts:
        for characters, _ in encoded(column):
            digest.update(characters.data)  # so that no two divisions of a text agree
        for _, utf8 in encoded(column):
            digest.update(utf8)
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _load_tokenizer(tokenizer_json: str) -> Any:
    """Return the tokenizer, cached: making it takes longer than using it on a text."""
    from tokenizers import Tokenizer  # imported where used: the readers do not need it

    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # noqa: BLE001  # the Rust library raises nothing more precise
        raise CheckpointError(f"tokenizer.json cannot be used: {error}.") from None


def _tokenize(examples: Examples, tokenizer_json: str, max_length: int, window_overlap: int | None) -> Iterator[_Part]:
    """Yield the tokens of `CHUNK` texts at a time."""
    tokenizer = _load_tokenizer(tokenizer_json)
    _check_lengths(tokenizer, len(examples.texts), max_length, window_overlap)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first", stride=window_overlap or 0)
    num_tokens = 0
    for start in range(0, len(examples), CHUNK):
        columns = [column[start : start + CHUNK] for column in examples.texts]
        texts = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        encodings = tokenizer.encode_batch_fast(texts)
        if window_overlap is None:
            part = _pack_texts(encodings, num_tokens)
        else:
            part = _pack_windows(encodings, num_tokens, first_text=start)
        if start == 0:
            part.arrays["offsets"] = np.concatenate([np.zeros(1, np.int64), part.arrays["offsets"]])
        num_tokens += len(part.arrays["input_ids"])
        yield part


def _check_lengths(tokenizer: Any, num_texts: int, max_length: int, window_overlap: int | None) -> None:
    specials = tokenizer.num_special_tokens_to_add(is_pair=num_texts == 2)
    room = max_length - specials
    if room < num_texts:
        raise ConfigError(
            f"max_length is {max_length}; with {specials} special tokens at least {specials + num_texts} needed."
        )
    if window_overlap is None:
        return
    if num_texts == 2:
        raise ConfigError("long_texts is 'windows', which are for single texts: pairs are cut, longest first.")
    if window_overlap >= room:
        raise ConfigError(
            f"window_overlap is {window_overlap}; below {room} expected: max_length is {max_length}, with {specials} "
            f"special tokens."
        )


def _pack_texts(encodings: Sequence[Any], start: int) -> _Part:
    """Pack the first `max_length` tokens of each text; `start` tokens lie before them."""
    truncated = sum(1 for encoding in encodings if encoding.overflowing)
    return _Part(_pack(encodings, start), truncated)


def _pack_windows(encodings: Sequence[Any], start: int, *, first_text: int) -> _Part:
    """Pack all windows of each text; the first text has the position `first_text`."""
    source: list[int] = []

    def windows() -> Iterator[Any]:
        for text, encoding in enumerate(encodings, first_text):
            rest = encoding.overflowing
            source.extend([text] * (1 + len(rest)))
            yield encoding
            yield from rest

    arrays = _pack(windows(), start)
    arrays["source"] = np.array(source, np.int64)
    return _Part(arrays, 0)


def _pack(encodings: Iterable[Any], start: int) -> dict[str, _Array]:
    """Lay the tokens of encodings end to end; `offsets` are their ends, counted from `start` tokens before."""
    ids: list[int] = []
    types: list[int] = []
    ends: list[int] = []
    for encoding in encodings:
        ids += encoding.ids
        types += encoding.type_ids
        ends.append(start + len(ids))
    return {
        "input_ids": np.array(ids, np.int32),
        "token_type_ids": np.array(types, np.uint8),
        "offsets": np.array(ends, np.int64),
    }


def _concatenate(parts: Iterable[_Part]) -> TokenizedTexts:
    """Return all tokens in memory."""
    gathered = [*parts]
    arrays = {name: np.concatenate([part.arrays[name] for part in gathered]) for name in gathered[0].arrays}
    return TokenizedTexts(**arrays, truncated=sum(part.truncated for part in gathered))


def _store(parts: Iterable[_Part], directory: Path) -> TokenizedTexts:
    """Write the tokens as they come, beside `directory`, then rename: readers see either the complete entry or nothing.

    Returns:
        The arrays as memory maps, which outlast the names of their files.

    Raises:
        OSError: the disk is full or may not be written.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory.parent))
    try:
        _write(parts, partial)
        tokens = _load(partial)
        if tokens is None:
            raise OSError(errno.EIO, "what was written cannot be read")
        shutil.rmtree(directory, ignore_errors=True)  # only a damaged entry can stand there
        try:
            partial.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process was faster, with the same content
                raise
        return tokens
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(parts: Iterable[_Part], directory: Path) -> None:
    truncated = 0
    append: dict[str, Callable[[_Array], None]] = {}
    with ExitStack() as files:
        for part in parts:
            for name, array in part.arrays.items():
                if name not in append:
                    append[name] = files.enter_context(_growing_file(directory / f"{name}.npy", array.dtype))
                append[name](array)
            truncated += part.truncated
    (directory / "meta.json").write_text(json.dumps({"truncated": truncated}))
    for path in directory.iterdir():
        sync(path)


@contextmanager
def _growing_file(path: Path, dtype: np.dtype[Any]) -> Iterator[Callable[[_Array], None]]:
    """Yield a function that appends to a `.npy` file of one axis, whose header leaves room for the length at the end."""
    length = 0
    with open(path, "wb") as file:

        def write_header() -> int:
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (length,)})
            return file.tell()

        def append(array: _Array) -> None:
            nonlocal length
            file.write(array.data)
            length += len(array)

        start = write_header()
        yield append
        assert write_header() == start


def _load(directory: Path) -> TokenizedTexts | None:
    """Return a stored entry; None if there is none or it is damaged (cut short by a full disk, for example)."""
    source = directory / "source.npy"
    names = (*_REQUIRED_ARRAYS, "source") if source.exists() else _REQUIRED_ARRAYS
    try:
        arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in names}
        truncated = json.loads((directory / "meta.json").read_text())["truncated"]
    except (OSError, ValueError, KeyError):
        return None
    tokens = TokenizedTexts(**arrays, truncated=truncated)
    return tokens if _is_consistent(tokens) else None


def _is_consistent(tokens: TokenizedTexts) -> bool:
    if tokens.source is not None and len(tokens.source) != len(tokens):
        return False
    return len(tokens.input_ids) == len(tokens.token_type_ids) == int(tokens.offsets[-1])
