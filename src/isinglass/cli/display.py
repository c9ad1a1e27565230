"""Print what a person sees of a run: facts about its data, its scores, its export."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.checks import DataFacts, cut_shares, inspect_data
from isinglass.metrics import Metric
from isinglass.models.source import load_model
from isinglass.names import printable
from isinglass.results import RunResult
from isinglass.tables import Table
from isinglass.tasks import TASKS
from isinglass.training.observers import Observer, RunState
from isinglass.training.preparation import PreparedRun, prepare_texts


class OwnDataFacts(Observer):
    """An observer that shows what may spoil the result of a run on a user's own data."""

    def on_train_begin(self, run: PreparedRun, state: RunState) -> None:  # noqa: ARG002
        """Show the facts, on standard error; nothing for a published task."""
        if run.task.name not in TASKS:
            facts = inspect_data({split.name: split.examples for split in run.splits}, run.task)
            truncated = cut_shares({split.name: split.tokens for split in run.splits})
            show_facts((), replace(facts, truncated=truncated))


def show_data_facts(config: TrainConfig) -> None:
    """Read, tokenize and check the data of a run, and show what was found. Facts known without the model come first."""
    data = open_data(config)
    splits = {split.name: data.read(split) for split in data.task.splits}
    facts = inspect_data(splits, data.task)
    try:
        checkpoint = load_model(config.model)
        tokens = {name: prepare_texts(examples, config, checkpoint) for name, examples in splits.items()}
        facts = replace(facts, truncated=cut_shares(tokens))
    finally:
        show_facts(data.notes, facts)


def show_facts(notes: Iterable[str], facts: DataFacts) -> None:
    """Print what was found in a user's data, on standard error."""
    for line in (*notes, *facts.lines()):
        print(printable(line), file=sys.stderr, flush=True)


def show_result(result: RunResult, directory: Path | None, *, as_json: bool) -> None:
    """Print a result: scores beside those of a constant prediction, notes, speed; or one JSON object.

    Args:
        directory: where the run was written; None: nowhere.
    """
    if as_json:
        print(result.to_json().encode("utf-8", "backslashreplace").decode())  # a path need not be UTF-8; \udcff is JSON
        return
    task = TASKS[result.task].title if result.task in TASKS else result.task
    rows = [
        (split, str(result.examples[split]), metric, metric.text(score.value), metric.text(score.majority))
        for split, scores in result.scores.items()
        for metric, score in scores.items()
    ]
    constant = "mean" if any(Metric.RMSE in row for row in rows) else "majority"
    table = Table(
        title=f"{task}: {result.model}, {result.precision}, seed {result.seed}",
        columns=("split", "examples", "metric", "result", constant),
        rows=tuple(rows),
        notes=tuple(result.notes),
    )
    print(table.to_text(), end="")
    if result.collapsed:
        print("Collapsed: the model gives every example the same label.")
    if result.epoch_seconds:
        print(
            f"Trained {result.train_seconds:.1f} s ({result.examples_per_second:.1f} examples/s, "
            f"{result.tokens_per_second:,.0f} tokens/s) on {printable(result.device)}; {result.padding_avoided:.0%} of the "
            f"tokens of padding to {result.config['max_length']} not computed, {result.truncated_share:.1%} of the training "
            f"examples truncated."
        )
    if directory is not None:
        print(f"Run written to {printable(str(directory))}")


def show_repetitions(results: Sequence[RunResult]) -> None:
    """Print the seconds of each epoch and the scores of each run. Tracing and compiling fall into the first epoch."""
    first = results[0]
    epochs = range(len(first.epoch_seconds))
    columns = [["run", *(f"seed {run.seed}" for run in results), "mean ± sd"]]
    columns += [[f"epoch {i + 1} (s)", *(f"{run.epoch_seconds[i]:.1f}" for run in results), ""] for i in epochs]
    for split, metric in ((split, metric) for split, scores in first.scores.items() for metric in scores):
        values = [run.scores[split][metric].value for run in results]
        columns.append([f"{split} {metric}", *map(metric.text, values), _mean_and_spread(metric, values)])
    head, *rows = zip(*columns, strict=True)
    compiler = ", XLA" if first.xla else ", compiled" if first.compile else ""
    title = f"{len(results)} runs: {first.backend}, {first.precision}{compiler}, {first.device}"
    print(Table(title=title, columns=head, rows=tuple(rows)).to_text(), end="")


def _mean_and_spread(metric: Metric, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "NaN"
    return f"{metric.text(mean(known))} ± {metric.text(stdev(known))}"
