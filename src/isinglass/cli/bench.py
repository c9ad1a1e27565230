"""`isinglass bench`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isinglass.cli.display import show_table
from isinglass.cli.options import TABLE_SETTINGS, ClusterOptions, check_own_files, command, name_of_task
from isinglass.config.setting import setting
from isinglass.config.settings import AT_LEAST_1
from isinglass.errors import RunFailedError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.bench.presets import Selection


@dataclass(frozen=True, kw_only=True)
class BenchOptions(ClusterOptions):
    """Which runs a bench has, and where."""

    preset: str | None = setting(None, metavar="NAME")
    """A table in one command: seed-pytorch, seed-tensorflow or glue."""
    tasks: str | None = setting(None, metavar="NAMES")
    """Tasks, instead of a preset or among its tasks: rte,mrpc"""
    output: Path | None = setting(None, metavar="DIR", unset="bench/PRESET")
    """Directory of the results. Its runs are not run again."""
    models: str | None = setting(None, metavar="NAMES")
    """Checkpoint directories or names, separated by commas."""
    backends: str | None = setting(None, metavar="NAMES")
    """Backends: torch,tensorflow,jax"""
    precisions: str | None = setting(None, metavar="NAMES")
    """Precisions: fp32,bf16,fp16,amp"""
    xla: bool | None = setting(None)
    """Run tensorflow with XLA too."""
    compile: bool | None = setting(None)
    """Run torch compiled too."""
    seeds: int | None = setting(None, AT_LEAST_1)
    """Number of seeds, counted up from the setting `seed`."""
    start_from: str | None = setting(None, metavar="TASK")
    """RTE, MRPC and STS-B start from the weights fine-tuned on this task: mnli"""
    predict_test: bool = setting(False)
    """Predict the test sets too, for `isinglass submit`."""
    keep_models: bool = setting(False)
    """Keep every model in OUTPUT/runs."""
    published: bool = setting(False)
    """Show the published figure beside each row."""
    dry_run: bool = setting(False)
    """Show the plan and its estimate, and stop."""
    set: tuple[str, ...] = setting((), metavar="NAME=VALUE")
    """Any other setting of all runs."""

    def select(self, settings: dict[str, Any]) -> "tuple[str, Selection]":
        """Return a name for the bench, and its selection of runs.

        Args:
            settings: the settings whose options are used: name -> value.
        """
        from isinglass.bench.presets import select, select_own

        chosen: dict[str, Any] = {
            name: getattr(self, name) or None for name in ("start_from", "seeds", "predict_test", "keep_models")
        }
        chosen |= {"xla": self.xla, "compile": self.compile, "recipe": settings.get("recipe"), "assignments": self.set}
        for name in ("tasks", "models", "backends", "precisions"):
            names = getattr(self, name)
            chosen[name] = None if names is None else tuple(part.strip() for part in names.split(",") if part.strip())
        train_file = settings.get("train_file", ())
        check_own_files(settings, train_file)
        if not train_file:
            return self.preset or "results", select(self.preset, **chosen)
        task = name_of_task(None, train_file)
        tables = {name: value for name, value in settings.items() if name in TABLE_SETTINGS}
        return task, select_own(task, tables, preset=self.preset, published=self.published, **chosen)


@command("data_dir", *(name for name in TABLE_SETTINGS if name != "validation_fraction"), "recipe")
def bench(options: BenchOptions, settings: dict[str, Any]) -> None:
    """Run many configurations, resumably, and print their table; `isinglass report` makes a page of them."""
    from isinglass.bench.harness import run
    from isinglass.cli.bench_display import BenchDisplay, bench_tables
    from isinglass.cli.progress import RunBars

    name, selection = options.select(settings)
    directory = options.output or Path("bench") / name
    with RunBars() as bars:
        outcome = run(
            selection,
            directory,
            data_dir=settings.get("data_dir"),
            cluster=options.cluster(),
            dry_run=options.dry_run,
            observer=BenchDisplay(bars),
        )
    if options.dry_run:
        return
    for table in bench_tables(outcome.plan, directory, selection.table, with_published=options.published):
        show_table(table)
    print(printable(f"Results in {directory}; `isinglass report {directory}` makes a page of them."), file=sys.stderr)
    if outcome.failed:
        raise RunFailedError(
            f"{outcome.failed} of {outcome.performed} runs failed, each with its reason above; "
            f"the same command tries them again."
        )
