"""Make commands of functions: their options come from declared settings, their help is panels, their errors are one line."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from isinglass.cli.exits import errors_in_one_line
from isinglass.config import RECIPES, SETTINGS
from isinglass.config.setting import PANELS, Setting, Settings

Command = Callable[..., None]
WIDEST: Final = 120  # characters of a line of help; longer lines are hard to read
_PANELS: Final = ("Arguments", *PANELS, "Options", "Cluster", "Commands")
_DEFAULTS_OF_A_RUN: Final = {"encoding": "utf-8, and the run's for its own files"}
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY


def command(*settings: str, trains: bool = False, of_a_run: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that makes a function a command of typer, whose errors are one line.

    A parameter whose type is a group of settings becomes an option for each of them. A parameter `settings` becomes an
    option for each named setting of a run, and gets the values of those that are used: name -> value.

    Args:
        settings: names of settings of a run.
        trains: the command may be one of several processes that share a run, and shows settings in their own panels.
        of_a_run: the command takes a finished run, whose settings are the defaults.
    """

    def decorate(function: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        groups: dict[str, tuple[type, list[inspect.Parameter]]] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            group = parameter.annotation
            if name == "settings":
                defaults = {setting: _DEFAULTS_OF_A_RUN.get(setting, "the run's") for setting in settings if of_a_run}
                options = [_option(SETTINGS[one], panel=trains, default=defaults.get(one)) for one in settings]
                groups[name] = dict, options
            elif isinstance(group, type) and issubclass(group, Settings):
                groups[name] = group, [_option(setting) for setting in group.declared().values()]
            else:
                parameters.append(parameter.replace(kind=_KEYWORD))
        parameters += [option for _, options in groups.values() for option in options]

        @wraps(function)
        def run(**values: Any) -> None:
            with errors_in_one_line(shared=trains):
                for name, (group, options) in groups.items():
                    used = {option.name: values.pop(option.name) for option in options}
                    values[name] = group(**{name: value for name, value in used.items() if value not in (None, [])})
                function(**values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        return run

    return decorate


def _option(setting: Setting, *, panel: bool = True, default: str | None = None) -> inspect.Parameter:
    """Return the option of a setting. Its value is None where it is not used."""
    default = default or _default_text(setting)
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    ending = f"  [default: {default}]" if default else ""
    flag = f"{setting.flag}/--no-{setting.name}" if setting.type is bool and setting.is_optional else setting.flag
    title = setting.panel if panel else None
    option = typer.Option(flag, metavar=setting.metavar, help=f"{setting.meaning}{choices}{ending}", rich_help_panel=title)
    value_type = list[str] if setting.type is tuple else setting.type
    return inspect.Parameter(setting.name, _KEYWORD, default=None, annotation=Annotated[value_type | None, option])


def _default_text(setting: Setting) -> str | None:
    """Return a setting's default as `--help` shows it, with those of recipes: `2e-05; small: 0.0002`."""
    if setting.unset or setting.default in (None, ()):
        return setting.unset
    texts = {} if setting.default is False else {str(setting.default): None}  # a dict keeps the order and drops duplicates
    for name, recipe in RECIPES.items():
        if setting.name in recipe.chooses:
            texts[f"{name}: by the data"] = None
        for label, values in {name: recipe.values, **recipe.values_of_tasks}.items():
            if setting.name in values:
                texts[f"{label}: {values[setting.name]:g}"] = None
    return "; ".join(texts) or None


class Panels:
    """Draws `--help`: a panel for each group of options, within the width of the terminal."""

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        """Write the panels of arguments, options and, for the program itself, commands."""
        from rich.console import Console
        from rich.panel import Panel as Box
        from rich.table import Table
        from rich.text import Text

        panels: dict[str, list[tuple[str, str]]] = {}  # title -> (spelling, help) of each row
        for parameter in self.get_params(ctx):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            panels.setdefault(title, []).append(parameter.get_help_record(ctx))
        for name, command in getattr(self, "commands", {}).items():
            panels.setdefault("Commands", []).append((name, command.help or ""))
        console = Console(highlight=False, markup=False, emoji=False)
        console.width = min(console.width, WIDEST)
        with console.capture() as captured:
            for title in sorted(panels, key=_PANELS.index):
                rows = Table.grid(padding=(0, 2), expand=True)
                rows.add_column(max_width=console.width * 2 // 5, overflow="fold")
                rows.add_column(ratio=1, overflow="fold")
                for spelling, meaning in panels[title]:
                    rows.add_row(Text(spelling, style="bold cyan"), Text(meaning))
                console.print(Box(rows, title=title, title_align="left", border_style="dim"))
        formatter.write("\n" + captured.get())


class PanelCommand(Panels, TyperCommand):
    """A command whose options stand in the panels that they name as `rich_help_panel`."""


class PanelGroup(Panels, TyperGroup):
    """The program."""
