"""The commands on what has been trained: a run (`evaluate`, `predict`, `export`, `push`) or a bench (`report`, `submit`)."""

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from isinglass.cli.options import command
from isinglass.config import SETTINGS, as_dict, resolve
from isinglass.config.setting import Settings, setting
from isinglass.config.settings import AT_LEAST_1
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.data.inputs import Inputs
    from isinglass.runs.directory import FinishedModel
    from isinglass.runs.predictions import Writer

_RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run directory, or checkpoint directory with --task.")]


class FinishedRunOptions(Settings):
    """What to do with a finished run."""

    task: str | None = setting(None, metavar="TASK")
    """Use the model on another task with the same labels (ax)."""

    def load(self, run_dir: Path, settings: dict[str, Any]) -> "FinishedModel":
        """Load the model of a run directory or a checkpoint, with changes to its task and settings."""
        from isinglass.runs.directory import load_run
        from isinglass.tasks import TASKS, custom, get_task

        model = load_run(run_dir, task=None if self.task is None else get_task(self.task).name)
        if "test_file" in settings:
            if model.task.name in TASKS:
                raise ConfigError(f"{run_dir} is of {model.task.title}, whose sets are known: --test-file is for your own.")
            model = replace(model, task=custom.with_test(model.task))
        changed = as_dict(model.config) | {"compile": False, "layout": "auto"} | settings
        return replace(model, config=resolve(task=changed.pop("task"), flags=changed))


class EvaluateOptions(FinishedRunOptions):
    """What to score, and how to show it."""

    split: tuple[str, ...] = setting((), unset="the dev set(s)")
    """Labelled split to score; may be repeated."""
    json: bool = setting(False)
    """Print one JSON object, and nothing else, on standard output."""


_COLUMNS = ("text_column", "text_column2", "label_column", "delimiter")


def _check_columns(settings: Collection[str], file: object, option: str) -> None:
    """Refuse settings about the columns of a file where there is no such file."""
    for name in _COLUMNS:
        if name in settings and not file:
            raise ConfigError(f"{SETTINGS[name].flag} is for a file of your own: name it with {option}.")


@command("data_dir", "test_file", *_COLUMNS, "encoding", "precision", of_a_run=True)
def evaluate(run_dir: _RunDir, options: EvaluateOptions, settings: dict[str, Any]) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    from isinglass.cli.display import progress, show_result
    from isinglass.data import open_data
    from isinglass.training.evaluation import evaluate as run_evaluation

    _check_columns(settings, settings.get("test_file"), "--test-file")
    if "test_file" in settings:
        settings.setdefault("encoding", "utf-8")  # that of the training files is not that of this one
    finished = options.load(run_dir, settings)
    data = open_data(finished.config, finished.task)
    splits = options.split or (["test"] if "test_file" in settings else None)
    with progress() as observer:
        result, _ = run_evaluation(finished.config, finished.checkpoint, splits, [observer], data=data)
    show_result(result, None, as_json=options.json)


class PredictOptions(FinishedRunOptions):
    """What to predict, and where to write it."""

    input: str | None = setting(None, metavar="FILE")
    """Your texts: a CSV, TSV, JSON, JSON Lines or Parquet file, or one example a line, pairs separated by a tab. `-` is
    standard input, each line of which is answered at once.
    """
    output: Path | None = setting(None, metavar="FILE", unset="standard output, as TSV")
    """File to write, in the format of its ending: .csv, .tsv, .jsonl or .parquet."""
    keep_columns: tuple[str, ...] = setting((), metavar="NAME")
    """Column of --input to write beside the predictions, such as an id; several separated by commas, or `all`."""
    top: int | None = setting(None, AT_LEAST_1, unset="the probabilities of all labels")
    """Write only the N likeliest labels, each with its probability."""
    split: str | None = setting(None, metavar="NAME", unset="the test set")
    """Split to predict."""
    overwrite: bool = setting(False)
    """Replace the file that --output names."""

    def check(self, settings: Collection[str]) -> None:
        """Refuse options that exclude each other, and an output that cannot be written, before any work is done."""
        from isinglass.runs.predictions import check_predictions

        if self.input is not None and self.split is not None:
            raise ConfigError(f"--input {self.input} and --split {self.split} exclude each other: leave one of them out.")
        _check_columns(settings, self.input, "--input")
        if self.keep_columns and self.input is None:
            raise ConfigError("--keep-columns is for a file of your own: name it with --input.")
        if self.output is not None:
            check_predictions(self.output, overwrite=self.overwrite)

    @contextmanager
    def writer(self, inputs: "Inputs | None", standard_output: IO[str]) -> "Iterator[Writer]":
        """Yield what writes the predictions; a file is complete after the block, or absent."""
        from isinglass.runs.predictions import DelimitedWriter, predictions_file

        if self.output is None:
            yield DelimitedWriter(standard_output)
            return
        is_parquet = self.output.suffix.lower() == ".parquet"
        types = inputs.arrow_types() if is_parquet and inputs is not None else {}
        with predictions_file(self.output, overwrite=self.overwrite, types=types) as writer:
            yield writer


@command("data_dir", "text_column", "text_column2", "delimiter", "encoding", "precision", of_a_run=True)
def predict(run_dir: _RunDir, options: PredictOptions, settings: dict[str, Any]) -> None:
    """Predict the test set, or your own texts: labels by name and probabilities."""
    from isinglass.cli.display import progress
    from isinglass.data.inputs import open_input
    from isinglass.runs.predict import predict_input, predict_split

    options.check(settings)
    named = [settings.pop(name, None) for name in ("text_column", "text_column2")]
    finished = options.load(run_dir, settings)
    if options.top is not None and finished.task.labels is None:
        raise ConfigError(f"{finished.task.title} predicts a number: --top is for labels.")
    inputs = None
    if options.input is not None:
        path = None if options.input == "-" else Path(options.input)
        spelling = {"delimiter": finished.config.delimiter, "encoding": settings.get("encoding", "utf-8")}
        inputs = open_input(path, finished.task, text_columns=named, keep=options.keep_columns, **spelling)
    standard_output = sys.stdout  # a progress bar puts a stream of its own in its place
    shows_progress = options.output is not None or not standard_output.isatty()
    count = 0
    with ExitStack() as stack:
        observers = [stack.enter_context(progress())] if shows_progress else []
        writer = stack.enter_context(options.writer(inputs, standard_output))
        if inputs is None:
            pieces = iter([predict_split(finished, options.split, observers, top=options.top)])
        else:
            pieces = predict_input(finished, inputs, observers, top=options.top)
        for predictions in pieces:
            writer.write(predictions)
            count += len(predictions["index"])
    if options.output is not None:
        print(printable(f"{count} predictions written to {options.output}"), file=sys.stderr)


class ExportOptions(FinishedRunOptions):
    """What to write, and where."""

    to: Literal["onnx"] = setting("onnx")
    """Format to write."""
    output: Path | None = setting(None, metavar="DIR", unset="RUN_DIR-onnx")
    """Directory to write."""
    int8: bool = setting(False)
    """Write a quantized model too, and score what it loses on the dev set."""
    overwrite: bool = setting(False)
    """Replace an earlier export."""


@command("data_dir", of_a_run=True)
def export(run_dir: _RunDir, options: ExportOptions, settings: dict[str, Any]) -> None:
    """Write a finished model as ONNX, and compare its predictions on the dev set with those of the model itself."""
    from isinglass.cli.display import progress
    from isinglass.export.compare import compare
    from isinglass.export.onnx import AXES, OPSET, export_run

    finished = options.load(run_dir, settings)
    directory = options.output or run_dir.with_name(f"{run_dir.name}-onnx")
    exported = export_run(finished, directory, int8=options.int8, overwrite=options.overwrite)
    for path in exported.files:
        print(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    axes = "; ".join(f"{name} int64 ({', '.join(AXES)})" for name in exported.inputs)
    print(f"ONNX opset {OPSET}; inputs {axes}: both axes are free, padding follows the tokens.")
    labels = "one value" if exported.label_names is None else ", ".join(map(printable, exported.label_names))
    print(f"Output logits float32 (batch, labels): {labels}; trained on up to {exported.max_length} tokens.")
    try:
        with progress() as observer:
            table = compare(finished, exported, [observer])
    except (ConfigError, DataError, HubError) as error:  # a model from elsewhere comes without its data
        print(printable(f"Not compared with the model on its dev set: {error}"), file=sys.stderr)
        return
    print(table.to_text(), end="")


class PushOptions(Settings):
    """What the repository on the hub is like."""

    private: bool = setting(False)
    """Create the repository as private."""
    revision: str | None = setting(None, metavar="BRANCH", unset="main")
    """Branch of the repository."""
    license: str | None = setting(None, metavar="NAME")
    """License of the model, for its card, such as mit."""


@command()
def push(
    run_dir: _RunDir,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the hub; created if it does not exist.")],
    options: PushOptions,
) -> None:
    """Send a run's model and its card to the hub, in one commit; nothing else of the run is sent."""
    from isinglass.export.push import push_run

    url, commit = push_run(run_dir, repo, **vars(options))
    print(printable(f"{url} (commit {commit})"))


@command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that `isinglass bench` wrote.")],
    published: Annotated[bool, typer.Option("--published", help="Show the published figure beside each row.")] = False,
) -> None:
    """Make one HTML page, and Markdown, of a bench: tables, curves, intervals, differences, mistakes."""
    from isinglass.report.sections import write_report
    from isinglass.results import read_records

    for path in write_report(directory, with_published=published):
        print(printable(str(path)))
    if damaged := read_records(directory).damaged:
        lines = ", ".join(f"line {line.number} ({line.reason})" for line in damaged)
        remedy = "`isinglass bench` on it sets such lines aside and makes their runs again"
        raise DataError(f"{directory / 'results.jsonl'} is damaged at {lines}: the report shows the rest; {remedy}.")


class SubmitOptions(Settings):
    """Which runs to submit, and how."""

    output: Path = setting(Path("submission.zip"), metavar="FILE")
    """Zip to write."""
    partial: Literal["refuse", "absent", "majority"] = setting("refuse")
    """Files that no run predicts: refuse them, leave them absent, or fill them with the majority label."""
    backend: str | None = setting(None, metavar="NAME")
    """Only runs of this backend."""
    precision: str | None = setting(None, metavar="NAME")
    """Only runs of this precision."""
    model: str | None = setting(None, metavar="NAME")
    """Only runs of this model."""
    seed: int | None = setting(None)
    """Only runs of this seed."""
    check: Path | None = setting(None, metavar="FILE")
    """Check this zip, made by any tool, instead of writing one."""
    overwrite: bool = setting(False)
    """Replace the zip that --output names."""


@command()
def submit(
    options: SubmitOptions,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Directory that `isinglass bench --predict-test` wrote.")
    ] = None,
) -> None:
    """Write the zip that GLUE's server takes, from the runs that are best on dev; or check one with --check."""
    from isinglass.submission.check import check_submission
    from isinglass.submission.write import files_table, write_submission

    if directory is not None and options.check is None:
        select = {name: getattr(options, name) for name in ("backend", "precision", "model", "seed")}
        output, partial, overwrite = options.output, options.partial, options.overwrite
        files = write_submission(directory, output, partial=partial, overwrite=overwrite, select=select)
        print(files_table(output, files).to_text())
    elif options.check is not None and directory is None:
        problems = check_submission(options.check)
        for problem in problems:
            print(printable(str(problem)))
        if problems:
            raise DataError(f"{options.check} would not be taken: {len(problems)} problems.")
        print(printable(f"{options.check}: eleven files, each with the right rows, order and alphabet."))
    else:
        raise ConfigError("Name either a directory to make a submission of, or a zip to --check.")
