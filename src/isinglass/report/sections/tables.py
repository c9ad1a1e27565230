"""The tables of the results, and every run."""

from isinglass.names import duration
from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Bench, Reader
from isinglass.report.sections.parts import Section, names_of_groups
from isinglass.report.tables import differences_table, pytorch_table, scores_table, tensorflow_table
from isinglass.results import CLOCK
from isinglass.tables import Table


def tables(bench: Bench, reader: Reader, *, with_published: bool) -> Section:
    """Return the tables of all results, and a table of every run."""
    results, failed = bench.records.results, bench.records.failed
    known = [run.result for run in bench.runs if not reader.error(run)]
    tables = []
    if any(one.backend == "torch" for one in results):
        tables.append(pytorch_table(results, failed, clock=CLOCK, with_published=with_published, tasks=bench.described))
    if any(one.backend == "tensorflow" and one.task == "mrpc" for one in results):
        tables.append(tensorflow_table(results, failed, with_published=with_published, tasks=bench.described))
    if known:
        tables.append(scores_table(known, reader, failed, tasks=bench.described))
        tables.append(differences_table(known, reader, tasks=bench.described))
    unknown = [run for run in bench.runs if reader.error(run)]
    return Section(
        key="tables",
        title="Tables",
        notes=[f"Not among the intervals and differences: {'; '.join(names_of_groups(unknown))}."] if unknown else [],
        tables=tables,
        folded=[_every_run(bench)],
    )


def _every_run(bench: Bench) -> Table:
    rows = []
    for run in bench.runs:
        one = run.result
        speed = (
            duration(one.train_seconds),
            f"{one.examples_per_second:.1f}",
            f"{one.tokens_per_second:,.0f}",
            f"{one.compile_seconds:.1f}",
            f"{one.evaluation_seconds:.1f}",
            f"{one.peak_memory_bytes / 2**20:,.0f}",
        )
        rows += [
            (
                title_of(one.task),
                run.series.label,
                str(one.seed),
                split,
                f"{metric} (as the labels)" if metric.lower_is_better else metric,
                metric.text(score.value),
                "-" if score.majority is None else metric.text(score.majority),
                *speed,
            )
            for split, scores in one.scores.items()
            for metric, score in scores.items()
        ]
    what = ("task", "configuration", "seed", "set", "metric", "score (%)", "majority (%)")
    speeds = ("training", "examples/s", "real tokens/s", "compiling (s)", "evaluation (s)", "peak memory (MiB)")
    return Table(title=f"Every run ({len(bench.runs)})", columns=what + speeds, rows=tuple(rows))
