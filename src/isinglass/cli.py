"""The command line: parses, calls and prints, and nothing else.

Results go to standard output; progress, notes and errors to standard error. What takes time to import is imported inside
the commands, so that `--help` answers at once.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isinglass.ending import announce, errors_in_one_line, how_to_resume, processes
from isinglass.errors import ConfigError, DataError, HubError, RunFailedError, StorageError
from isinglass.flags import (
    CheckpointEvery,
    CpusPerRun,
    DataDir,
    Delimiter,
    DropIncomplete,
    GpusPerRun,
    Json,
    KindName,
    LabelColumn,
    LabelDelimiter,
    On,
    Partial,
    PositiveLabel,
    RunDir,
    Storage,
    TaskName,
    TestFile,
    TextColumn,
    TextColumn2,
    TrainFile,
    ValidationFile,
    finished_run,
    names,
    own_files,
    place_of,
    task_name,
)
from isinglass.names import percent, printable
from isinglass.terminal import (
    bench_events,
    console,
    progress,
    show_comparison,
    show_export,
    show_facts,
    show_plan,
    show_repetitions,
    show_result,
    show_submission,
    show_table,
    show_tuned,
    trial_events,
)

app = typer.Typer(
    name="isinglass",
    help="Fine-tune BERT-like text classifiers on GLUE and your own data, without paying for padding.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    task: Annotated[
        str | None, typer.Argument(help="A task that `isinglass tasks` lists, or a name for your own.  [default: demo]")
    ] = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    test_file: TestFile = None,
    validation_fraction: Annotated[
        float | None, typer.Option(help="Share of the training rows that validates without a file for it.  [default: 0.1]")
    ] = None,
    text_column: TextColumn = None,
    text_column2: TextColumn2 = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    kind: KindName = None,
    label_delimiter: LabelDelimiter = None,
    positive_label: PositiveLabel = None,
    drop_incomplete: DropIncomplete = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint directory, name on the hub, or `demo`.  [default: demo]")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the run is written.  [default: a new directory in runs/]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that stands in --output-dir.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output-dir from its last checkpoint.")
    ] = False,
    checkpoint_every: Annotated[str, typer.Option(help="200steps, 1epoch, 5min, or never; the last ones stay.")] = "10min",
    keep_checkpoints: Annotated[int, typer.Option(min=1, help="How many of the newest checkpoints stay.")] = 2,
    recipe: Annotated[str | None, typer.Option(help="`classic` (as the GLUE example scripts) or `small`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.  [classic: 3, WNLI 5]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.  [classic: 32]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak, falling linearly to 0.  [classic: 2e-5]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of an example.  [classic: 128]")] = None,
    long_texts: Annotated[str | None, typer.Option(help="truncate, or windows whose logits are averaged.")] = None,
    max_train_examples: Annotated[int | None, typer.Option(help="Train on so many rows only.")] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="`balanced`, or a JSON file of label -> weight, for classes of unlike size.")
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of each label that is spread over all.")] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Learning rate of a layer, as a share of that of the one above it.")
    ] = None,
    freeze_embeddings: Annotated[
        bool | None, typer.Option("--freeze-embeddings", help="Leave the embeddings as they are.")
    ] = None,
    freeze_layers: Annotated[
        int | None, typer.Option(help="Leave so many of the lowest layers, and the embeddings, as they are.")
    ] = None,
    keep_best: Annotated[
        bool | None, typer.Option("--keep-best", help="Keep the epoch that is best on the dev set(s), not the last one.")
    ] = None,
    early_stopping: Annotated[
        int | None, typer.Option(help="The same, and stop after so many epochs without a better one.")
    ] = None,
    best_metric: Annotated[str | None, typer.Option(help="What tells which epoch is best.  [default: the first]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of batches, dropout and the new head.  [default: 42]")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16, tf32 or fp16 (GPU only), or amp: fp16 on a GPU, bf16 on a CPU.  [default: fp32]"),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="torch, tensorflow or jax.  [default: torch]")] = None,
    compile_model: Annotated[
        bool | None, typer.Option("--compile", help="torch: compile the model for a few fixed shapes.")
    ] = None,
    xla: Annotated[bool | None, typer.Option("--xla", help="tensorflow: compile the training step by XLA.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Train so often, each time with the next seed.")] = 1,
    log_to: Annotated[
        Literal["tensorboard"] | None, typer.Option(help="Write scalars beside the run, in tensorboard/RUN.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Read, tokenize and check the data, say what was found, and stop.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON file of settings; flags go before it.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: --set weight_decay=0.01")
    ] = None,
    json_output: Json = False,
) -> None:
    """Fine-tune a model on a task, score its dev set(s), and write a run directory."""
    with errors_in_one_line(shared=True):
        from isinglass.config import resolve

        settings = resolve(
            task=task_name(task, train_file),
            recipe=recipe,
            config_file=config,
            flags={
                "data_dir": data_dir,
                "train_file": train_file or None,
                "validation_file": validation_file or None,
                "test_file": test_file or None,
                **own_files(
                    train_file,
                    validation_fraction=validation_fraction,
                    text_column=text_column,
                    text_column2=text_column2,
                    label_column=label_column,
                    delimiter=delimiter,
                    kind=kind,
                    label_delimiter=label_delimiter,
                    positive_label=positive_label,
                    drop_incomplete=drop_incomplete,
                ),
                "long_texts": long_texts,
                "max_train_examples": max_train_examples,
                "class_weights": class_weights,
                "label_smoothing": label_smoothing,
                "layer_decay": layer_decay,
                "freeze_embeddings": freeze_embeddings,
                "freeze_layers": freeze_layers,
                "keep_best": keep_best,
                "early_stopping": early_stopping,
                "best_metric": best_metric,
                "model": model,
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "max_length": max_length,
                "seed": seed,
                "precision": precision,
                "backend": backend,
                "compile": compile_model,
                "xla": xla,
            },
            assignments=tuple(assignments or ()),
            environment=os.environ,
        )
        from isinglass.backends.process_group import largest, number_of_processes
        from isinglass.backends.protocol import check_installed
        from isinglass.runs.directory import check_output, finished_result, held_run, new_run_name, repetitions
        from isinglass.runs.writing import write_run
        from isinglass.training.checkpoints import CHECKPOINTS, Checkpoints, Interval
        from isinglass.training.interruption import Interruption
        from isinglass.training.trainer import train as run_training

        every = Interval.parse(checkpoint_every)
        if resume and (output_dir is None or overwrite):
            raise ConfigError(
                "--resume goes on with a run and --overwrite replaces it: leave one of them out."
                if overwrite
                else "--resume needs --output-dir, the directory of the run to go on with."
            )
        if check_only:
            _check_data(settings)
            return
        if output_dir is None and number_of_processes(settings.backend) > 1:
            raise ConfigError("Processes that share a run need --output-dir, so that all know where its checkpoints lie.")
        planned = repetitions(settings, output_dir or Path("runs") / new_run_name(settings), runs)
        results = []
        check_installed(settings.backend)
        with processes(settings.backend) as group:
            leads = group.rank == 0

            def goes_on(directory: Path) -> bool:
                return resume or (group.restarted and (not overwrite or any((directory / CHECKPOINTS).glob("*"))))

            for _, directory in planned if leads else ():
                going_on = goes_on(directory)
                check_output(directory, overwrite=overwrite and not going_on, resume=going_on)
            for one, directory in planned:
                finished = finished_result(one, directory) if leads and resume else None
                if any(largest(group, int(finished is not None))):
                    if finished is not None:
                        print(printable(f"{directory} is finished already; this is its result."), file=sys.stderr)
                        results.append(finished)
                        show_result(finished, directory, as_json=json_output)
                    continue
                going_on = any(largest(group, int(leads and goes_on(directory))))
                held = held_run(directory, overwrite=overwrite and not going_on, resume=going_on)
                with (
                    Interruption(announce if leads else lambda _: None, repeated=group.has_launcher) as interruption,
                    held if leads else nullcontext(directory / CHECKPOINTS) as place,
                ):
                    checkpoints = Checkpoints(directory=place, every=every, keep=keep_checkpoints, resume=going_on)
                    with (
                        progress() if leads else nullcontext(lambda _: None) as on_progress,
                        _log(log_to if leads else None, directory) as log,
                        how_to_resume(directory),
                    ):
                        report = on_progress if log is None else log.after(on_progress)
                        run = run_training(
                            one,
                            report,
                            on_data=_show_own_data if leads else lambda *_: None,
                            checkpoints=checkpoints,
                            interruption=interruption,
                            group=group,
                        )
                        if log is not None:
                            log.result(run.result)
                    if not leads:
                        continue
                    with interruption.deferred():
                        try:
                            results.append(write_run(run, directory, overwrite=True))
                        except StorageError:
                            show_result(run.result, None, as_json=json_output)  # the scores at least are not lost
                            raise
                        show_result(results[-1], directory, as_json=json_output)
            if runs > 1 and leads and not json_output:
                show_repetitions(results)


@app.command()
def evaluate(
    run_dir: RunDir,
    data_dir: DataDir = None,
    test_file: TestFile = None,
    task: TaskName = None,
    split: Annotated[list[str] | None, typer.Option(help="A labelled split.  [default: the dev set(s)]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16.  [default: the run's]")] = None,
    json_output: Json = False,
) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    with errors_in_one_line():
        from isinglass.data import open_data
        from isinglass.training.trainer import evaluate as run_evaluation

        finished = finished_run(run_dir, task, data_dir, precision, test_file)
        data = open_data(finished.config, finished.task)
        chosen = split or (["test"] if test_file else None)
        with progress() as on_progress:
            result, _ = run_evaluation(finished.config, finished.checkpoint, chosen, on_progress, data=data)
        show_result(result, None, as_json=json_output)


@app.command()
def predict(
    run_dir: RunDir,
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Your texts: a CSV, TSV, JSON Lines or Parquet file, or one example a line, pairs separated by a tab; - is "
            "standard input.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    data_dir: DataDir = None,
    task: TaskName = None,
    split: Annotated[str | None, typer.Option(help="The split to predict.  [default: the test set]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16.  [default: the run's]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --output names.")] = False,
) -> None:
    """Predict the test set, or your own sentences: label by name and probabilities, tab-separated."""
    with errors_in_one_line():
        from isinglass.runs.prediction_files import check_predictions, write_predictions
        from isinglass.runs.predictor import predict_split, predict_texts

        if input_file is not None and split is not None:
            raise ConfigError(f"--input {input_file} and --split {split} exclude each other: leave one of them out.")
        if output is not None:
            check_predictions(output, overwrite=overwrite)
        finished = finished_run(run_dir, task, data_dir, precision)
        with progress() as on_progress:
            if input_file is None:
                rows = predict_split(finished, split, on_progress)
            else:
                rows = predict_texts(finished, None if input_file == "-" else Path(input_file), on_progress)
        if output is None:
            print("\n".join("\t".join(row) for row in rows))
        else:
            write_predictions(rows, output, overwrite=overwrite)
            print(printable(f"{len(rows) - 1} predictions written to {output}"), file=sys.stderr)


@app.command()
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
        from isinglass.bench.harness import calibrate, opened, records_of, run_all, set_damaged_aside
        from isinglass.bench.own_data import settle
        from isinglass.bench.plan import estimates, left_to_do, make_plan
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
            cluster = None if place is None else stack.enter_context(_connected(place, directory))
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


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A directory that `isinglass bench` wrote.")],
    published: Annotated[bool, typer.Option("--published", help="Beside each row the published figure.")] = False,
) -> None:
    """Make one HTML page, and Markdown, of a bench: tables, curves, intervals, differences, mistakes."""
    with errors_in_one_line():
        from isinglass.report.html import write_report
        from isinglass.results import read_records

        for path in write_report(directory, with_published=published):
            print(printable(str(path)))
        damaged = read_records(directory).damaged
        if damaged:
            lines = ", ".join(f"line {line.number} ({line.reason})" for line in damaged)
            raise DataError(
                f"{directory / 'results.jsonl'} is damaged at {lines}: the report shows the rest; `isinglass bench` on it "
                f"sets such lines aside and makes their runs again."
            )


@app.command()
def submit(
    directory: Annotated[
        Path | None, typer.Argument(help="A directory that `isinglass bench --predict-test` wrote.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The zip.")] = Path("submission.zip"),
    partial: Annotated[
        Partial, typer.Option(help="Files that no run answers: `absent`, or filled with the `majority` label.")
    ] = "refuse",
    backend: Annotated[str | None, typer.Option(help="Only runs of this backend.")] = None,
    precision: Annotated[str | None, typer.Option(help="Only runs of this precision.")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only runs of this seed.")] = None,
    check: Annotated[Path | None, typer.Option(help="Judge this zip, by whatever tool it was made.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the zip that --output names.")] = False,
) -> None:
    """Write the zip that GLUE's server takes, from the runs that are best on dev; or judge one with --check."""
    with errors_in_one_line():
        from isinglass.report.submission import check_submission, write_submission

        if (directory is None) == (check is None):
            raise ConfigError("Name either a directory to make a submission of, or a zip to --check.")
        if check is not None:
            problems = check_submission(check)
            for problem in problems:
                print(printable(str(problem)))
            if problems:
                raise DataError(f"{check} would not be taken: {len(problems)} problems.")
            print(printable(f"{check}: eleven files, each with the right rows, order and alphabet."))
            return
        assert directory is not None
        chosen = {"backend": backend, "precision": precision, "model": model, "seed": seed}
        written = write_submission(directory, output, partial=partial, overwrite=overwrite, select=chosen)
        show_submission(written)


@app.command()
def tune(
    task: Annotated[
        str | None, typer.Argument(help="A task that `isinglass tasks` lists, or a name for your own.  [default: demo]")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many runs in all, those of an earlier call included.")] = 20,
    output: Annotated[
        Path | None, typer.Option(help="Where the study lies, and goes on from.  [default: tune/TASK]")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(help="learning_rate=1e-5:5e-4,epochs=2:5,batch_size=16:32:64,seed, or some of these names."),
    ] = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    text_column: TextColumn = None,
    text_column2: TextColumn2 = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    kind: KindName = None,
    label_delimiter: LabelDelimiter = None,
    positive_label: PositiveLabel = None,
    drop_incomplete: DropIncomplete = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint directory, name on the hub, or `demo`.")] = None,
    backend: Annotated[str | None, typer.Option(help="torch, tensorflow or jax.  [default: torch]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or amp.  [default: fp32]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON file of settings; flags go before it.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: --set max_length=64")
    ] = None,
    on: On = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    storage: Storage = None,
    checkpoint_every: CheckpointEvery = None,
) -> None:
    """Search learning rate, epochs and batch size on held-out data, resumably; the best become a recipe file."""
    with errors_in_one_line():
        from functools import partial

        from isinglass.config import resolve
        from isinglass.training.interruption import Interruption
        from isinglass.tuning import WORKER, Elsewhere, SearchSpace
        from isinglass.tuning import tune as run_tuning

        name = task_name(task, train_file)
        settings = resolve(
            task=name,
            config_file=config,
            flags={
                "data_dir": data_dir,
                "train_file": train_file or None,
                "validation_file": validation_file or None,
                **own_files(
                    train_file,
                    text_column=text_column,
                    text_column2=text_column2,
                    label_column=label_column,
                    delimiter=delimiter,
                    kind=kind,
                    label_delimiter=label_delimiter,
                    positive_label=positive_label,
                    drop_incomplete=drop_incomplete,
                ),
                "model": model,
                "backend": backend,
                "precision": precision,
            },
            assignments=tuple(assignments or ()),
            environment=os.environ,
        )
        directory = output or Path("tune") / name
        space = SearchSpace() if search is None else SearchSpace.parse(search)
        place = place_of(on, cpus_per_run, gpus_per_run, storage, checkpoint_every)
        with ExitStack() as stack:
            cluster = None if place is None else stack.enter_context(_connected(place, directory, WORKER))
            interruption = stack.enter_context(Interruption(announce))
            on_trial, on_progress = stack.enter_context(trial_events(trials, several=cluster is not None))
            found = run_tuning(
                settings,
                trials=trials,
                directory=directory,
                space=space,
                on_trial=on_trial,
                on_progress=partial(on_progress, 0),
                interruption=interruption,
                elsewhere=None if cluster is None else Elsewhere(executor=cluster, on_progress=on_progress),
            )
        show_tuned(found)


@app.command()
def export(
    run_dir: RunDir,
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",  # noqa: ARG001  # the one there is
    output: Annotated[Path | None, typer.Option(help="Where it is written.  [default: RUN_DIR-onnx]")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="A quantised model too; what it loses is scored on the dev set.")
    ] = False,
    data_dir: DataDir = None,
    task: TaskName = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write a finished model as ONNX, and compare its answers on the dev set with those of the model itself."""
    with errors_in_one_line():
        from isinglass.export.compare import compare
        from isinglass.export.onnx import export_run

        finished = finished_run(run_dir, task, data_dir, None)
        exported = export_run(finished, output or run_dir.with_name(f"{run_dir.name}-onnx"), int8=int8, overwrite=overwrite)
        show_export(exported)
        try:
            with progress() as on_progress:
                compared = compare(finished, exported, on_progress)
        except (ConfigError, DataError, HubError) as error:  # a model from elsewhere comes without its data
            print(printable(f"Not compared with the model on its dev set: {error}"), file=sys.stderr)
            return
        show_comparison(compared)


@app.command()
def push(
    run_dir: RunDir,
    repo: Annotated[str, typer.Argument(help="USER/NAME on the hub, made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch.  [default: main]")] = None,
    license_name: Annotated[str | None, typer.Option("--license", help="Of the model, for its card: mit, say.")] = None,
) -> None:
    """Send a run's model and its card to the hub, in one commit; nothing else of the run is sent."""
    with errors_in_one_line():
        from isinglass.export.push import push_run

        pushed = push_run(run_dir, repo, private=private, revision=revision, license=license_name)
        print(printable(f"{pushed.url} (commit {pushed.commit})"))


@app.command()
def tasks() -> None:
    """List the tasks: sizes, columns, metrics, and the score of always answering the most frequent label."""
    with errors_in_one_line():
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        from isinglass.tasks import TASKS

        heads = ("task", "train", "dev", "test", "texts -> label", "labels", "metrics", "majority")
        rows = [heads]
        for task in TASKS.values():
            first = task.train or task.test[0]
            label = "-" if first.label_column is None else first.label_column
            rows.append(
                (
                    task.name,
                    str(task.train.rows) if task.train else "-",
                    " + ".join(str(split.rows) for split in task.dev) or "-",
                    " + ".join(str(split.rows) for split in task.test) or "-",
                    f"{', '.join(map(str, first.text_columns))} -> {label}",
                    f"{task.score_range[0]:g} to {task.score_range[1]:g}" if task.labels is None else ", ".join(task.labels),
                    ", ".join(task.metrics),
                    " + ".join(", ".join(percent(value) for value in one) for one in task.dev_majority) or "-",
                )
            )
        table = Table(
            title="Columns and labels of GLUE's files, sizes as published, majority on dev",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for name, *column in zip(*rows, strict=True):
            width = max(len(word) for cell in (name, *column) for word in cell.split())  # lines end between words
            table.add_column(name, width=width, justify="right" if name in ("train", "dev", "test") else "left")
        for row in rows[1:]:
            table.add_row(*row)
        console(stderr=False).print(table)


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Fine-tune BERT-like text classifiers on GLUE, without paying for padding."""
    if version:
        from importlib.metadata import version as installed

        with errors_in_one_line():
            print(installed("isinglass"))
        raise typer.Exit


def _log(to: str | None, directory: Path) -> Any:
    from isinglass.runs.tensorboard import TensorBoardLog

    return nullcontext() if to is None else TensorBoardLog(directory.parent / "tensorboard" / directory.name)


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


def _check_data(settings: Any) -> None:
    """Tell what there is to know about a task's data, before anything is trained: as much as is known if the model fails."""
    from dataclasses import replace

    from isinglass.data import open_data
    from isinglass.data.checks import cut_shares, inspect_data
    from isinglass.models.source import load_model
    from isinglass.training.preparation import prepare_texts

    data = open_data(settings)
    splits = {split.name: data.read(split) for split in data.task.splits}
    facts = inspect_data(splits, data.task)
    try:
        checkpoint = load_model(settings.model)
        tokens = {name: prepare_texts(examples, settings, checkpoint) for name, examples in splits.items()}
        facts = replace(facts, truncated=cut_shares(tokens))
    finally:
        show_facts((data.notes, facts))


def _show_own_data(splits: Any, task: Any) -> None:
    """Tell of a user's own data what may spoil a result, before the first step."""
    from dataclasses import replace

    from isinglass.data.checks import cut_shares, inspect_data
    from isinglass.tasks import TASKS

    if task.name not in TASKS:
        facts = inspect_data({name: one.examples for name, one in splits.items()}, task)
        cut = cut_shares({name: one.tokens for name, one in splits.items()})
        show_facts(((), replace(facts, truncated=cut)))


def _own_data(settings: Any) -> Any:
    """Of a bench's own files, what all of its runs must share, and what there is to know about them."""
    from isinglass.bench.own_data import describe
    from isinglass.data import open_data
    from isinglass.data.checks import inspect_data

    data = open_data(settings)
    splits = {split.name: data.read(split) for split in data.task.splits}
    return describe(data), (data.notes, inspect_data(splits, data.task))


@contextmanager
def _connected(place: Any, *where: Any) -> Iterator[Any]:
    from isinglass.bench.cluster import connected

    with connected(place, *where) as cluster:
        print(cluster.summary, file=sys.stderr, flush=True)
        yield cluster


def main() -> None:
    """Entry point of the `isinglass` command."""
    app()
