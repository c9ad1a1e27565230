"""Which runs there are, and what is missing."""

from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Bench, Reader, by_series, label, traits
from isinglass.report.sections.parts import Section, name_of
from isinglass.tables import Table


def overview(bench: Bench, reader: Reader) -> Section:
    """Return which runs there are, and what is missing: failed runs, damaged lines, unreadable predictions."""
    unread = tuple((name_of(run), reader.error(run)) for run in bench.runs if reader.error(run))
    holes = [
        _failed(bench),
        Table(
            title="Damaged lines of results.jsonl",
            columns=("line", "what is wrong"),
            rows=tuple((str(line.number), line.reason) for line in bench.records.damaged),
            notes=("No figure below includes what stood there.",),
        ),
        Table(
            title="Answers that cannot be read",
            columns=("run", "why"),
            rows=unread,
            notes=("These runs are not among the intervals, differences, matrices and mistakes.",),
        ),
    ]
    holes = [table for table in holes if table.rows]
    collapsed = [name_of(run) for run in bench.runs if run.result.collapsed]
    notes = [f"Collapsed: every example of a scored set got the same label in {'; '.join(collapsed)}."] if collapsed else []
    if not holes and not collapsed:
        notes.append("Nothing is missing: every line of results.jsonl could be read, no run failed, no model collapsed.")
    return Section(key="runs", title="What ran, and what is missing", tables=[_finished(bench), *holes], notes=notes)


def _finished(bench: Bench) -> Table:
    configurations = sorted({run.series for run in bench.runs}, key=lambda one: one.colour)
    rows = []
    for name, runs in bench.tasks.items():
        seeds = {series: ", ".join(str(run.result.seed) for run in some) for series, some in by_series(runs).items()}
        rows.append((title_of(name), *(seeds.get(series, "-") for series in configurations)))
    columns = ("task", *(series.label for series in configurations))
    return Table(title="Seeds of the finished runs", columns=columns, rows=tuple(rows))


def _failed(bench: Bench) -> Table:
    rows = [
        (
            title_of(one.config["task"]),
            label(traits(one.config, one.start_from), bench.shared),
            str(one.config["seed"]),
            one.error,
        )
        for one in bench.records.failed
    ]
    return Table(
        title="Failed runs",
        columns=("task", "configuration", "seed", "error"),
        rows=tuple(rows),
        notes=("No figure below includes them.",),
    )
