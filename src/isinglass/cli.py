"""The command line: parses and prints, and nothing else. Only this file prints.

Results go to standard output; progress, notes and errors to standard error. What takes time to import is imported inside
the commands, so that `--help` answers at once.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from isinglass.errors import ConfigError, IsinglassError

if TYPE_CHECKING:
    from isinglass.results import RunResult
    from isinglass.training.trainer import Progress

LOG_SECONDS: Final = 60.0  # where there is no terminal, the longest time between two lines of progress

app = typer.Typer(
    name="isinglass",
    help="Fine-tune BERT-like text classifiers on GLUE, without paying for padding.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Directory in GLUE's layout (holds MRPC/train.tsv ...). Default: the hub."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory, or a checkpoint directory together with --task.")]
TaskName = Annotated[str | None, typer.Option("--task", help="Use the model on another task with the same labels (ax).")]


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="A task that `isinglass tasks` lists.")] = "demo",
    data_dir: DataDir = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint directory, name on the hub, or `demo`.  [default: demo]")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the run is written.  [default: a new directory in runs/]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that stands in --output-dir.")] = False,
    recipe: Annotated[str | None, typer.Option(help="`classic` (as the GLUE example scripts) or `small`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.  [classic: 3, WNLI 5]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.  [classic: 32]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak, falling linearly to 0.  [classic: 2e-5]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of an example.  [classic: 128]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of batches, dropout and the new head.  [default: 42]")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16 (GPU only), or amp: fp16 on a GPU, bf16 on a CPU.  [default: fp32]")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="torch, tensorflow or jax.  [default: torch]")] = None,
    compile_model: Annotated[
        bool | None, typer.Option("--compile", help="torch: compile the model for a few fixed shapes.")
    ] = None,
    xla: Annotated[bool | None, typer.Option("--xla", help="tensorflow: compile the training step by XLA.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Train so often, each time with the next seed.")] = 1,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON file of settings; flags go before it.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: --set weight_decay=0.01")
    ] = None,
    json_output: Json = False,
) -> None:
    """Fine-tune a model on a task, score its dev set(s), and write a run directory."""
    with _errors_in_one_line():
        from isinglass.config import resolve
        from isinglass.tasks import get_task

        settings = resolve(
            task=get_task(task).name,
            recipe=recipe,
            config_file=config,
            flags={
                "data_dir": data_dir,
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
        from isinglass.training.run_dir import check_output, new_run_name, repetitions, write_run
        from isinglass.training.trainer import train as run_training

        planned = repetitions(settings, output_dir or Path("runs") / new_run_name(settings), runs)
        for _, directory in planned:
            check_output(directory, overwrite=overwrite)
        results = []
        for one, directory in planned:
            with _progress() as on_progress:
                run = run_training(one, on_progress)
            results.append(write_run(run, directory, overwrite=overwrite))
            _show(results[-1], directory, as_json=json_output)
        if runs > 1 and not json_output:
            _show_repetitions(results)


@app.command()
def evaluate(
    run_dir: RunDir,
    data_dir: DataDir = None,
    task: TaskName = None,
    split: Annotated[list[str] | None, typer.Option(help="A labelled split.  [default: the dev set(s)]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16.  [default: the run's]")] = None,
    json_output: Json = False,
) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    with _errors_in_one_line():
        from isinglass.training.trainer import evaluate as run_evaluation

        finished = _finished(run_dir, task, data_dir, precision)
        with _progress() as on_progress:
            result, _ = run_evaluation(finished.config, finished.checkpoint, split or None, on_progress)
        _show(result, None, as_json=json_output)


@app.command()
def predict(
    run_dir: RunDir,
    input_file: Annotated[
        str | None,
        typer.Option("--input", help="Your sentences, one example a line, pairs separated by a tab; - is standard input."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    data_dir: DataDir = None,
    task: TaskName = None,
    split: Annotated[str | None, typer.Option(help="The split to predict.  [default: the test set]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16.  [default: the run's]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --output names.")] = False,
) -> None:
    """Predict the test set, or your own sentences: label by name and probabilities, tab-separated."""
    with _errors_in_one_line():
        from isinglass.training.prediction import check_predictions, predict_split, predict_texts, write_predictions

        if input_file is not None and split is not None:
            raise ConfigError(f"--input {input_file} and --split {split} exclude each other: leave one of them out.")
        if output is not None:
            check_predictions(output, overwrite=overwrite)
        finished = _finished(run_dir, task, data_dir, precision)
        with _progress() as on_progress:
            if input_file is None:
                rows = predict_split(finished, split, on_progress)
            else:
                rows = predict_texts(finished, None if input_file == "-" else Path(input_file), on_progress)
        if output is None:
            print("\n".join("\t".join(row) for row in rows))
        else:
            write_predictions(rows, output, overwrite=overwrite)
            print(_plain(f"{len(rows) - 1} predictions written to {output}"), file=sys.stderr)


@app.command()
def tasks() -> None:
    """List the tasks: sizes, columns, metrics, and the score of always answering the most frequent label."""
    with _errors_in_one_line():
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
                    " + ".join(", ".join(_percent(value) for value in one) for one in task.dev_majority) or "-",
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
        _console(stderr=False).print(table)


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Fine-tune BERT-like text classifiers on GLUE, without paying for padding."""
    if version:
        from importlib.metadata import version as installed

        with _errors_in_one_line():
            print(installed("isinglass"))
        raise typer.Exit


def _finished(run_dir: Path, task: str | None, data_dir: str | None, precision: str | None) -> Any:
    from dataclasses import replace

    from isinglass.tasks import get_task
    from isinglass.training.run_dir import load_run

    finished = load_run(run_dir, task=None if task is None else get_task(task).name)
    changes: dict[str, Any] = {"compile": False, "layout": "auto"}
    changes |= {} if data_dir is None else {"data_dir": data_dir}
    changes |= {} if precision is None else {"precision": precision}
    from isinglass.config import as_dict, resolve

    settings = as_dict(finished.config) | changes
    return replace(finished, config=resolve(task=settings.pop("task"), flags=settings))


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """A user's mistake, or a full disk, is one sentence on standard error and exit status 2."""
    logging.basicConfig(format="isinglass: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        yield
        print(end="", flush=True)  # here, not when Python ends: a closed pipe or a full disk shows itself now
    except IsinglassError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; no file was written.", 130)
    except OSError as error:
        if sys.stdout:
            with suppress(OSError):
                sys.stdout.close()  # what it did not take is not tried again when Python ends
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `isinglass predict RUN_DIR | head`
            raise typer.Exit(1) from None
        _fail(f"{error.filename or 'Writing output'}: {error.strerror}." if error.strerror else str(error), 2)


def _fail(message: str, status: int) -> NoReturn:
    print(f"isinglass: {_plain(message)}", file=sys.stderr)
    raise typer.Exit(status) from None


def _plain(text: str) -> str:
    """A user's text on one line: what cannot be printed, or would steer the terminal, is written as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def _progress() -> Iterator[Callable[["Progress"], None]]:
    """A progress bar on a terminal; elsewhere plain lines: the first report, every ten percent, and each minute."""
    if sys.stderr and sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as ProgressBar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        with ProgressBar(*columns, console=_console(stderr=True)) as bar:
            bars: dict[str, Any] = {}

            def update(now: "Progress") -> None:
                if now.stage not in bars:
                    bars[now.stage] = bar.add_task(now.stage, total=now.total, figures="")
                name = now.stage if now.loss is None else f"epoch {now.epoch + 1}/{now.epochs}"
                bar.update(bars[now.stage], completed=now.done, description=name, figures=_figures(now))

            yield update
        return
    printed: dict[str, tuple[int, float]] = {}  # stage -> (tenths done, time) of its last line

    def log(now: "Progress") -> None:
        tenth, clock = 10 * now.done // now.total, time.monotonic()
        last = printed.get(now.stage)
        if last is None or tenth > last[0] or clock - last[1] >= LOG_SECONDS:
            printed[now.stage] = (tenth, clock)
            epoch = "" if now.loss is None else f", epoch {now.epoch + 1}/{now.epochs}"
            print(f"{now.stage} {now.done}/{now.total}{epoch}, {_figures(now)}", file=sys.stderr, flush=True)

    yield log


def _figures(now: "Progress") -> str:
    loss = "" if now.loss is None else f"loss {now.loss:.3f}, "
    return f"{loss}{now.tokens_per_second:,.0f} tokens/s"


def _show(result: "RunResult", directory: Path | None, *, as_json: bool) -> None:
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    from rich.table import Table

    from isinglass.results import by_split
    from isinglass.tasks import get_task

    task = get_task(result.task)
    splits = result.split.split("+")
    metrics, majority = by_split(result.metrics, splits), by_split(result.majority, splits)
    table = Table()
    for column in ("split", "examples", "metric"):
        table.add_column(column)
    table.add_column("result", justify="right")
    table.add_column("majority", justify="right")
    for split in splits:
        for name in task.metrics:
            table.add_row(
                split,
                str(result.examples[split]),
                name,
                _percent(metrics[split][name]),
                _percent(majority[split][name]),
            )
    console = _console(stderr=False)
    console.print(f"{task.title}: {_plain(result.model)}, {result.precision}, seed {result.seed}")
    console.print(table)
    if result.collapsed:
        console.print("Collapsed: the model gives every example the same label.")
    if result.epoch_seconds:
        console.print(
            f"Trained {result.train_seconds:.1f} s ({result.examples_per_second:.1f} examples/s, "
            f"{result.tokens_per_second:,.0f} tokens/s) on {result.device}; {result.padding_avoided:.0%} of the "
            f"tokens of padding to {result.config['max_length']} not computed, {result.truncated_share:.1%} of the training "
            f"examples truncated."
        )
    for note in result.notes:
        console.print(f"Note: {_plain(note)}")
    if directory is not None:
        console.print(f"Run written to {_plain(str(directory))}")


def _show_repetitions(results: "list[RunResult]") -> None:
    """Seconds of each epoch and scores of each run: the first epoch has the tracing and compiling in it."""
    from statistics import mean, stdev

    from rich.table import Table

    from isinglass.results import by_split

    first = results[0]
    splits = first.split.split("+")
    scores = [[value for split in by_split(one.metrics, splits).values() for value in split.values()] for one in results]
    table = Table()
    table.add_column("run")
    for epoch in range(1, len(first.epoch_seconds) + 1):
        table.add_column(f"epoch {epoch} (s)", justify="right")
    for split, metrics in by_split(first.metrics, splits).items():
        for name in metrics:
            table.add_column(f"{split} {name}", justify="right")
    for one, found in zip(results, scores, strict=True):
        seconds = [f"{value:.1f}" for value in one.epoch_seconds]
        table.add_row(f"seed {one.seed}", *seconds, *(_percent(value) for value in found))
    spread = []
    for column in zip(*scores, strict=True):
        known = [100 * value for value in column if value is not None]
        spread.append(f"{mean(known):.2f} ± {stdev(known):.2f}" if len(known) == len(column) else "NaN")
    table.add_row("mean ± sd", *("" for _ in first.epoch_seconds), *spread)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    console = _console(stderr=False)
    console.print(f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {_plain(first.device)}")
    console.print(table)


def _percent(value: float | None) -> str:
    """A score in hundredths, as GLUE's tables print it."""
    return "NaN" if value is None else f"{100 * value:.2f}"


def _console(*, stderr: bool) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def main() -> None:
    """Entry point of the `isinglass` command."""
    app()
