"""The report as one self-contained page, and as Markdown: two ways to write the same sections down."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from isinglass.errors import MissingDependencyError
from isinglass.names import printable
from isinglass.report.runs import read_bench
from isinglass.report.sections import Report, make_report
from isinglass.storage import replacing
from isinglass.tables import escaped


def write_report(directory: Path, *, with_published: bool = False) -> list[Path]:
    """Write `report.html` and `report.md` into a directory that `isinglass bench` filled, each whole or not at all.

    Args:
        with_published: show published rows of the two GLUE tables beside those of this directory.

    Raises:
        DataError: there are no results.
        MissingDependencyError: matplotlib is not installed.
        OSError: the files cannot be written.
    """
    render = _renderer()
    report = make_report(read_bench(directory), with_published=with_published)
    return [_write(directory / "report.html", render(report)), _write(directory / "report.md", to_markdown(report))]


def _renderer() -> Callable[[Report], str]:
    """Return the function that makes the page of a report.

    Raises:
        MissingDependencyError: matplotlib, for its plots, is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError("The report needs matplotlib: `pip install 'isinglass[report]'`.")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"printable": printable}
    template = environment.get_template("report.html.jinja")
    return lambda report: template.render(page=report)


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, without its plots."""
    lines = [f"# {escaped(report.title)}", "", escaped(report.lead), ""]
    lines += [f"- {escaped(name)}: {escaped(value)}" for value, name in report.tiles]
    for section in report.sections:
        lines += ["", f"## {section.title}"]
        lines += ["", escaped(section.lead)] if section.lead else []
        lines += ["", *(f"- {escaped(note)}" for note in section.notes)] if section.notes else []
        for table in (*section.tables, *section.folded):
            lines += ["", table.to_markdown().rstrip("\n")]
        for commands in section.commands:
            lines += ["", f"### {escaped(commands.title)}"]
            for what, command in commands.lines:
                lines += ["", f"    # {printable(what)}", f"    {printable(command)}"]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> Path:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path
