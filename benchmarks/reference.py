"""Write docs/reference.md from the declarations: settings, recipes, commands, exit statuses."""

from typer.main import get_command

from isinglass import errors
from isinglass.cli import app
from isinglass.config import RECIPES, SETTINGS, SWITCHES, settings

GROUPS = {
    "Your own files": settings.TableSettings,
    "Data": settings.DataSettings,
    "Model": settings.ModelSettings,
    "Training": settings.TrainingSettings,
    "Optimizer": settings.OptimizerSettings,
    "Execution": settings.ExecutionSettings,
}
HEAD = """# Reference

Made by `make docs` from the declarations in `src/isinglass`.

## Settings

Values are put together in this order, later ones win: default, recipe, environment variable, config file
(`--config FILE`, TOML or JSON), flag of `isinglass train`, `--set NAME=VALUE`. A config file and `--set` reach every
setting. `--set NAME=none` takes back a number that a recipe or a config file sets."""


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def values_of(setting):
    """Return the values that a setting may take, as text."""
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    kind = {bool: "true or false", int: "whole number", float: "number", str: "text", tuple: "names"}[setting.type]
    return f"{kind}, {setting.limits.text}" if setting.limits else kind


def default_of(setting):
    if setting.unset or setting.default in (None, ()):
        return setting.unset or ""
    return f"`{str(setting.default).lower() if setting.type is bool else setting.default}`"


def flag_of(setting):
    return f"`{setting.flag}`" if setting.panel else ""


def settings_of_group(group):
    inherited = {name for base in group.__bases__ for name in getattr(base, "__dataclass_fields__", ())}
    rows = [
        [f"`{name}`", flag_of(setting), values_of(setting), default_of(setting), setting.meaning]
        for name, setting in SETTINGS.items()
        if name in group.__dataclass_fields__ and name not in inherited
    ]
    return f"{group.__doc__}\n\n{table(['setting', 'flag', 'values', 'default', 'meaning'], rows)}"


def recipes():
    rows = []
    for name, recipe in RECIPES.items():
        values = [f"`{setting}` {value:g}" for setting, value in recipe.values.items()]
        for task, others in recipe.values_of_tasks.items():
            values += [f"`{setting}` {value:g} for {task}" for setting, value in others.items()]
        rows.append([f"`{name}`", "; ".join(values), recipe.source])
    return table(["recipe", "values other than the defaults", "source"], rows)


def switches():
    rows = [
        [f"`{variable}=1`", ", ".join(f"`{name}`: `{str(value).lower()}`" for name, value in values.items())]
        for variable, values in SWITCHES.items()
    ]
    return table(["variable", "stands for"], rows)


def commands():
    """Return each command with its arguments and options, without the settings, which are listed above."""
    group = get_command(app)
    parts = []
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        records = [(parameter, parameter.get_help_record(context)) for parameter in command.params]
        own = [[f"`{spelling}`", text] for parameter, (spelling, text) in records if parameter.name not in SETTINGS]
        shared = [parameter.opts[0] for parameter in command.params if parameter.name in SETTINGS]
        parts.append(f"### isinglass {name}\n\n{command.help}")
        if own:
            parts.append(table(["argument or option", "meaning"], own))
        if shared:
            parts.append("Settings: " + ", ".join(f"`{option}`" for option in shared) + ".")
    return "\n\n".join(parts)


def exit_statuses():
    meanings = {}
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.IsinglassError) and error is not errors.IsinglassError:
            meanings.setdefault(error.exit_status, []).append(error)
    rows = [["0", "The command has done its work.", ""]]
    for status, kinds in sorted(meanings.items()):
        for kind in kinds:
            rows.append([status, kind.__doc__, f"`{kind.__name__}`"])
    rows.append(["128 + N", "The command was ended by signal N, as 130 by Ctrl-C.", ""])
    return table(["status", "meaning", "exception"], rows)


def reference():
    groups = [f"### {title}\n\n{settings_of_group(group)}" for title, group in GROUPS.items()]
    return (
        "\n\n".join(
            [
                HEAD,
                *groups,
                "## Recipes",
                recipes(),
                "## Environment variables",
                "With the backend `tensorflow`, and where neither a config file nor a flag says otherwise:",
                switches(),
                "## Commands",
                commands(),
                "## Exit statuses",
                "All exceptions are `isinglass.IsinglassError`; a message is one or two sentences on standard error.",
                exit_statuses(),
            ]
        )
        + "\n"
    )
