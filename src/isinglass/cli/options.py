"""Make commands of functions: their options come from declared settings, their errors are one line."""

import inspect
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from isinglass.cli.exits import errors_in_one_line
from isinglass.config import PLACES, RECIPES, SETTINGS, TrainConfig, as_dict, resolve
from isinglass.config.setting import Setting, Settings, setting
from isinglass.config.settings import AT_LEAST_1, TableSettings
from isinglass.errors import ConfigError

if TYPE_CHECKING:
    from isinglass.executors.ray import Cluster
    from isinglass.runs.finished import FinishedModel

Command = Callable[..., None]
TABLE_SETTINGS: Final = tuple(TableSettings.declared())
CLUSTER: Final = "Cluster"
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY

TaskArgument = Annotated[
    str | None,
    typer.Argument(metavar="TASK", help="Task that `isinglass tasks` lists, or a name for your own.  [default: demo]"),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run directory, or checkpoint directory with --task.")]


@dataclass(frozen=True, kw_only=True)
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
        config = resolve(
            task=name_of_task(task, settings.get("train_file", ())),
            config_file=self.config,
            flags=settings,
            assignments=self.set,
            environment=os.environ,
        )
        check_own_files({*settings} - {*PLACES}, config.train_file)
        return config


@dataclass(frozen=True, kw_only=True)
class FinishedRunOptions(Settings):
    """What to do with a finished run."""

    task: str | None = setting(None, metavar="TASK")
    """Use the model on another task with the same labels (ax)."""

    def load(self, run_dir: Path, settings: dict[str, Any]) -> "FinishedModel":
        """Load the model of a run directory or a checkpoint, with changes to its task and settings."""
        from isinglass.runs.finished import load_run
        from isinglass.tasks import TASKS, custom, get_task

        finished = load_run(run_dir, task=None if self.task is None else get_task(self.task).name)
        if "test_file" in settings:
            if finished.task.name in TASKS:
                title = finished.task.title
                raise ConfigError(f"{run_dir} is of {title}, whose sets are known: --test-file is for your own.")
            finished = replace(finished, task=custom.with_test(finished.task))
        changed = as_dict(finished.config) | {"compile": False, "layout": "auto"} | settings
        return replace(finished, config=resolve(task=changed.pop("task"), flags=changed))


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Settings):
    """Where to run, other than on this machine."""

    on: str | None = setting(None, panel=CLUSTER, metavar="ADDRESS")
    """Run on a Ray cluster, several runs at once: `ray` (at RAY_ADDRESS, or on this machine) or ray://HOST:PORT."""
    cpus_per_run: int | None = setting(None, AT_LEAST_1, panel=CLUSTER, unset="those of a node, shared among its GPUs")
    """With --on: CPUs of each run."""
    gpus_per_run: float | None = setting(None, panel=CLUSTER, unset="1 if nodes have GPUs")
    """With --on: GPUs of each run, such as 0.5."""
    storage: str | None = setting(None, panel=CLUSTER, unset="OUTPUT, for a local Ray", metavar="DIR")
    """With --on: a directory that all nodes see, or a URL, for checkpoints."""
    checkpoint_every: str | None = setting(None, panel=CLUSTER, unset="5min", metavar="INTERVAL")
    """With --on: time between the checkpoints from which a lost run resumes: 200steps, 1epoch, 5min, never."""

    def cluster(self) -> "Cluster | None":
        """Return the cluster to run on; None: this machine.

        Raises:
            ConfigError: an option is used that needs a cluster.
        """
        values = {name: getattr(self, name) for name in ClusterOptions.declared()}
        used = {name: value for name, value in values.items() if value is not None}
        if self.on is not None:
            from isinglass.executors.ray import Cluster

            return Cluster(**used)
        for name in used:
            raise ConfigError(f"{ClusterOptions.declared()[name].flag} is for runs on a cluster: name it with --on ray.")
        return None


def command(
    *settings: str, panels: bool = False, of_a_run: bool = False, shared: bool = False
) -> Callable[[Command], Command]:
    """Return a decorator that makes a function a command of typer, whose errors are one line.

    A parameter whose type is a group of settings becomes an option for each of them. A parameter `settings` becomes an
    option for each named setting of a run, and gets the values of those that are used: name -> value.

    Args:
        settings: names of settings of a run.
        panels: show their options in the panels of their declarations.
        of_a_run: the command takes a finished run, whose settings are the defaults.
        shared: the command may be one of several processes that share a run.
    """

    def decorate(function: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        groups: dict[str, tuple[type, list[str]]] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name == "settings":
                default = "the run's" if of_a_run else None
                options = [_option(SETTINGS[name], panel=panels, default=default) for name in settings]
                groups["settings"] = (dict, [*settings])
            elif isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Settings):
                options = [_option(declared) for declared in parameter.annotation.declared().values()]
                groups[parameter.name] = (parameter.annotation, [option.name for option in options])
            else:
                options = [parameter.replace(kind=_KEYWORD)]
            parameters += options

        @wraps(function)
        def run(**values: Any) -> None:
            with errors_in_one_line(shared=shared):
                for parameter, (group, names) in groups.items():
                    chosen = {name: values.pop(name) for name in names}
                    values[parameter] = group(**{name: value for name, value in chosen.items() if value not in (None, [])})
                function(**values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        return run

    return decorate


def _option(setting: Setting, *, panel: bool = True, default: str | None = None) -> inspect.Parameter:
    """Return the option of a setting. Its value is None where it is not used."""
    default = default or _default_text(setting)
    texts = [setting.meaning]
    if setting.choices:
        texts.append(f"One of {', '.join(setting.choices)}.")
    if default:
        texts.append(f" [default: {default}]")
    can_be_refused = setting.type is bool and setting.is_optional
    option = typer.Option(
        f"{setting.flag}/--no-{setting.name}" if can_be_refused else setting.flag,
        metavar=setting.metavar,
        help=" ".join(texts),
        rich_help_panel=setting.panel if panel else None,
    )
    value_type = list[str] if setting.type is tuple else setting.type
    return inspect.Parameter(setting.name, _KEYWORD, default=None, annotation=Annotated[value_type | None, option])


def _default_text(setting: Setting) -> str | None:
    """Return a setting's default as `--help` shows it, with those of recipes: `2e-05; small: 0.0002`."""
    if setting.default in (None, (), False):
        return setting.unset
    texts = {str(setting.default): None}  # a dict keeps the order and drops duplicates
    for name, recipe in RECIPES.items():
        for label, values in {name: recipe.values, **recipe.values_of_tasks}.items():
            if setting.name in values:
                texts[f"{label}: {values[setting.name]:g}"] = None
    return "; ".join(texts)


def name_of_task(task: str | None, train_file: Collection[str]) -> str:
    """Return the name of a known task or, with files of the user's own, its name: by default that of the first file."""
    from isinglass.tasks import TASKS, get_task

    if not train_file:
        return get_task(task or "demo").name
    stem = Path(next(iter(train_file))).name.split(".")[0].lower()
    name = task or re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-") or "texts"
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", name):
        raise ConfigError(f"{name!r} is no name for a task: letters a to z, digits, - and _ were expected.")
    if name not in TASKS:
        return name
    if task is None:
        return f"{name}-own"
    raise ConfigError(f"{name} is a task that `isinglass tasks` lists: give your own files another name.")


def check_own_files(used: Collection[str], train_file: Collection[str]) -> None:
    """Raise a ConfigError where settings about the user's own files are used without such files."""
    for name in TABLE_SETTINGS:
        if name in used and not train_file:
            raise ConfigError(f"{SETTINGS[name].flag} is for your own files: name them with --train-file.")
