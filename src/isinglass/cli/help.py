"""Draw `--help`: a panel for each group of options, within the width of the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from isinglass.config.setting import Panel

WIDEST: Final = 120  # longer lines are hard to read
_ORDER: Final = ("Arguments", *Panel, "Options", "Cluster", "Commands")


class PanelCommand(TyperCommand):
    """A command whose options stand in the panels that they name as `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels of arguments and options."""
        _write_panels(_panels_of_options(self, ctx), formatter)


class PanelGroup(TyperGroup):
    """The program: its commands stand in a panel too."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the panels of options and commands."""
        commands = [(name, command.help or "") for name, command in self.commands.items()]
        _write_panels(_panels_of_options(self, ctx) | {"Commands": commands}, formatter)


def _panels_of_options(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return title -> (spelling, help) of each option."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        title = getattr(parameter, "rich_help_panel", None) or usual
        panels.setdefault(title, []).append(parameter.get_help_record(ctx))
    return panels


def _write_panels(panels: Mapping[str, Iterable[tuple[str, str]]], formatter: Any) -> None:
    from rich.console import Console
    from rich.panel import Panel as Box
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, WIDEST)
    with console.capture() as captured:
        for title in sorted(panels, key=_ORDER.index):
            rows = Table.grid(padding=(0, 2), expand=True)
            rows.add_column(max_width=console.width * 2 // 5, overflow="fold")
            rows.add_column(ratio=1, overflow="fold")
            for spelling, meaning in panels[title]:
                rows.add_row(Text(spelling, style="bold cyan"), Text(meaning))
            console.print(Box(rows, title=title, title_align="left", border_style="dim"))
    formatter.write("\n" + captured.get())
