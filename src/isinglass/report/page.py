"""What a report is made of, and how it is written down. Texts are raw: the templates escape them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import jinja2

from isinglass.names import printable
from isinglass.tables import Table, escaped

TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Plot:
    """An inline SVG and what stands below it."""

    svg: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report.

    Attributes:
        key: its anchor, and its name in `sections.toml`.
        facts: what the lead names.
        narrow: whether plots stand close together.
        folded: tables that show on a click.
        commands: task -> command lines, each with what it repeats.
    """

    key: str
    facts: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    narrow: bool = False
    folded: Sequence[Table] = ()
    commands: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The heading."""
        return _texts()[self.key]["title"]

    @property
    def lead(self) -> str:
        """The first sentences."""
        return _texts()[self.key]["lead"].format(**self.facts)


@cache
def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads((TEMPLATES / "sections.toml").read_text(encoding="utf-8"))


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
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=name.endswith(".html"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"printable": printable, "markdown": escaped}
        return environment.get_template(f"{name}.jinja").render(page=self, version=version("isinglass"))
