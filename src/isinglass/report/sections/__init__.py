"""The report: all its sections."""

from importlib.metadata import version

from isinglass.names import duration, short_name
from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Bench, Reader
from isinglass.report.sections.answers import confusions, shown_answers
from isinglass.report.sections.curves import curves
from isinglass.report.sections.environment import environment
from isinglass.report.sections.mistakes import hard_examples
from isinglass.report.sections.overview import overview
from isinglass.report.sections.padding import padding
from isinglass.report.sections.parts import Report, listed
from isinglass.report.sections.scores import scores
from isinglass.report.sections.speed import speed
from isinglass.report.sections.tables import tables

__all__ = ["Report", "make_report"]


def make_report(bench: Bench, *, with_published: bool) -> Report:
    """Return the report; `with_published` shows published rows of the two GLUE tables beside the directory's own."""
    results, titles = [run.result for run in bench.runs], [title_of(name) for name in bench.tasks]
    models, devices = listed(short_name(one.model) for one in results), listed(one.device for one in results)
    reader = Reader(bench.directory)
    shown = shown_answers(bench, reader)
    return Report(
        title=f"Fine-tuning results on {listed(titles) if len(titles) < 4 else f'{len(titles)} tasks'}",
        lead=f"Model: {models}. Device: {devices}.",
        tiles=(
            (str(len(results)), "finished runs"),
            (str(len(bench.records.failed)), "failed runs"),
            (str(len(bench.tasks)), "tasks"),
            (str(len({run.series for run in bench.runs})), "configurations"),
            (duration(sum(one.train_seconds for one in results)), "spent in training"),
        ),
        sections=(
            overview(bench, reader),
            tables(bench, reader, with_published=with_published),
            scores(bench),
            curves(bench),
            speed(bench),
            padding(bench),
            confusions(shown),
            hard_examples(shown),
            environment(bench),
        ),
        version=version("isinglass"),
    )
