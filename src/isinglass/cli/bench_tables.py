"""Make the tables that `isinglass bench` prints."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from isinglass.bench.plan import Plan
from isinglass.report.answers import read_answers
from isinglass.report.own_tasks import tasks_of
from isinglass.report.tables import pytorch_table, scores_table, speed_table, tensorflow_table
from isinglass.results import read_records, run_key
from isinglass.tables import Table
from isinglass.training.timing import CLOCK


def bench_tables(plan: Plan, directory: Path, kind: str, *, with_published: bool) -> Sequence[Table]:
    """Return the tables of the runs of a plan, whatever else their directory holds.

    Args:
        kind: `pytorch` or `tensorflow` for the layout of the published table; any other for scores and speed.
    """
    keys = {run.key for run in plan.runs}
    tasks = tasks_of(directory, (run.config.task for run in plan.runs))
    records = read_records(directory)
    results = [result for result in records.results if run_key(result.config, result.start_from) in keys]
    failed = [failure for failure in records.failed if run_key(failure.config, failure.start_from) in keys]
    if kind == "tensorflow":
        return [tensorflow_table(results, failed, with_published=with_published, tasks=tasks)]
    published = pytorch_table(results, failed, clock=CLOCK, with_published=with_published, tasks=tasks)
    if kind == "pytorch":
        return [published]
    scores = scores_table(results, partial(read_answers, directory), failed, tasks=tasks)
    tables = [scores, speed_table(results, clock=CLOCK, tasks=tasks)]
    return [published, *tables] if with_published else tables
