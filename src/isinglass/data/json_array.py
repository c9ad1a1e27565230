"""Read the elements of a JSON array one after another: a file of any size takes the memory of its longest element."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from isinglass.data.files import LONGEST_VALUE, DataFile
from isinglass.errors import DataError
from isinglass.names import brief

_SPACES: Final = re.compile(r"[ \t\r\n]*")
_LONGEST_TOKEN: Final = 16  # characters; a literal, number or escape that the buffer's end cuts is an error this near to it
_DECODER: Final = json.JSONDecoder()


def is_array(file: DataFile) -> bool:
    """Return whether the first character of a text is `[`; False if the file cannot be read, which reading it explains."""
    try:
        return _Reader(file).next_character() == "["
    except DataError:
        return False


def read_array(file: DataFile) -> Iterator[tuple[Any, int]]:
    """Yield the elements of the array, each with its number of characters.

    Raises:
        DataError: the file cannot be read or decoded, or is not a JSON array; the message names the object, counted from 1.
    """
    yield from _Reader(file).elements()


class _Reader:
    """The text that has been read, and the position in it of what comes next."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._texts = file.texts()
        self._buffer = ""
        self._position = 0

    def elements(self) -> Iterator[tuple[Any, int]]:
        """Yield the elements; see `read_array`."""
        number = 0
        self._take("[")
        while number == 0 or self._take(","):
            if number == 0 and self.next_character() == "]":
                break
            number += 1
            yield self._element(number)
        if not self._take("]"):
            found = brief(self.next_character()) if self.next_character() else "the end of the file"
            raise DataError(f"{self._file.origin}: {found} after object {number}; a comma or the array's ] was expected.")
        if self.next_character():
            raise DataError(
                f"{self._file.origin}: text after the array, which ends with object {number}; none was expected."
            )

    def next_character(self) -> str:
        """Return the next character that is no space, and stay before it; empty at the end of the file."""
        while True:
            match = _SPACES.match(self._buffer, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._grow():
                return ""

    def _take(self, character: str) -> bool:
        """Move behind the next character if it is this one; return whether it is."""
        if self.next_character() != character:
            return False
        self._position += 1
        return True

    def _element(self, number: int) -> tuple[Any, int]:
        """Return an element and its number of characters. The text grows until the element is complete."""
        place = f"{self._file.origin}, object {number}"
        while True:
            self.next_character()
            try:
                element, end = _DECODER.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if self._is_cut(error) and self._grow():
                    continue
                found = brief(error.doc[error.pos : error.pos + 20]) if error.pos < len(error.doc) else "the end of the file"
                raise DataError(f"{place}: not JSON ({error.msg}, at {found}); a JSON object was expected.") from None
            except ValueError:
                raise DataError(f"{place}: a number of too many digits; a JSON object was expected.") from None
            except RecursionError:
                raise DataError(f"{place}: JSON nested too deeply; a JSON object was expected.") from None
            size = end - self._position
            self._position = end
            return element, size

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether more text may make the element complete."""
        is_at_end = error.pos >= len(self._buffer) - _LONGEST_TOKEN or error.msg.startswith("Unterminated string")
        return is_at_end and len(self._buffer) - self._position < LONGEST_VALUE

    def _grow(self) -> bool:
        """Drop the text before the position, and double the rest; return whether there was more.

        Doubling it makes the time that a long element takes linear in its length.
        """
        rest = self._buffer[self._position :]
        pieces, size = [rest], 0
        while size <= len(rest):
            text = next(self._texts, None)
            if text is None:
                break
            pieces.append(text)
            size += len(text)
        self._buffer, self._position = "".join(pieces), 0
        return size > 0
