"""`isinglass train`."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isinglass.cli.display import progress, show_facts, show_repetitions, show_result
from isinglass.cli.exits import announce, errors_in_one_line, how_to_resume, processes
from isinglass.cli.options import (
    DataDir,
    Delimiter,
    DropIncomplete,
    Json,
    KindName,
    LabelColumn,
    LabelDelimiter,
    PositiveLabel,
    TestFile,
    TextColumn,
    TextColumn2,
    TrainFile,
    ValidationFile,
    own_files,
    task_name,
)
from isinglass.errors import ConfigError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.backends.process_group import ProcessGroup
    from isinglass.config import TrainConfig
    from isinglass.results import RunResult
    from isinglass.runs.perform import Saving
    from isinglass.training.observers import Observer


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
        from isinglass.backends.process_group import number_of_processes
        from isinglass.backends.registry import check_installed
        from isinglass.runs.directory import new_run_name, repetitions
        from isinglass.runs.perform import Saving

        saving = Saving(
            resume=resume, overwrite=overwrite, checkpoint_every=checkpoint_every, keep_checkpoints=keep_checkpoints
        )
        if resume and output_dir is None:
            raise ConfigError("--resume needs --output-dir, the directory of the run to go on with.")
        if check_only:
            _check_data(settings)
            return
        if output_dir is None and number_of_processes(settings.backend) > 1:
            raise ConfigError("Processes that share a run need --output-dir, so that all know where its checkpoints lie.")
        check_installed(settings.backend)
        planned = repetitions(settings, output_dir or Path("runs") / new_run_name(settings), runs)
        with processes(settings.backend) as group:
            results = _perform_all(planned, saving, group, log_to=log_to, as_json=json_output)
            if runs > 1 and group.rank == 0 and not json_output:
                show_repetitions(results)


def _perform_all(
    planned: "Sequence[tuple[TrainConfig, Path]]",
    saving: "Saving",
    group: "ProcessGroup",
    *,
    log_to: str | None,
    as_json: bool,
) -> "list[RunResult]":
    """Perform one run after another, and show the result of each as soon as it is known."""
    from isinglass.runs.perform import RunNotWrittenError, perform
    from isinglass.training.interruption import Interruption

    leads = group.rank == 0
    if leads:
        for _, directory in planned:
            saving.check(directory, group)
    results = []
    with Interruption(announce if leads else lambda _: None, repeated=group.has_launcher) as interruption:
        for config, directory in planned:
            try:
                with _observers(log_to, directory, leads=leads) as observers, how_to_resume(directory):
                    run = perform(config, directory, observers, saving=saving, interruption=interruption, group=group)
            except RunNotWrittenError as error:
                show_result(error.result, None, as_json=as_json)  # the scores at least are not lost
                raise
            results.append(run.result)
            if not leads:
                continue
            if run.trained is None:
                print(printable(f"{directory} is finished already; this is its result."), file=sys.stderr)
            show_result(run.result, directory, as_json=as_json)
    return results


@contextmanager
def _observers(log_to: str | None, directory: Path, *, leads: bool) -> "Iterator[list[Observer]]":
    """Yield what shows and logs a run. Only the process that leads has any, because only its observers are called."""
    from isinglass.cli.own_data import OwnDataFacts
    from isinglass.runs.tensorboard import TensorBoardLog

    if not leads:
        yield []
        return
    with progress() as bar:
        if log_to is None:
            yield [bar, OwnDataFacts()]
            return
        with TensorBoardLog(directory.parent / "tensorboard" / directory.name) as log:
            yield [bar, OwnDataFacts(), log]


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
