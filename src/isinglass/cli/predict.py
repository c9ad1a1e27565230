"""`isinglass predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isinglass.cli.options import FinishedRunOptions, RunDir, command
from isinglass.cli.progress import progress
from isinglass.config.setting import setting
from isinglass.errors import ConfigError
from isinglass.names import printable


@dataclass(frozen=True, kw_only=True)
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
def predict(run_dir: RunDir, options: PredictOptions, settings: dict[str, Any]) -> None:
    """Predict the test set, or your own sentences: label by name and probabilities, tab-separated."""
    from isinglass.runs.finished import predict_split, predict_texts
    from isinglass.runs.prediction_files import check_predictions, write_predictions

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
