"""`isinglass export`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isinglass.cli.display import show_comparison, show_export
from isinglass.cli.options import FinishedRunOptions, RunDir, command
from isinglass.cli.progress import progress
from isinglass.config.setting import setting
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import printable


@dataclass(frozen=True, kw_only=True)
class ExportOptions(FinishedRunOptions):
    """What to write, and where."""

    to: Literal["onnx"] = setting("onnx")
    """Format to write."""
    output: Path | None = setting(None, metavar="DIR", unset="RUN_DIR-onnx")
    """Directory to write."""
    int8: bool = setting(False)
    """Write a quantized model too, and score what it loses on the dev set."""
    overwrite: bool = setting(False)
    """Replace an earlier export."""


@command("data_dir", of_a_run=True)
def export(run_dir: RunDir, options: ExportOptions, settings: dict[str, Any]) -> None:
    """Write a finished model as ONNX, and compare its predictions on the dev set with those of the model itself."""
    from isinglass.export.compare import compare
    from isinglass.export.onnx import export_run

    finished = options.load(run_dir, settings)
    directory = options.output or run_dir.with_name(f"{run_dir.name}-onnx")
    exported = export_run(finished, directory, int8=options.int8, overwrite=options.overwrite)
    show_export(exported)
    try:
        with progress() as observer:
            compared = compare(finished, exported, [observer])
    except (ConfigError, DataError, HubError) as error:  # a model from elsewhere comes without its data
        print(printable(f"Not compared with the model on its dev set: {error}"), file=sys.stderr)
        return
    show_comparison(compared)
