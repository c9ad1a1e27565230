"""Columns of texts that lie on disk: a million pairs as Python's strings take a few hundred megabytes of memory."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, overload

import numpy as np
from jaxtyping import Int64

from isinglass.storage import cache_dir

CHUNK: Final = 4096  # texts that are Python's strings at a time

EncodedBlock = tuple[Int64[np.ndarray, " n"], memoryview]  # of n texts: their lengths in characters, their UTF-8 end to end


class StoredTexts(Sequence[str]):
    """A column of texts, written to a file as they come and read back in blocks of `CHUNK`.

    The file has no name. It lies in the cache directory, and vanishes with this object or with the process, however that
    ends. Memory holds the last, incomplete block, the block that was read last, and a few hundred bytes for each of the
    others. A block that cannot be written stays in memory.

    A block of n texts is their numbers of characters, int64 (n,), and their UTF-8: `["a cat", "né"]` is 5, 2, `a catné`.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._descriptor: int | None = None
        self._file_size = 0  # bytes
        self._blocks: list[tuple[int, int] | bytes] = []  # offset and size in the file, or what could not be written
        self._last_block: list[str] = []
        self._read_block: tuple[int, list[str]] = (-1, [])  # number of the block that was read last, and its texts
        self.extend(texts)

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts."""
        remaining = iter(texts)
        while taken := [*islice(remaining, CHUNK - len(self._last_block))]:
            self._last_block += taken
            if len(self._last_block) == CHUNK:
                characters, utf8 = _encode(self._last_block)
                self._blocks.append(self._write(characters.tobytes() + utf8))
                self._last_block = []

    def _write(self, block: bytes) -> tuple[int, int] | bytes:
        """Append a block to the file; return its offset and size, or the block itself if it cannot be written."""
        offset = self._file_size
        try:
            if self._descriptor is None:
                cache_dir().mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=cache_dir()) as file:
                    self._descriptor = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._descriptor)
            if os.pwrite(self._descriptor, block, offset) < len(block):
                return block
        except OSError:  # a full disk, for example: `tokenize` warns about it
            return block
        self._file_size += len(block)
        return offset, len(block)

    def encoded_block(self, number: int) -> EncodedBlock:
        """Return a block as it is stored."""
        if number == len(self._blocks):
            return _encode(self._last_block)
        block = self._blocks[number]
        if isinstance(block, tuple):
            offset, size = block
            assert self._descriptor is not None
            block = os.pread(self._descriptor, size, offset)
        return np.frombuffer(block, np.int64, CHUNK), memoryview(block)[CHUNK * 8 :]

    def _texts_of(self, number: int) -> list[str]:
        """Return the texts of a block."""
        if number == len(self._blocks):
            return self._last_block
        cached_number, texts = self._read_block
        if cached_number == number:
            return texts
        characters, utf8 = self.encoded_block(number)
        joined = str(utf8, "utf-8", "surrogatepass")
        texts = [joined[start:end] for start, end in pairwise([0, *characters.cumsum().tolist()])]
        self._read_block = (number, texts)
        return texts

    def __len__(self) -> int:
        return len(self._blocks) * CHUNK + len(self._last_block)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._texts_of(position // CHUNK)[position % CHUNK] for position in positions]
        return self._texts_of(positions // CHUNK)[positions % CHUNK]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self._texts_of(start // CHUNK)


def take_texts(column: Sequence[str], positions: Sequence[int]) -> Sequence[str]:
    """Return the texts at `positions` of any column, in that order; from the disk this is fast if they ascend."""
    taken = map(column.__getitem__, positions)
    return StoredTexts(taken) if isinstance(column, StoredTexts) else [*taken]


def encoded(column: Sequence[str]) -> Iterator[EncodedBlock]:
    """Return the texts of any column in blocks of `CHUNK`, as `StoredTexts` stores them."""
    starts = range(0, len(column), CHUNK)
    if isinstance(column, StoredTexts):
        return (column.encoded_block(start // CHUNK) for start in starts)
    return (_encode(column[start : start + CHUNK]) for start in starts)


def _encode(texts: Sequence[str]) -> EncodedBlock:
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    return characters, memoryview("".join(texts).encode("utf-8", "surrogatepass"))
