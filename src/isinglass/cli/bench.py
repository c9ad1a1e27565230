"""`isinglass bench`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from isinglass.cli.display import show_table
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import (
    TABLE_SETTINGS,
    Assignments,
    ClusterOptions,
    check_own_files,
    comma_separated,
    name_of_task,
    with_options,
)
from isinglass.errors import RunFailedError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.bench.presets import Selection


_SETTINGS: Final = ("data_dir", *(name for name in TABLE_SETTINGS if name != "validation_fraction"), "recipe")


@dataclass(frozen=True, kw_only=True)
class SelectionOptions:
    """Which runs a bench has."""

    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A table in one command: seed-pytorch, seed-tensorflow or glue.")
    ] = None
    tasks: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Tasks, instead of a preset or among its tasks: rte,mrpc")
    ] = None
    models: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Checkpoint directories or names, separated by commas.")
    ] = None
    backends: Annotated[str | None, typer.Option(metavar="NAMES", help="Backends: torch,tensorflow,jax")] = None
    precisions: Annotated[str | None, typer.Option(metavar="NAMES", help="Precisions: fp32,bf16,fp16,amp")] = None
    xla: Annotated[bool | None, typer.Option("--xla/--no-xla", help="Run tensorflow with XLA too.")] = None
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Run torch compiled too.")] = None
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of seeds, counted up from the setting `seed`.")
    ] = None
    start_from: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="RTE, MRPC and STS-B start from the weights fine-tuned on this task: mnli"),
    ] = None
    predict_test: Annotated[
        bool | None, typer.Option("--predict-test", help="Predict the test sets too, for `isinglass submit`.")
    ] = None
    keep_models: Annotated[bool | None, typer.Option("--keep-models", help="Keep every model in OUTPUT/runs.")] = None
    assignments: Assignments = None

    def select(self, settings: Mapping[str, Any], *, published: bool) -> "tuple[str, Selection]":
        """Return a name for the bench, and its selection of runs.

        Args:
            settings: the settings that are used on the command line.
            published: whether published figures are shown beside.
        """
        from isinglass.bench.presets import select, select_own

        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "preset"}
        chosen |= {name: comma_separated(chosen[name]) for name in ("tasks", "models", "backends", "precisions")}
        chosen |= {"assignments": tuple(self.assignments or ()), "recipe": settings.get("recipe")}
        train_file = settings.get("train_file", ())
        check_own_files(settings, train_file, names=TABLE_SETTINGS)
        if not train_file:
            return self.preset or "results", select(self.preset, **chosen)
        name = name_of_task(None, train_file)
        tables = {name: value for name, value in settings.items() if name in TABLE_SETTINGS}
        return name, select_own(name, tables, preset=self.preset, published=published, **chosen)


@with_options(*_SETTINGS)
def bench(
    *,
    selected: SelectionOptions,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the results. Its runs are not run again.  [default: bench/PRESET]"),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the published figure beside each row.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its estimate, and stop.")] = False,
    settings: dict[str, Any],
    cluster_options: ClusterOptions,
) -> None:
    """Run many configurations, resumably, and print their table; `isinglass report` makes a page of them."""
    with errors_in_one_line():
        from isinglass.bench.harness import run
        from isinglass.cli.bench_display import BenchDisplay
        from isinglass.cli.bench_tables import bench_tables
        from isinglass.cli.run_bars import RunBars

        name, selection = selected.select(settings, published=published)
        directory = output or Path("bench") / name
        with RunBars() as bars:
            outcome = run(
                selection,
                directory,
                data_dir=settings.get("data_dir"),
                cluster=cluster_options.cluster(),
                dry_run=dry_run,
                observer=BenchDisplay(bars),
            )
        if dry_run:
            return
        for table in bench_tables(outcome.plan, directory, selection.table, with_published=published):
            show_table(table)
        print(printable(f"Results in {directory}; `isinglass report {directory}` makes a page of them."), file=sys.stderr)
        if outcome.failed:
            raise RunFailedError(
                f"{outcome.failed} of {outcome.performed} runs failed, each with its reason above; "
                f"the same command tries them again."
            )
