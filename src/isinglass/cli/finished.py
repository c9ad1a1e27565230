"""The commands on what has been trained: a run (`evaluate`, `predict`, `export`, `push`) or a bench (`report`, `submit`)."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isinglass.cli.options import command
from isinglass.config import as_dict, resolve
from isinglass.config.setting import Settings, setting
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.runs.directory import FinishedModel

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


@command("data_dir", "test_file", "precision", of_a_run=True)
def evaluate(run_dir: _RunDir, options: EvaluateOptions, settings: dict[str, Any]) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    from isinglass.cli.display import progress, show_result
    from isinglass.data import open_data
    from isinglass.training.evaluation import evaluate as run_evaluation

    finished = options.load(run_dir, settings)
    data = open_data(finished.config, finished.task)
    splits = options.split or (["test"] if "test_file" in settings else None)
    with progress() as observer:
        result, _ = run_evaluation(finished.config, finished.checkpoint, splits, [observer], data=data)
    show_result(result, None, as_json=options.json)


class PredictOptions(FinishedRunOptions):
    """What to predict, and where to write it."""

    input: str | None = setting(None, metavar="FILE")
    """Your texts: a CSV, TSV, JSON Lines or Parquet file, or one example a line, pairs separated by a tab. `-` is standard
    input.
    """
    output: Path | None = setting(None, metavar="FILE", unset="standard output")
    """File to write."""
    split: str | None = setting(None, metavar="NAME", unset="the test set")
    """Split to predict."""
    overwrite: bool = setting(False)
    """Replace the file that --output names."""


@command("data_dir", "precision", of_a_run=True)
def predict(run_dir: _RunDir, options: PredictOptions, settings: dict[str, Any]) -> None:
    """Predict the test set, or your own sentences: label by name and probabilities, tab-separated."""
    from isinglass.cli.display import progress
    from isinglass.runs.directory import check_predictions, predict_split, predict_texts, write_predictions

    source, output = options.input, options.output
    if source is not None and options.split is not None:
        raise ConfigError(f"--input {source} and --split {options.split} exclude each other: leave one of them out.")
    if output is not None:
        check_predictions(output, overwrite=options.overwrite)
    finished = options.load(run_dir, settings)
    with progress() as observer:
        if source is None:
            rows = predict_split(finished, options.split, [observer])
        else:
            rows = predict_texts(finished, None if source == "-" else Path(source), [observer])
    if output is None:
        print("\n".join("\t".join(row) for row in rows))
        return
    write_predictions(rows, output, overwrite=options.overwrite)
    print(printable(f"{len(rows) - 1} predictions written to {output}"), file=sys.stderr)


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
