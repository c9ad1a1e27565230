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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from isinglass.data.examples import Examples
from isinglass.data.texts import CHUNK, encoded
from isinglass.errors import CheckpointError, ConfigError
from isinglass.storage import cache_dir, held, take_place

logger = logging.getLogger(__name__)

FORMAT: Final = "isinglass-tokens-2"  # part of the cache key: raise the number when the stored arrays change


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
        return np.asarray(means, np.float32)


_Array = np.ndarray[Any, np.dtype[Any]]
# What is stored of `TokenizedTexts`: name -> dtype; `source` only for texts read in windows
ARRAYS: Final = {"input_ids": np.int32, "token_type_ids": np.uint8, "offsets": np.int64, "source": np.int64}


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
    if cached := _load(directory):
        return cached
    try:
        with _one_writer(directory):  # another process may have made the entry meanwhile
            return _load(directory) or _store(tokenize_parts(), directory)
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
        part = _pack(tokenizer.encode_batch_fast(texts), start, num_tokens, in_windows=window_overlap is not None)
        num_tokens += len(part.arrays["input_ids"])
        yield part


def _pack(encodings: Sequence[Any], first_text: int, num_tokens: int, *, in_windows: bool) -> _Part:
    """Lay tokens end to end: of each text the first `max_length`, or all its windows; `num_tokens` lie before them."""
    ids: list[int] = []
    types: list[int] = []
    ends = [0] if first_text == 0 else []
    source: list[int] = []
    truncated = 0
    for text, encoding in enumerate(encodings, first_text):
        rest = encoding.overflowing
        truncated += bool(rest) and not in_windows
        for window in (encoding, *rest) if in_windows else (encoding,):
            ids += window.ids
            types += window.type_ids
            ends.append(num_tokens + len(ids))
            source.append(text)
    lists = {"input_ids": ids, "token_type_ids": types, "offsets": ends} | ({"source": source} if in_windows else {})
    return _Part({name: np.array(values, ARRAYS[name]) for name, values in lists.items()}, truncated)


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
        truncated = 0
        for part in parts:
            truncated += part.truncated
            for name, array in part.arrays.items():
                with open(partial / f"{name}.bin", "ab") as file:
                    file.write(array.data)
        (partial / "meta.json").write_text(json.dumps({"truncated": truncated}))
        tokens = _load(partial)
        if tokens is None:
            raise OSError(errno.EIO, "what was written cannot be read")
        take_place(partial, directory)  # of a damaged entry, if there is one
        return tokens
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load(directory: Path) -> TokenizedTexts | None:
    """Return a stored entry; None if there is none or it is damaged (cut short by a full disk, for example)."""
    files = [path for path in directory.glob("*.bin") if path.stem in ARRAYS]
    try:
        arrays = {path.stem: np.memmap(path, ARRAYS[path.stem], "r") for path in files}
        truncated = json.loads((directory / "meta.json").read_text())["truncated"]
        tokens = TokenizedTexts(**arrays, truncated=truncated)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    has_all_sources = tokens.source is None or len(tokens.source) == len(tokens)
    has_all_tokens = len(tokens.input_ids) == len(tokens.token_type_ids) == int(tokens.offsets[-1])
    return tokens if has_all_sources and has_all_tokens else None
