"""Print what a person sees of a command: progress, results, tables."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isinglass.names import percent, printable

if TYPE_CHECKING:
    from isinglass.data.checks import DataFacts
    from isinglass.export.compare import Compared
    from isinglass.export.onnx import Exported
    from isinglass.results import RunResult
    from isinglass.submission import Submission
    from isinglass.tables import Table


def show_result(result: "RunResult", directory: Path | None, *, as_json: bool) -> None:
    """Print a result: scores beside the majority, speed, notes; or one JSON object."""
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    from rich.table import Table

    from isinglass.metrics import Metric
    from isinglass.tasks import TASKS

    title = TASKS[result.task].title if result.task in TASKS else result.task
    table = Table()
    for column in ("split", "examples", "metric"):
        table.add_column(column)
    table.add_column("result", justify="right")
    is_regression = any(Metric.RMSE in scores for scores in result.scores.values())
    table.add_column("mean" if is_regression else "majority", justify="right")  # what an answer without a look scores
    for split, scores in result.scores.items():
        for metric, score in scores.items():
            figures = metric.text(score.value), metric.text(score.majority)
            table.add_row(split, str(result.examples[split]), metric, *figures)
    out = console(stderr=False)
    out.print(f"{title}: {printable(result.model)}, {result.precision}, seed {result.seed}")
    out.print(table)
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


def show_facts(notes: Iterable[str], facts: "DataFacts") -> None:
    """Print what was found in a user's data, on standard error."""
    for line in (*notes, *facts.lines()):
        print(printable(line), file=sys.stderr, flush=True)


def show_export(exported: "Exported") -> None:
    """Print the files of an export and how they are called."""
    for path in exported.files:
        print(printable(f"{path} ({path.stat().st_size / 1e6:.1f} MB)"))
    axes = "; ".join(f"{name} int64 ({', '.join(found)})" for name, found in exported.inputs.items())
    print(f"ONNX opset {exported.opset}; inputs {axes}: both axes are free, padding follows the tokens.")
    labels = "one value" if exported.label_names is None else ", ".join(map(printable, exported.label_names))
    print(f"Output logits float32 (batch, labels): {labels}; trained on up to {exported.max_length} tokens.")


def show_comparison(compared: "list[Compared]") -> None:
    """Print what each file scores on the dev set, and how far its probabilities are from the model's."""
    from rich.table import Table

    table = Table()
    for column in ("split", "rows", "file"):
        table.add_column(column, no_wrap=True)
    for name in (*compared[0].scores, "largest difference", "same answers"):
        table.add_column(name.replace("_", " "), justify="right")
    for one in compared:
        scores = (metric.text(score.value) for metric, score in one.scores.items())
        agreement = "-" if one.agreement != one.agreement else f"{one.agreement:.1%}"
        table.add_row(one.split, str(one.examples), one.file, *scores, f"{one.difference:.1e}", agreement)
    console(stderr=False).print(table)


def show_repetitions(results: "list[RunResult]") -> None:
    """Seconds of each epoch and scores of each run: the first epoch has the tracing and compiling in it."""
    from statistics import mean, stdev

    from rich.table import Table

    first = results[0]
    columns = [(split, metric) for split, scores in first.scores.items() for metric in scores]
    values = [[one.scores[split][metric].value for split, metric in columns] for one in results]
    table = Table()
    table.add_column("run")
    for epoch in range(1, len(first.epoch_seconds) + 1):
        table.add_column(f"epoch {epoch} (s)", justify="right")
    for split, metric in columns:
        table.add_column(f"{split} {metric}", justify="right")
    for one, row in zip(results, values, strict=True):
        seconds = [f"{value:.1f}" for value in one.epoch_seconds]
        figures = [metric.text(value) for (_, metric), value in zip(columns, row, strict=True)]
        table.add_row(f"seed {one.seed}", *seconds, *figures)
    spread = []
    for (_, metric), column in zip(columns, zip(*values, strict=True), strict=True):
        known = [value for value in column if value is not None]
        whole = len(known) == len(column)
        spread.append(f"{metric.text(mean(known))} ± {metric.text(stdev(known))}" if whole else "NaN")
    table.add_row("mean ± sd", *("" for _ in first.epoch_seconds), *spread)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    out = console(stderr=False)
    out.print(f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {printable(first.device)}")
    out.print(table)


def show_submission(submission: "Submission") -> None:
    """Print where each of the eleven files comes from."""
    from isinglass.tables import Table

    rows = []
    for file in submission.files:
        run = file.run
        if run is None:
            source = "absent" if file.filled is None else f"every row {file.filled}"
            rows.append((file.name, source, "-", "-"))
            continue
        source = f"{run.model} {run.backend} {run.precision} seed {run.seed}"
        rows.append((file.name, source, percent(file.dev_score), f"best of {file.candidates}"))
    note = "The best of several runs on dev flatters its dev score: the server's will be lower."
    several = any(file.candidates > 1 for file in submission.files)
    columns = ("file", "predictions of", "dev", "chosen as")
    show_table(Table(title=str(submission.path), columns=columns, rows=tuple(rows), notes=(note,) if several else ()))


def show_table(table: "Table", *, stderr: bool = False) -> None:
    """Print a table as plain text."""
    print(table.to_text(), file=sys.stderr if stderr else sys.stdout)


def console(*, stderr: bool) -> Any:
    """A console that prints texts as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
