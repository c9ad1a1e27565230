"""What a report is made of, and how it is written down. Texts are raw: the templates escape them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jinja2

from isinglass.names import printable
from isinglass.tables import Table, escaped


@dataclass(frozen=True)
class Plot:
    """An inline SVG and what stands below it."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Commands:
    """Command lines, each below what it repeats."""

    title: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: `key` is its anchor; `folded` tables show on a click; `narrow` plots stand close together."""

    key: str
    title: str
    lead: str = ""
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    narrow: bool = False
    folded: Sequence[Table] = ()
    commands: Sequence[Commands] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is written down; a tile is a figure and what it counts."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    def written_as(self, name: str) -> str:
        """Return the report as `report.html`, one self-contained page, or as `report.md`, without its plots."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=name.endswith(".html"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"printable": printable, "markdown": escaped}
        return environment.get_template(f"{name}.jinja").render(page=self, version=version("isinglass"))
