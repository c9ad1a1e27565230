"""Columns of texts that lie on disk: a million pairs as Python's strings take some hundred megabytes of memory."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import Final, overload

import numpy as np
from jaxtyping import Int64

from isinglass.storage import cache_dir

CHUNK: Final = 4096  # texts that are Python's strings at a time

Encoded = tuple[Int64[np.ndarray, " n"], memoryview]  # of n texts: their characters, and their UTF-8 end to end


class StoredTexts(Sequence[str]):
    """A column of texts, written to a file as they come and read back in blocks of `CHUNK`.

    The file has no name: it lies in the cache directory, and goes with this object or with the process, however that ends.
    In memory are the last, incomplete block, the block that was read last, and some hundred bytes for each of the others.
    A block that cannot be written stays in memory.

    A block of n texts is their numbers of characters, int64 (n,), and their UTF-8: `["a cat", "né"]` is 5, 2, `a catné`.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._file: int | None = None  # descriptor
        self._bytes = 0  # of the file
        self._blocks: list[tuple[int, int] | bytes] = []  # begin and size in the file, or what could not be written
        self._last: list[str] = []
        self._read: tuple[int, list[str]] = (-1, [])  # a block and its texts
        self.extend(texts)

    def extend(self, texts: Iterable[str]) -> None:
        """Put texts behind the others."""
        coming = iter(texts)
        while some := [*islice(coming, CHUNK - len(self._last))]:
            self._last += some
            if len(self._last) == CHUNK:
                characters, utf8 = _encode(self._last)
                self._blocks.append(self._written(characters.tobytes() + utf8))
                self._last = []

    def _written(self, block: bytes) -> tuple[int, int] | bytes:
        begin = self._bytes
        try:
            if self._file is None:
                cache_dir().mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=cache_dir()) as file:
                    self._file = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._file)
            if os.pwrite(self._file, block, begin) < len(block):
                return block
        except OSError:  # the disk is full, say: `tokenize` says so
            return block
        self._bytes += len(block)
        return begin, len(block)

    def encoded(self) -> Iterator[Encoded]:
        """The blocks as they are stored."""
        yield from map(self._stored, range(len(self._blocks)))
        if self._last:
            yield _encode(self._last)

    def _stored(self, number: int) -> Encoded:
        found = self._blocks[number]
        if isinstance(found, tuple):
            begin, size = found
            assert self._file is not None
            found = os.pread(self._file, size, begin)
        return np.frombuffer(found, np.int64, CHUNK), memoryview(found)[CHUNK * 8 :]

    def _block(self, number: int) -> list[str]:
        if number == len(self._blocks):
            return self._last
        kept, texts = self._read
        if kept != number:
            characters, utf8 = self._stored(number)
            whole = str(utf8, "utf-8", "surrogatepass")
            texts = [whole[begin:end] for begin, end in pairwise([0, *characters.cumsum().tolist()])]
            self._read = (number, texts)
        return texts

    def __len__(self) -> int:
        return len(self._blocks) * CHUNK + len(self._last)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self._block(places // CHUNK)[places % CHUNK]
        return [*chain.from_iterable(self._at(np.asarray(places, np.int64)))]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self._block(start // CHUNK)

    def take(self, index: Int64[np.ndarray, " M"]) -> "StoredTexts":
        """The texts `index`, in that order; quick where it ascends."""
        taken = StoredTexts()
        for texts in self._at(index):
            taken.extend(texts)
        return taken

    def _at(self, index: Int64[np.ndarray, " M"]) -> Iterator[list[str]]:
        """The texts `index` in their order, those together that lie in one block."""
        cuts = np.flatnonzero(np.diff(index // CHUNK)) + 1
        for places in np.split(index, cuts) if len(index) else ():
            texts = self._block(int(places[0]) // CHUNK)
            yield [texts[i] for i in (places % CHUNK).tolist()]


def encoded(column: Sequence[str]) -> Iterator[Encoded]:
    """The texts of any column in blocks of `CHUNK`, as `StoredTexts` has them."""
    if isinstance(column, StoredTexts):
        return column.encoded()
    return (_encode(column[start : start + CHUNK]) for start in range(0, len(column), CHUNK))


def _encode(texts: Sequence[str]) -> Encoded:
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    return characters, memoryview("".join(texts).encode("utf-8", "surrogatepass"))
