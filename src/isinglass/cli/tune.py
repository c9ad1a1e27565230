"""`isinglass tune`."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from isinglass.cli.display import connected, show_tuned, trial_events
from isinglass.cli.exits import announce, errors_in_one_line
from isinglass.cli.options import (
    CheckpointEvery,
    CpusPerRun,
    DataDir,
    Delimiter,
    DropIncomplete,
    GpusPerRun,
    KindName,
    LabelColumn,
    LabelDelimiter,
    On,
    PositiveLabel,
    Storage,
    TextColumn,
    TextColumn2,
    TrainFile,
    ValidationFile,
    own_files,
    place_of,
    task_name,
)


def tune(
    task: Annotated[
        str | None, typer.Argument(help="A task that `isinglass tasks` lists, or a name for your own.  [default: demo]")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many runs in all, those of an earlier call included.")] = 20,
    output: Annotated[
        Path | None, typer.Option(help="Where the study lies, and goes on from.  [default: tune/TASK]")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(help="learning_rate=1e-5:5e-4,epochs=2:5,batch_size=16:32:64,seed, or some of these names."),
    ] = None,
    data_dir: DataDir = None,
    train_file: TrainFile = None,
    validation_file: ValidationFile = None,
    text_column: TextColumn = None,
    text_column2: TextColumn2 = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    kind: KindName = None,
    label_delimiter: LabelDelimiter = None,
    positive_label: PositiveLabel = None,
    drop_incomplete: DropIncomplete = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint directory, name on the hub, or `demo`.")] = None,
    backend: Annotated[str | None, typer.Option(help="torch, tensorflow or jax.  [default: torch]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or amp.  [default: fp32]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON file of settings; flags go before it.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting: --set max_length=64")
    ] = None,
    on: On = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    storage: Storage = None,
    checkpoint_every: CheckpointEvery = None,
) -> None:
    """Search learning rate, epochs and batch size on held-out data, resumably; the best become a recipe file."""
    with errors_in_one_line():
        from functools import partial

        from isinglass.config import resolve
        from isinglass.training.interruption import Interruption
        from isinglass.training.progress import ProgressObserver
        from isinglass.tuning import WORKER, Elsewhere, SearchSpace
        from isinglass.tuning import tune as run_tuning

        name = task_name(task, train_file)
        settings = resolve(
            task=name,
            config_file=config,
            flags={
                "data_dir": data_dir,
                "train_file": train_file or None,
                "validation_file": validation_file or None,
                **own_files(
                    train_file,
                    text_column=text_column,
                    text_column2=text_column2,
                    label_column=label_column,
                    delimiter=delimiter,
                    kind=kind,
                    label_delimiter=label_delimiter,
                    positive_label=positive_label,
                    drop_incomplete=drop_incomplete,
                ),
                "model": model,
                "backend": backend,
                "precision": precision,
            },
            assignments=tuple(assignments or ()),
            environment=os.environ,
        )
        directory = output or Path("tune") / name
        space = SearchSpace() if search is None else SearchSpace.parse(search)
        place = place_of(on, cpus_per_run, gpus_per_run, storage, checkpoint_every)
        with ExitStack() as stack:
            cluster = None if place is None else stack.enter_context(connected(place, directory, WORKER))
            interruption = stack.enter_context(Interruption(announce))
            on_trial, on_progress = stack.enter_context(trial_events(trials, several=cluster is not None))
            found = run_tuning(
                settings,
                trials=trials,
                directory=directory,
                space=space,
                on_trial=on_trial,
                observers=[ProgressObserver(partial(on_progress, 0))],
                interruption=interruption,
                elsewhere=None if cluster is None else Elsewhere(executor=cluster, on_progress=on_progress),
            )
        show_tuned(found)
