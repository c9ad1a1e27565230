"""Make the options of the commands: those of settings from their declaration, and groups that several commands share."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from isinglass.config import PLACES, RECIPES, SETTINGS, Setting, TableSettings, TrainConfig, as_dict, resolve, settings_of
from isinglass.errors import ConfigError

if TYPE_CHECKING:
    from isinglass.executors.ray import Cluster
    from isinglass.runs.finished import FinishedModel

Command = Callable[..., None]
TABLE_SETTINGS: Final = tuple(settings_of(TableSettings))
CLUSTER: Final = "Cluster"
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY
_METAVARS: Final = {int: "N", float: "NUMBER", str: "TEXT", tuple: "NAME"}
_OF_TABLES_ONLY: Final = tuple(name for name in TABLE_SETTINGS if name not in PLACES)

TaskArgument = Annotated[
    str | None,
    typer.Argument(metavar="TASK", help="Task that `isinglass tasks` lists, or a name for your own.  [default: demo]"),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run directory, or checkpoint directory with --task.")]
TaskOfRun = Annotated[
    str | None, typer.Option("--task", metavar="TASK", help="Use the model on another task with the same labels (ax).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on standard output.")]
ConfigFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML or JSON file of settings. Options override its values.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, as in --set weight_decay=0.01."),
]


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where to run, other than on this machine."""

    on: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Ray cluster, several runs at once: `ray` (at RAY_ADDRESS, or on this machine) or ray://HOST:PORT.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --on: CPUs of each run.  [default: those of a node, shared among its GPUs]",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    gpus_per_run: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --on: GPUs of each run, such as 0.5.  [default: 1 if nodes have GPUs]",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="With --on: a directory that all nodes see, or a URL, for checkpoints.  [default: OUTPUT, for a local Ray]",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="With --on: time between the checkpoints from which a lost run resumes: 200steps, 1epoch, 5min, never.  "
            "[default: 5min]",
            rich_help_panel=CLUSTER,
        ),
    ] = None

    def cluster(self) -> "Cluster | None":
        """Return the cluster to run on; None: this machine.

        Raises:
            ConfigError: an option is used that needs a cluster.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        used = {name: value for name, value in values.items() if value is not None}
        if self.on is not None:
            from isinglass.executors.ray import Cluster

            return Cluster(**used)
        for name in used:
            raise ConfigError(f"{_spelling(name)} is for runs on a cluster: name it with --on ray.")
        return None


def with_options(*settings: str, panels: bool = False, of_a_run: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that makes a function a command of typer.

    A parameter `settings` becomes an option for each named setting, and gets the values of those that are used: name ->
    value. A parameter whose type is a dataclass becomes an option for each of its fields.

    Args:
        settings: names of settings.
        panels: show the options of settings in the panels of their declarations.
        of_a_run: the command takes a finished run, whose settings are the defaults.
    """

    def decorate(function: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        parts: dict[str, tuple[Callable[..., Any], list[str]]] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name == "settings":
                options = [_option(SETTINGS[name], panels=panels, of_a_run=of_a_run) for name in settings]
                parts["settings"] = (_used, [option.name for option in options])
            elif is_dataclass(group := parameter.annotation):
                options = [
                    inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=field.type)
                    for field in fields(group)
                ]
                parts[parameter.name] = (cast("type", group), [option.name for option in options])
            else:
                options = [parameter.replace(kind=_KEYWORD)]
            parameters += options

        @wraps(function)
        def command(**values: Any) -> None:
            for name, (make, names) in parts.items():
                values[name] = make(**{option: values.pop(option) for option in names})
            function(**values)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        return command

    return decorate


def _option(setting: Setting, *, panels: bool, of_a_run: bool) -> inspect.Parameter:
    """Return the option of a setting. Its default is None: not used."""
    default = "the run's" if of_a_run else _default_text(setting)
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    option = typer.Option(
        setting.flag,
        metavar=None if setting.type is bool else setting.metavar or _METAVARS[setting.type],
        help=setting.meaning + choices + (f"  [default: {default}]" if default else ""),
        rich_help_panel=setting.panel if panels else None,
    )
    value_type = list[str] if setting.type is tuple else setting.type
    return inspect.Parameter(setting.name, _KEYWORD, default=None, annotation=Annotated[value_type | None, option])


def _default_text(setting: Setting) -> str | None:
    """Return a setting's default as `--help` shows it, with those of other recipes: `2e-05; small: 0.0002`."""
    if setting.default in (None, (), False):
        return setting.unset
    texts = [str(setting.default)]
    for recipe in RECIPES.values():
        if setting.name in recipe.values:
            texts.append(f"{recipe.name}: {recipe.values[setting.name]:g}")
    tasks = {task: values for recipe in RECIPES.values() for task, values in recipe.values_of_tasks.items()}
    texts += [f"{task}: {values[setting.name]:g}" for task, values in tasks.items() if setting.name in values]
    return "; ".join(texts)


def _used(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != []}


def _spelling(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def comma_separated(text: str | None) -> tuple[str, ...] | None:
    """Return the names of a comma-separated list."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def name_of_task(task: str | None, train_file: Collection[str]) -> str:
    """Return the name of a known task or, with files of the user's own, its name: by default that of the first file."""
    from isinglass.tasks import TASKS, get_task

    if not train_file:
        return get_task(task or "demo").name
    name = task or _name_of_file(next(iter(train_file)))
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", name):
        raise ConfigError(f"{name!r} is no name for a task: letters a to z, digits, - and _ were expected.")
    if name not in TASKS:
        return name
    if task is None:
        return f"{name}-own"
    raise ConfigError(f"{name} is a task that `isinglass tasks` lists: give your own files another name.")


def _name_of_file(path: str) -> str:
    stem = Path(path).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-") or "texts"


def check_own_files(used: Collection[str], train_file: Collection[str], names: Collection[str] = _OF_TABLES_ONLY) -> None:
    """Raise a ConfigError where an option about the user's own files is used without such files.

    Args:
        used: the names of the settings that are used.
        train_file: the files.
        names: the settings that need them.
    """
    for name in names:
        if name in used and not train_file:
            raise ConfigError(f"{_spelling(name)} is for your own files: name them with --train-file.")


def resolve_options(
    task: str | None, settings: Mapping[str, Any], config_file: Path | None, assignments: Collection[str] | None
) -> TrainConfig:
    """Return the configuration of a run from the options of a command and the environment."""
    config = resolve(
        task=name_of_task(task, settings.get("train_file", ())),
        config_file=config_file,
        flags=settings,
        assignments=tuple(assignments or ()),
        environment=os.environ,
    )
    check_own_files(settings, config.train_file)
    return config


def finished_run(run_dir: Path, task: str | None, settings: dict[str, Any]) -> "FinishedModel":
    """Load the model of a run directory or a checkpoint, with changes to its task and settings."""
    from isinglass.runs.finished import load_run
    from isinglass.tasks import TASKS, custom, get_task

    finished = load_run(run_dir, task=None if task is None else get_task(task).name)
    if "test_file" in settings:
        if finished.task.name in TASKS:
            raise ConfigError(f"{run_dir} is of {finished.task.title}, whose sets are known: --test-file is for your own.")
        finished = replace(finished, task=custom.with_test(finished.task))
    changed = as_dict(finished.config) | {"compile": False, "layout": "auto"} | settings
    return replace(finished, config=resolve(task=changed.pop("task"), flags=changed))
