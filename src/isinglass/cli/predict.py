"""`isinglass predict`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from isinglass.cli.display import progress
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import RunDir, TaskOfRun, finished_run, with_options
from isinglass.errors import ConfigError
from isinglass.names import printable


@with_options("data_dir", "precision", of_a_run=True)
def predict(
    run_dir: RunDir,
    *,
    settings: dict[str, Any],
    input_file: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Your texts: a CSV, TSV, JSON Lines or Parquet file, or one example a line, pairs separated by a tab. `-` "
            "is standard input.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write, instead of standard output.")] = None,
    task: TaskOfRun = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Split to predict.  [default: the test set]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that --output names.")] = False,
) -> None:
    """Predict the test set, or your own sentences: label by name and probabilities, tab-separated."""
    with errors_in_one_line():
        from isinglass.runs.finished import predict_split, predict_texts
        from isinglass.runs.prediction_files import check_predictions, write_predictions

        if input_file is not None and split is not None:
            raise ConfigError(f"--input {input_file} and --split {split} exclude each other: leave one of them out.")
        if output is not None:
            check_predictions(output, overwrite=overwrite)
        finished = finished_run(run_dir, task, settings)
        with progress() as observer:
            if input_file is None:
                rows = predict_split(finished, split, [observer])
            else:
                rows = predict_texts(finished, None if input_file == "-" else Path(input_file), [observer])
        if output is None:
            print("\n".join("\t".join(row) for row in rows))
        else:
            write_predictions(rows, output, overwrite=overwrite)
            print(printable(f"{len(rows) - 1} predictions written to {output}"), file=sys.stderr)
