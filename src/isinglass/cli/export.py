"""`isinglass export`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isinglass.cli.display import progress, show_comparison, show_export
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import RunDir, TaskOfRun, finished_run, with_options
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import printable


@with_options("data_dir", of_a_run=True)
def export(
    run_dir: RunDir,
    *,
    settings: dict[str, Any],
    to: Annotated[Literal["onnx"], typer.Option(help="Format to write.")] = "onnx",  # noqa: ARG001  # the only format
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory to write.  [default: RUN_DIR-onnx]")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write a quantized model too, and score what it loses on the dev set.")
    ] = False,
    task: TaskOfRun = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write a finished model as ONNX, and compare its answers on the dev set with those of the model itself."""
    with errors_in_one_line():
        from isinglass.export.compare import compare
        from isinglass.export.onnx import export_run

        finished = finished_run(run_dir, task, settings)
        exported = export_run(finished, output or run_dir.with_name(f"{run_dir.name}-onnx"), int8=int8, overwrite=overwrite)
        show_export(exported)
        try:
            with progress() as observer:
                compared = compare(finished, exported, [observer])
        except (ConfigError, DataError, HubError) as error:  # a model from elsewhere comes without its data
            print(printable(f"Not compared with the model on its dev set: {error}"), file=sys.stderr)
            return
        show_comparison(compared)
