"""`isinglass predict`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from isinglass.cli.display import progress
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import DataDir, RunDir, TaskName, finished_run
from isinglass.errors import ConfigError
from isinglass.names import printable


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
