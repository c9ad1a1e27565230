"""Print what a person sees of a command: results and tables."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isinglass.names import percent, printable

if TYPE_CHECKING:
    from isinglass.data.checks import DataFacts
    from isinglass.export.compare import Compared
    from isinglass.export.onnx import Exported
    from isinglass.metrics import Metric
    from isinglass.results import RunResult
    from isinglass.submission import Submission, SubmittedFile
    from isinglass.tables import Table


def show_result(result: "RunResult", directory: Path | None, *, as_json: bool) -> None:
    """Print a result: scores beside those of a constant prediction, speed, notes; or one JSON object.

    Args:
        directory: where the run was written; None: nowhere.
    """
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    from isinglass.tasks import TASKS

    title = TASKS[result.task].title if result.task in TASKS else result.task
    out = console()
    out.print(f"{title}: {printable(result.model)}, {result.precision}, seed {result.seed}")
    out.print(_scores_table(result))
    if result.collapsed:
        out.print("Collapsed: the model gives every example the same label.")
    if result.epoch_seconds:
        out.print(
            f"Trained {result.train_seconds:.1f} s ({result.examples_per_second:.1f} examples/s, "
            f"{result.tokens_per_second:,.0f} tokens/s) on {printable(result.device)}; {result.padding_avoided:.0%} of the "
            f"tokens of padding to {result.config['max_length']} not computed, {result.truncated_share:.1%} of the training "
            f"examples truncated."
        )
    for note in result.notes:
        out.print(f"Note: {printable(note)}")
    if directory is not None:
        out.print(f"Run written to {printable(str(directory))}")


def _scores_table(result: "RunResult") -> Any:
    from rich.table import Table

    from isinglass.metrics import Metric

    is_regression = any(Metric.RMSE in scores for scores in result.scores.values())
    table = Table("split", "examples", "metric")
    table.add_column("result", justify="right")
    table.add_column("mean" if is_regression else "majority", justify="right")  # the score of a constant prediction
    for split, scores in result.scores.items():
        for metric, score in scores.items():
            figures = metric.text(score.value), metric.text(score.majority)
            table.add_row(split, str(result.examples[split]), metric, *figures)
    return table


def show_facts(notes: Iterable[str], facts: "DataFacts") -> None:
    """Print what was found in a user's data, on standard error."""
    for line in (*notes, *facts.lines()):
        print(printable(line), file=sys.stderr, flush=True)


def show_export(exported: "Exported") -> None:
    """Print the files of an export and how they are called."""
    for path in exported.files:
        print(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    axes = "; ".join(f"{name} int64 ({', '.join(names)})" for name, names in exported.inputs.items())
    print(f"ONNX opset {exported.opset}; inputs {axes}: both axes are free, padding follows the tokens.")
    labels = "one value" if exported.label_names is None else ", ".join(map(printable, exported.label_names))
    print(f"Output logits float32 (batch, labels): {labels}; trained on up to {exported.max_length} tokens.")


def show_comparison(compared: "list[Compared]") -> None:
    """Print what each file scores on the dev set, and how far its probabilities are from those of the model."""
    from rich.table import Table

    table = Table()
    for column in ("split", "rows", "file"):
        table.add_column(column, no_wrap=True)
    for name in (*compared[0].scores, "largest difference", "same answers"):
        table.add_column(name.replace("_", " "), justify="right")
    for file in compared:
        scores = (metric.text(score.value) for metric, score in file.scores.items())
        agreement = "-" if math.isnan(file.agreement) else f"{file.agreement:.1%}"
        table.add_row(file.split, str(file.examples), file.file, *scores, f"{file.difference:.1e}", agreement)
    console().print(table)


def show_repetitions(results: "list[RunResult]") -> None:
    """Print the seconds of each epoch and the scores of each run. Tracing and compiling fall into the first epoch."""
    from rich.table import Table

    first = results[0]
    table = Table("run")
    for epoch, _ in enumerate(first.epoch_seconds, start=1):
        table.add_column(f"epoch {epoch} (s)", justify="right")
    cells = [[f"seed {run.seed}", *(f"{seconds:.1f}" for seconds in run.epoch_seconds)] for run in results]
    spreads = ["mean ± sd", *("" for _ in first.epoch_seconds)]
    for split, scores in first.scores.items():
        for metric in scores:
            table.add_column(f"{split} {metric}", justify="right")
            values = [run.scores[split][metric].value for run in results]
            for row, value in zip(cells, values, strict=True):
                row.append(metric.text(value))
            spreads.append(_mean_and_spread(metric, values))
    for row in [*cells, spreads]:
        table.add_row(*row)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    out = console()
    out.print(f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {printable(first.device)}")
    out.print(table)


def _mean_and_spread(metric: "Metric", values: "list[float | None]") -> str:
    from statistics import mean, stdev

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "NaN"
    return f"{metric.text(mean(known))} ± {metric.text(stdev(known))}"


def show_submission(submission: "Submission") -> None:
    """Print where each of the eleven files comes from."""
    from isinglass.tables import Table

    rows = [(file.name, *_source(file)) for file in submission.files]
    note = "The best of several runs on dev flatters its dev score: the server's will be lower."
    notes = (note,) if any(file.candidates > 1 for file in submission.files) else ()
    columns = ("file", "predictions of", "dev", "chosen as")
    show_table(Table(title=str(submission.path), columns=columns, rows=tuple(rows), notes=notes))


def _source(file: "SubmittedFile") -> tuple[str, str, str]:
    """Return what predicted a file, its score on dev, and why it was chosen."""
    if file.run is None:
        return "absent" if file.filled is None else f"every row {file.filled}", "-", "-"
    run = f"{file.run.model} {file.run.backend} {file.run.precision} seed {file.run.seed}"
    return run, percent(file.dev_score), f"best of {file.candidates}"


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print a table as plain text."""
    print(table.to_text(), file=sys.stderr if stderr else sys.stdout)


def console(*, stderr: bool = False) -> Any:
    """Return a console of rich that prints texts as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
