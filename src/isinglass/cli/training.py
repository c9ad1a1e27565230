"""The commands that train: `isinglass train`, `bench` and `tune`; and `tasks`, which lists what can be trained on."""

import os
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from isinglass.cli.exits import announce, how_to_resume, processes
from isinglass.cli.options import command
from isinglass.config import PLACES, SETTINGS, TrainConfig, resolve
from isinglass.config.setting import Settings, setting
from isinglass.config.settings import AT_LEAST_1, ClusterSettings, SavingSettings, TableSettings
from isinglass.errors import ConfigError, RunFailedError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.backends.process_group import ProcessGroup
    from isinglass.bench.plan import Selection
    from isinglass.results import RunResult
    from isinglass.runs.perform import Saving
    from isinglass.tasks import Task
    from isinglass.training.preparation import FirstWeights

_TABLE_SETTINGS: Final = (*TableSettings.declared(),)
_TaskArgument = Annotated[
    str | None,
    typer.Argument(metavar="TASK", help="Task that `isinglass tasks` lists, or a name for your own.  [default: demo]"),
]


class SourceOptions(Settings):
    """Where settings without an option of their own come from."""

    config: Path | None = setting(None, metavar="FILE")
    """TOML or JSON file of settings. Options override its values."""
    set: tuple[str, ...] = setting((), metavar="NAME=VALUE")
    """Any other setting, as in --set weight_decay=0.01."""

    def resolve(self, task: str | None, settings: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration of a run.

        Args:
            task: the argument of the command.
            settings: the settings whose options are used: name -> value.
        """
        task = _name_of_task(task, settings)
        config = resolve(task=task, config_file=self.config, flags=settings, assignments=self.set, environment=os.environ)
        _check_own_files({*settings} - {*PLACES}, has_own_data=config.has_own_data)
        return config


class TrainOptions(SourceOptions):
    """Where a run goes, and what is shown."""

    output_dir: Path | None = setting(None, panel="Most used", unset="a new directory in runs/", metavar="DIR")
    """Directory of the run."""
    start_from: Path | None = setting(None, panel="Model", metavar="RUN_DIR")
    """Start from the weights of a finished run, fine-tuned on another task (NLI for RTE, say), with a new head."""
    runs: int = setting(1, AT_LEAST_1, panel="Output")
    """Number of runs; each uses the next seed."""
    log_to: Literal["tensorboard"] | None = setting(None, panel="Output")
    """Write scalars to tensorboard/RUN, beside the run."""
    check_only: bool = setting(False)
    """Read, tokenize and check the data, report what was found, and stop."""
    json: bool = setting(False)
    """Print one JSON object, and nothing else, on standard output."""

    def first_weights(self, config: TrainConfig) -> "tuple[TrainConfig, FirstWeights | None]":
        """Return the settings with the model of the run to start from, and its weights."""
        from isinglass.runs.directory import first_weights_of

        return (config, None) if self.start_from is None else first_weights_of(self.start_from, config)


@command(*(name for name, setting in SETTINGS.items() if setting.panel), trains=True)
def train(settings: dict[str, Any], saving: SavingSettings, options: TrainOptions, task: _TaskArgument = None) -> None:
    """Fine-tune a model on a task, score its dev set(s), and write a run directory."""
    from isinglass.backends.process_group import number_of_processes
    from isinglass.backends.protocol import check_installed
    from isinglass.cli.display import show_data_facts, show_repetitions
    from isinglass.runs.directory import new_run_name, repetitions
    from isinglass.runs.perform import Saving

    config = options.resolve(task, settings)
    if config.baselines is None:
        config = replace(config, baselines=config.has_own_data)
    config, first_weights = options.first_weights(config)
    how = Saving(**vars(saving))
    if saving.resume and options.output_dir is None:
        raise ConfigError("--resume needs --output-dir, the directory of the run to continue.")
    if options.check_only:
        show_data_facts(replace(config, model=first_weights.directory) if first_weights else config)
        return
    if options.output_dir is None and number_of_processes(config.backend) > 1:
        raise ConfigError("Processes that share a run need --output-dir, so that all know where its checkpoints lie.")
    check_installed(config.backend)
    planned = repetitions(config, options.output_dir or Path("runs") / new_run_name(config), options.runs)
    with processes(config.backend) as group:
        results = _perform_all(planned, first_weights, options, how, group)
        if options.runs > 1 and group.rank == 0 and not options.json:
            show_repetitions(results)


def _perform_all(
    planned: Collection[tuple[TrainConfig, Path]],
    first_weights: "FirstWeights | None",
    options: TrainOptions,
    saving: "Saving",
    group: "ProcessGroup",
) -> "list[RunResult]":
    """Perform one run after another, and show the result of each as soon as it is known."""
    from isinglass.cli.display import OwnDataFacts, progress, show_result
    from isinglass.runs.directory import RunNotWrittenError
    from isinglass.runs.perform import perform
    from isinglass.training.interruption import Interruption
    from isinglass.training.observers import TensorBoardLog

    leads = group.rank == 0
    if leads:
        for _, directory in planned:
            saving.check(directory, group)
    results = []
    with Interruption(announce if leads else lambda _: None, repeated=group.has_launcher) as interruption:
        for config, directory in planned:
            try:
                with ExitStack() as stack:
                    observers = [stack.enter_context(progress()), OwnDataFacts()]
                    if options.log_to is not None:
                        log = TensorBoardLog(directory.parent / "tensorboard" / directory.name)
                        observers.append(stack.enter_context(closing(log)))
                    stack.enter_context(how_to_resume(directory))
                    run = perform(
                        config,
                        directory,
                        observers,
                        saving=saving,
                        first_weights=first_weights,
                        interruption=interruption,
                        group=group,
                    )
            except RunNotWrittenError as error:
                show_result(error.result, None, as_json=options.json)  # the scores at least are not lost
                raise
            results.append(run.result)
            if leads and run.trained is None:
                print(printable(f"{directory} is finished already; this is its result."), file=sys.stderr)
            if leads:
                show_result(run.result, directory, as_json=options.json)
    return results


class BenchOptions(Settings):
    """Which runs a bench has, and where."""

    preset: str | None = setting(None, metavar="NAME")
    """A table in one command: seed-pytorch, seed-tensorflow or glue."""
    tasks: str | None = setting(None, metavar="NAMES")
    """Tasks, instead of a preset or among its tasks: rte,mrpc"""
    output: Path | None = setting(None, metavar="DIR", unset="bench/PRESET")
    """Directory of the results. Its runs are not run again."""
    models: str | None = setting(None, metavar="NAMES")
    """Checkpoint directories or names, separated by commas."""
    backends: str | None = setting(None, metavar="NAMES")
    """Backends: torch,tensorflow,jax"""
    precisions: str | None = setting(None, metavar="NAMES")
    """Precisions: fp32,bf16,fp16,amp"""
    xla: bool | None = setting(None)
    """Run tensorflow with XLA too."""
    compile: bool | None = setting(None)
    """Run torch compiled too."""
    seeds: int | None = setting(None, AT_LEAST_1)
    """Number of seeds, counted up from the setting `seed`."""
    start_from: str | None = setting(None, metavar="TASK")
    """RTE, MRPC and STS-B start from the weights fine-tuned on this task: mnli"""
    predict_test: bool = setting(False)
    """Predict the test sets too, for `isinglass submit`."""
    keep_models: bool = setting(False)
    """Keep every model in OUTPUT/runs."""
    published: bool = setting(False)
    """Show the published figure beside each row."""
    dry_run: bool = setting(False)
    """Show the plan and its estimate, and stop."""
    set: tuple[str, ...] = setting((), metavar="NAME=VALUE")
    """Any other setting of all runs."""

    def select(self, settings: dict[str, Any]) -> "tuple[str, Selection]":
        """Return a name for the bench, and its selection of runs.

        Args:
            settings: the settings whose options are used: name -> value.
        """
        from isinglass.bench.plan import select

        chosen = {name: getattr(self, name) for name in ("xla", "compile", "start_from", "seeds")}
        chosen |= {name: getattr(self, name) or None for name in ("predict_test", "keep_models")}
        chosen |= {name: _split(getattr(self, name)) for name in ("tasks", "models", "backends", "precisions")}
        chosen |= {"assignments": self.set, "recipe": settings.get("recipe")}
        has_own_data = "train_file" in settings or "dataset" in settings
        _check_own_files(settings, has_own_data=has_own_data)
        if not has_own_data:
            return self.preset or "results", select(self.preset, **chosen)
        task = _name_of_task(None, settings)
        own_files = {"task": task} | {name: value for name, value in settings.items() if name in _TABLE_SETTINGS}
        return task, select(self.preset, own_files=own_files, published=self.published, **chosen)


@command("data_dir", *(name for name in _TABLE_SETTINGS if name != "validation_fraction"), "recipe")
def bench(options: BenchOptions, cluster: ClusterSettings, settings: dict[str, Any]) -> None:
    """Run many configurations, resumably, and print their table; `isinglass report` makes a page of them."""
    from isinglass.bench.harness import run
    from isinglass.cli.searches import BenchDisplay, bench_tables

    name, selection = options.select(settings)
    directory = options.output or Path("bench") / name
    data_dir, on = settings.get("data_dir"), cluster if cluster.on else None
    with BenchDisplay() as display:
        outcome = run(selection, directory, data_dir=data_dir, cluster=on, dry_run=options.dry_run, observer=display)
    if options.dry_run:
        return
    for table in bench_tables(outcome.plan, directory, selection.table, with_published=options.published):
        print(table.to_text())
    print(printable(f"Results in {directory}; `isinglass report {directory}` makes a page of them."), file=sys.stderr)
    if outcome.failed:
        failed = f"{outcome.failed} of {outcome.performed} runs failed, each with its reason above"
        raise RunFailedError(f"{failed}; the same command tries them again.")


class TuneOptions(SourceOptions):
    """What to search, and where."""

    trials: int = setting(20, AT_LEAST_1)
    """Number of runs in all, those of an earlier call included."""
    output: Path | None = setting(None, metavar="DIR", unset="tune/TASK")
    """Directory of the study. A study in it is continued."""
    search: str | None = setting(None, metavar="SPACE")
    """Settings to search, some or all of learning_rate=1e-5:5e-4,epochs=2:5,batch_size=16:32:64,seed. A name alone has its
    usual range.
    """


_TUNED_ON: Final = [name for name in _TABLE_SETTINGS if name not in ("test_file", "validation_fraction")]


@command("data_dir", *_TUNED_ON, "model", "backend", "precision")
def tune(options: TuneOptions, cluster: ClusterSettings, settings: dict[str, Any], task: _TaskArgument = None) -> None:
    """Search learning rate, epochs and batch size on held-out data, resumably; the best become a recipe file."""
    from isinglass import tuning
    from isinglass.cli.searches import TuneDisplay, tuned_table
    from isinglass.training.interruption import Interruption

    config = options.resolve(task, settings)
    with Interruption(announce) as interruption, TuneDisplay(options.trials) as display:
        tuned = tuning.tune(
            config,
            trials=options.trials,
            directory=options.output or Path("tune") / config.task,
            space=tuning.SearchSpace.parse(options.search) if options.search is not None else tuning.SearchSpace(),
            observer=display,
            cluster=cluster if cluster.on else None,
            interruption=interruption,
        )
    print(tuned_table(tuned).to_text(), end="")
    print(printable(f"Recipe of the best written to {tuned.recipe}: isinglass train TASK --config it"))


def _split(names: str | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(name.strip() for name in names.split(",") if name.strip())


def _name_of_task(task: str | None, settings: Mapping[str, Any]) -> str:
    """Return the name of a known task or, with the user's own data, its name: by default that of file or data set.

    Args:
        task: the name that the user gave.
        settings: the settings whose options are used: name -> value.
    """
    from isinglass.tasks import TASKS, get_task

    if "train_file" in settings:
        stem = Path(settings["train_file"][0]).name.split(".")[0]
    elif "dataset" in settings:
        stem = _name_of_dataset(settings["dataset"], settings.get("subset"))
    else:
        return get_task(task or "demo").name
    name = task or re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-") or "texts"
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", name):
        raise ConfigError(f"{name!r} is no name for a task: letters a to z, digits, - and _ were expected.")
    if name in TASKS and task is not None:
        raise ConfigError(f"{name} is a task that `isinglass tasks` lists: give your own files another name.")
    return f"{name}-own" if name in TASKS else name


def _name_of_dataset(dataset: str, subset: str | None) -> str:
    """Return the name of a data set without its user and its commit, followed by that of the subset that is named."""
    name = dataset.partition("@")[0].rpartition("/")[2]
    return name if subset is None else f"{name}-{subset}"


def _check_own_files(used: Collection[str], *, has_own_data: bool) -> None:
    """Raise a ConfigError where settings about the user's own data are used without such data."""
    for name in _TABLE_SETTINGS:
        if name in used and not has_own_data:
            raise ConfigError(f"{SETTINGS[name].flag} is for your own data: name them with --train-file or --dataset.")


@command()
def tasks() -> None:
    """List the tasks: sizes, columns, metrics, and the score of always answering the most frequent label."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from isinglass.tasks import TASKS

    columns = ("task", "train", "dev", "test", "texts -> label", "labels", "metrics", "majority")
    title = "Columns and labels of GLUE's files, sizes as published, majority on dev"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    rows = [_task_row(task) for task in TASKS.values()]
    for name, *column in zip(columns, *rows, strict=True):
        width = max(len(word) for cell in (name, *column) for word in cell.split())  # lines end between words
        table.add_column(name, width=width, justify="right" if name in ("train", "dev", "test") else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True, markup=False).print(table)


def _task_row(task: "Task") -> list[str]:
    """Return the cells of a task, `-` where there is nothing to tell."""
    train = [task.train] if task.train else []
    sizes = [" + ".join(str(split.rows) for split in splits) for splits in (train, task.dev, task.test)]
    columns = task.splits[0]
    texts = f"{', '.join(map(str, columns.text_columns))} -> {columns.label_column or '-'}"
    labels = ", ".join(task.labels or []) or "{:g} to {:g}".format(*task.score_range)
    values = [[metric.text(score) for metric, score in zip(task.metrics, scores)] for scores in task.dev_majority]
    majority = " + ".join(map(", ".join, values))
    return [cell or "-" for cell in (task.name, *sizes, texts, labels, ", ".join(task.metrics), majority)]
