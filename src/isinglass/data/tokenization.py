"""Texts to token ids, in batches by the Rust `tokenizers`, kept on disk by content and memory-mapped when used again.

What is stored has no padding: all tokens of all examples lie on one axis, and `offsets` says where each example begins.

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
from collections.abc import Callable, Iterable, Iterator
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

FORMAT: Final = "isinglass-tokens-1"  # part of the cache key: raise it when what is stored changes


@dataclass(frozen=True, kw_only=True)
class TokenizedTexts:
    """N examples as token ids, T tokens in all. Arrays may be read-only memory maps.

    Attributes:
        input_ids: int32 (T,), each example with its special tokens, no padding.
        token_type_ids: uint8 (T,), 0 for the first text and its specials, 1 for the second; all 0 where the tokenizer
            makes no difference.
        offsets: int64 (N + 1,): example i is `input_ids[offsets[i]:offsets[i + 1]]`.
        truncated: how many examples were cut to `max_length`.
        source: int64 (N,), where long texts are read in windows: the position of the text that each of these N windows
            is of. None: each example is a text of its own.
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
        """Tokens of each example."""
        return np.diff(self.offsets)

    def per_text(self, outputs: Float32[np.ndarray, "N outputs"]) -> Float32[np.ndarray, "M outputs"]:
        """Outputs of a model for each example; of texts read in windows, the mean over those of each text."""
        if self.source is None:
            return outputs
        starts = np.flatnonzero(np.diff(self.source, prepend=-1))
        means = np.add.reduceat(outputs, starts) / np.bincount(self.source)[:, None]
        averaged: Float32[np.ndarray, "M outputs"] = means.astype(np.float32)
        return averaged


_Array = np.ndarray[Any, np.dtype[Any]]
_Part = tuple[dict[str, _Array], int]  # what the arrays of `TokenizedTexts` get behind them, and how many texts were cut


def tokenize(
    examples: Examples, tokenizer_json: str, max_length: int, *, window_overlap: int | None = None, keep: bool = True
) -> TokenizedTexts:
    """Tokenize, or map what an earlier call with the same tokenizer, length and texts left in the cache.

    Pairs longer than `max_length` lose tokens from the longer text first. Any padding that `tokenizer_json` asks for is
    ignored.

    Args:
        tokenizer_json: the text of a checkpoint's `tokenizer.json`.
        max_length: most tokens of an example, special tokens included.
        window_overlap: read long texts in windows of `max_length` tokens that share so many with the one before, instead
            of cutting them; special tokens stand in each.
        keep: use the cache; without it nothing is left on disk: for texts that are seen once.

    Raises:
        CheckpointError: `tokenizer_json` is not one.
        ConfigError: `max_length` leaves no room beside the special tokens and the overlap, or pairs in windows.
    """
    if not keep:
        return _gathered(_tokenize(examples, tokenizer_json, max_length, window_overlap))
    directory = cache_dir() / "tokens" / _key(examples, tokenizer_json, max_length, window_overlap)
    cached = _load(directory)
    if cached is not None:
        return cached
    with _one_at_a_time(directory):
        cached = _load(directory)  # another process may have made it meanwhile
        if cached is not None:
            return cached
        try:
            return _store(_tokenize(examples, tokenizer_json, max_length, window_overlap), directory)
        except OSError as error:
            logger.warning(
                f"The token cache {cache_dir()} cannot be written ({error.strerror}): the tokens stay in memory; "
                f"name another directory with ISINGLASS_CACHE."
            )
    return _gathered(_tokenize(examples, tokenizer_json, max_length, window_overlap))


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Of many processes that want an entry one makes it and the others wait; none waits where nothing can be written."""
    lock = directory.with_name(f".{directory.name}.lock")
    with ExitStack() as stack:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(lock, str(directory), wait_seconds=math.inf))
            stack.callback(lock.unlink, missing_ok=True)
        yield


def _key(examples: Examples, tokenizer_json: str, max_length: int, window_overlap: int | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    form = f"{max_length}" if window_overlap is None else f"{max_length}/{window_overlap}"
    digest.update(f"{FORMAT} {form} {len(examples.texts)} {len(examples)}\0{tokenizer_json}".encode())
    for column in examples.texts:
        for characters, _ in encoded(column):
            digest.update(characters.data)  # so that no two splits of a text agree
        for _, utf8 in encoded(column):
            digest.update(utf8)
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def _tokenizer(tokenizer_json: str) -> Any:
    """The tokenizer, kept: to make it takes longer than to use it on a text."""
    from tokenizers import Tokenizer  # imported where used: the readers above need none of it

    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # noqa: BLE001  # the Rust library raises no other
        raise CheckpointError(f"tokenizer.json cannot be used: {error}.") from None


def _tokenize(examples: Examples, tokenizer_json: str, max_length: int, window_overlap: int | None) -> Iterator[_Part]:
    """The tokens of `CHUNK` texts at a time."""
    tokenizer = _tokenizer(tokenizer_json)
    specials = tokenizer.num_special_tokens_to_add(is_pair=len(examples.texts) == 2)
    if max_length < specials + len(examples.texts):
        raise ConfigError(
            f"max_length is {max_length}; with {specials} special tokens at least {specials + len(examples.texts)} needed."
        )
    if window_overlap is not None and len(examples.texts) == 2:
        raise ConfigError("long_texts is 'windows', which are for single texts: pairs are cut, longest first.")
    if window_overlap is not None and window_overlap >= max_length - specials:
        raise ConfigError(
            f"window_overlap is {window_overlap}; below {max_length - specials} expected: max_length is {max_length}, with "
            f"{specials} special tokens."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first", stride=window_overlap or 0)
    end = 0
    for start in range(0, len(examples), CHUNK):
        columns = [column[start : start + CHUNK] for column in examples.texts]
        encodings = tokenizer.encode_batch_fast(list(zip(*columns, strict=True)) if len(columns) == 2 else columns[0])
        ids: list[int] = []
        types: list[int] = []
        ends = [0] if start == 0 else []
        source: list[int] = []
        truncated = 0
        for place, encoding in enumerate(encodings, start):
            rest = encoding.overflowing
            windows = [encoding] if window_overlap is None else [encoding, *rest]
            for window in windows:
                ids += window.ids
                types += window.type_ids
                ends.append(end + len(ids))
            source += [place] * len(windows)
            truncated += bool(rest) and window_overlap is None
        end += len(ids)
        part: dict[str, _Array] = {
            "input_ids": np.array(ids, np.int32),
            "token_type_ids": np.array(types, np.uint8),
            "offsets": np.array(ends, np.int64),
        }
        yield part if window_overlap is None else part | {"source": np.array(source, np.int64)}, truncated


def _gathered(parts: Iterable[_Part]) -> TokenizedTexts:
    """All tokens in memory."""
    arrays, truncated = zip(*parts, strict=True)
    return TokenizedTexts(
        **{name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]}, truncated=sum(truncated)
    )


def _store(parts: Iterable[_Part], directory: Path) -> TokenizedTexts:
    """Write the tokens as they come, beside `directory`, then rename: a reader sees all of it or nothing.

    Returns:
        The arrays as memory maps, which outlast the names of their files.

    Raises:
        OSError: the disk is full or may not be written.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory.parent))
    try:
        truncated = 0
        append: dict[str, Callable[[_Array], None]] = {}
        with ExitStack() as files:
            for arrays, cut in parts:
                for name, array in arrays.items():
                    if name not in append:
                        append[name] = files.enter_context(_growing(partial / f"{name}.npy", array.dtype))
                    append[name](array)
                truncated += cut
        (partial / "meta.json").write_text(json.dumps({"truncated": truncated}))
        for path in partial.iterdir():
            sync(path)
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


@contextmanager
def _growing(path: Path, dtype: np.dtype[Any]) -> Iterator[Callable[[_Array], None]]:
    """A `.npy` file of one axis to append to; NumPy leaves room in its header for a length that is known at the end."""
    length = 0
    with open(path, "wb") as file:

        def header() -> int:
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (length,)})
            return file.tell()

        def append(array: _Array) -> None:
            nonlocal length
            file.write(array.data)
            length += len(array)

        begin = header()
        yield append
        assert header() == begin


def _load(directory: Path) -> TokenizedTexts | None:
    """What is stored there, or None if nothing is or it is damaged (cut short by a full disk, say)."""
    try:
        names = ("input_ids", "token_type_ids", "offsets")
        arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in names}
        truncated = json.loads((directory / "meta.json").read_text())["truncated"]
        path = directory / "source.npy"
        source = np.load(path, mmap_mode="r") if path.exists() else None
    except (OSError, ValueError, KeyError):
        return None
    tokens = TokenizedTexts(**arrays, truncated=truncated, source=source)
    consistent = len(tokens.input_ids) == len(tokens.token_type_ids) == int(tokens.offsets[-1])
    consistent &= source is None or len(source) == len(tokens)
    return tokens if consistent else None
