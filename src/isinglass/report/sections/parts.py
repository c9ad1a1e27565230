"""What a report is made of. Texts are raw: what writes them down escapes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Run
from isinglass.results import RunResult
from isinglass.tables import Table

LONGEST_TEXT: Final = 600


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
    version: str


def name_of(run: Run) -> str:
    """Return what tells a run from all others."""
    return f"{title_of(run.result.task)}, {run.series.label}, seed {run.result.seed}"


def names_of_groups(runs: Sequence[Run]) -> list[str]:
    """Return `RTE, torch fp32, seeds 1, 2, 3` for each task and configuration."""
    alike: dict[str, list[RunResult]] = {}
    for run in runs:
        alike.setdefault(f"{title_of(run.result.task)}, {run.series.label}", []).append(run.result)
    return [f"{name}, {names_of_seeds(some)}" for name, some in alike.items()]


def names_of_seeds(results: Sequence[RunResult]) -> str:
    """Return `seeds 1, 2, 3`."""
    return f"seed{'s' if len(results) > 1 else ''} {', '.join(str(one.seed) for one in results)}"


def listed(values: Iterable[str]) -> str:
    """Return `A, B and C`, each once."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def cut(text: str) -> str:
    """Return a text of the data, cut if it is long."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()}…"
