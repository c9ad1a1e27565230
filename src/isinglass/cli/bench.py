"""`isinglass bench`."""

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from isinglass.cli.display import bench_events, connected, show_facts, show_plan, show_table
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import (
    CheckpointEvery,
    CpusPerRun,
    DataDir,
    Delimiter,
    DropIncomplete,
    GpusPerRun,
    KindName,
    LabelColumn,
    LabelDelimiter,
    On,
    PositiveLabel,
    Storage,
    TestFile,
    TextColumn,
    TextColumn2,
    TrainFile,
    ValidationFile,
    names,
    own_files,
    place_of,
    task_name,
)
from isinglass.errors import RunFailedError
from isinglass.names import printable


def bench(
    preset: Annotated[
        str | None, typer.Option(help="seed-pytorch, seed-tensorflow or glue: a table in one command.")
    ] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", help="Instead of a preset, or of its tasks: rte,mrpc")] = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    test_file: TestFile = None,
    text_column: TextColumn = None,
    text_column2: TextColumn2 = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    kind: KindName = None,
    label_delimiter: LabelDelimiter = None,
    positive_label: PositiveLabel = None,
    drop_incomplete: DropIncomplete = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where results are gathered; what is there is not run again.  [default: bench/PRESET]"),
    ] = None,
    models: Annotated[str | None, typer.Option(help="Checkpoint directories or names, separated by commas.")] = None,
    backends: Annotated[str | None, typer.Option(help="torch,tensorflow,jax")] = None,
    precisions: Annotated[str | None, typer.Option(help="fp32,bf16,fp16,amp")] = None,
    xla: Annotated[bool | None, typer.Option("--xla/--no-xla", help="tensorflow: with XLA too.")] = None,
    compile_model: Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch: compiled too.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many, counted up from the setting `seed`.")] = None,
    recipe: Annotated[str | None, typer.Option(help="`classic` or `small`.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="RTE, MRPC and STS-B begin with the weights fine-tuned on this task: mnli")
    ] = None,
    predict_test: Annotated[
        bool | None, typer.Option("--predict-test", help="Predict the test sets too, for `isinglass submit`.")
    ] = None,
    keep_models: Annotated[bool | None, typer.Option("--keep-models", help="Keep every model in OUTPUT/runs.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Beside each row the published figure.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its estimate, and stop.")] = False,
    on: On = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    storage: Storage = None,
    checkpoint_every: CheckpointEvery = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of all runs.")
    ] = None,
) -> None:
    """Run many configurations, resumably, and print their table; `isinglass report` makes a page of them."""
    with errors_in_one_line():
        from isinglass.bench.calibration import estimates
        from isinglass.bench.harness import calibrate, opened, records_of, run_all, set_damaged_aside
        from isinglass.bench.own_data import settle
        from isinglass.bench.plan import left_to_do, make_plan
        from isinglass.bench.presets import select, select_own

        own = own_files(
            train_file,
            validation_file=validation_file or None,
            test_file=test_file or None,
            text_column=text_column,
            text_column2=text_column2,
            label_column=label_column,
            delimiter=delimiter,
            kind=kind,
            label_delimiter=label_delimiter,
            positive_label=positive_label,
            drop_incomplete=drop_incomplete,
        )
        chosen: dict[str, Any] = {
            "tasks": names(tasks),
            "models": names(models),
            "backends": names(backends),
            "precisions": names(precisions),
            "xla": xla,
            "compile": compile_model,
            "seeds": seeds,
            "recipe": recipe,
            "start_from": start_from,
            "predict_test": predict_test,
            "keep_models": keep_models,
            "assignments": tuple(assignments or ()),
        }
        if train_file:
            name = task_name(None, train_file)
            selection = select_own(name, {"train_file": train_file, **own}, preset=preset, published=published, **chosen)
        else:
            name, selection = preset or "results", select(preset, **chosen)
        plan = make_plan(selection, data_dir)
        data = _own_data(plan.runs[0].config) if train_file else None  # what is wrong with the files is told here
        directory = output or Path("bench") / name
        place = place_of(on, cpus_per_run, gpus_per_run, storage, checkpoint_every)
        with ExitStack() as stack:
            cluster = None if place is None else stack.enter_context(connected(place, directory))
            held = stack.enter_context(opened(directory))
            executor = cluster or stack.enter_context(held.local())
            if data is not None:
                settle(data[0], directory, records_of(directory))
                show_facts(data[1])
            for line in set_damaged_aside(held):
                logging.warning(
                    "%s, line %d is no record (%s) and was set aside in results.damaged.jsonl: its run is made again.",
                    directory / "results.jsonl", line.number, line.reason,
                )  # fmt: skip
            left = left_to_do(plan, records_of(directory), directory)
            seconds = estimates(left, calibrate(left, held, executor))
            show_plan(plan, seconds, executor.at_once)
            if dry_run:
                return
            with bench_events(seconds, executor.at_once, several=cluster is not None) as events:
                failed = run_all(plan, held, executor, events)
        for table in _tables(plan, directory, selection.table, with_published=published):
            show_table(table)
        print(printable(f"Results in {directory}; `isinglass report {directory}` makes a page of them."), file=sys.stderr)
        if failed:
            raise RunFailedError(
                f"{failed} of {len(left)} runs failed, each with its reason above; the same command tries them again."
            )


def _tables(plan: Any, directory: Path, kind: str, *, with_published: bool) -> Any:
    """The table of a bench: of its own runs, whatever else the directory holds."""
    from functools import partial

    from isinglass.report.answers import read_answers
    from isinglass.report.own_tasks import tasks_of
    from isinglass.report.tables import pytorch_table, scores_table, speed_table, tensorflow_table
    from isinglass.results import read_records, run_key
    from isinglass.training.timing import CLOCK

    keys = {run.key for run in plan.runs}
    tasks = tasks_of(directory, (run.config.task for run in plan.runs))
    records = read_records(directory)
    results = [one for one in records.results if run_key(one.config, one.start_from) in keys]
    failed = [one for one in records.failed if run_key(one.config, one.start_from) in keys]
    pytorch = partial(pytorch_table, results, failed, clock=CLOCK, with_published=with_published, tasks=tasks)
    if kind == "pytorch":
        return [pytorch()]
    if kind == "tensorflow":
        return [tensorflow_table(results, failed, with_published=with_published, tasks=tasks)]
    scores = scores_table(results, partial(read_answers, directory), failed, tasks=tasks)
    return [*([pytorch()] if with_published else []), scores, speed_table(results, clock=CLOCK, tasks=tasks)]


def _own_data(settings: Any) -> Any:
    """Of a bench's own files, what all of its runs must share, and what there is to know about them."""
    from isinglass.bench.own_data import describe
    from isinglass.data import open_data
    from isinglass.data.checks import inspect_data

    data = open_data(settings)
    splits = {split.name: data.read(split) for split in data.task.splits}
    return describe(data), (data.notes, inspect_data(splits, data.task))
