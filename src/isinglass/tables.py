"""Tables as values, and their text for a terminal and for Markdown; the escaping of any text that stands in Markdown."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from isinglass.names import printable, shortened

# What begins markup anywhere in a line. GitHub makes links of `://` and `www.` too.
_MARKUP: Final = re.compile(r"[\\`*~\[\]<>&|$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.", re.IGNORECASE)
# What begins a heading, a list, a rule or code at the beginning of a line, or ends a heading at its end.
_BLOCK: Final = re.compile(r"^\s+|^[#+=-]|^\d(?=\d*[.)])|(?<=\s)#+(?=\s*$)")
# What stands in a column that is set to the right: numbers, and what stands in their place
_NUMBER: Final = re.compile(r"-?|NaN|failed|[-+]?\d([\d.:/ ±()+%hms†-]|,(?=\d)|to|of)*")
_LONG: Final = 48  # characters of a cell that is broken into lines


def escaped(text: object, longest: int | None = None) -> str:
    r"""Return Markdown that shows a text as it is, on one line: what would be markup becomes character references.

    >>> escaped("<b>not_equivalent</b> | `x`\n---")
    '&#60;b&#62;not_equivalent&#60;/b&#62; &#124; &#96;x&#96;&#92;n---'

    Args:
        longest: characters to show; None: all.
    """
    shown = str(text) if longest is None else shortened(str(text), longest)
    return _BLOCK.sub(_references, _inline(shown))


def _inline(text: str) -> str:
    """Return Markdown for a text behind the beginning of a line, as in the cell of a table."""
    return _MARKUP.sub(_references, printable(text))


def _references(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(character)};" for character in found[0])


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, columns, rows of as many cells, and notes: plain text, which each way to write it escapes."""

    title: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), "a row has a cell for each column"

    def to_markdown(self) -> str:
        """Return a heading of the third level if there is a title, a table as GitHub reads it, and a list of the notes."""
        heading = f"### {escaped(self.title)}\n\n" if self.title else ""
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in self._aligned(_inline, least=3))
        notes = "".join(f"- {escaped(note)}\n" for note in self.notes)
        return heading + table + (f"\n{notes}" if notes else "")

    def to_text(self) -> str:
        """Return columns side by side, for a terminal or a log."""
        table = "".join("  ".join(cells).rstrip() + "\n" for cells in self._aligned(printable, least=0))
        heading = f"{printable(self.title)}\n\n" if self.title else ""
        return heading + table + "".join(f"Note: {printable(note)}\n" for note in self.notes)

    @property
    def column_kinds(self) -> list[str]:
        """How a page sets each column: `number` to the right, `text` in several lines, `word` in one."""
        return [*map(_column_kind, zip(*self.rows, strict=True))] or ["word"] * len(self.columns)

    def _aligned(self, escape: Callable[[str], str], *, least: int) -> list[list[str]]:
        """Return the cells of the head, of a rule below it and of the rows, padded to the width of their columns."""
        head, *rows = [[escape(cell) for cell in cells] for cells in (self.columns, *self.rows)]
        widths = [max(least, *map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [head, ["-" * width for width in widths], *rows]
        return [[*map(str.ljust, cells, widths)] for cells in lines]


def _column_kind(cells: Sequence[str]) -> str:
    if all(map(_NUMBER.fullmatch, cells)):
        return "number"
    return "text" if max(map(len, cells)) > _LONG else "word"
