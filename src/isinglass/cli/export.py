"""`isinglass export`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from isinglass.cli.display import progress, show_comparison, show_export
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import DataDir, RunDir, TaskName, finished_run
from isinglass.errors import ConfigError, DataError, HubError
from isinglass.names import printable


def export(
    run_dir: RunDir,
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",  # noqa: ARG001  # the one there is
    output: Annotated[Path | None, typer.Option(help="Where it is written.  [default: RUN_DIR-onnx]")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="A quantised model too; what it loses is scored on the dev set.")
    ] = False,
    data_dir: DataDir = None,
    task: TaskName = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write a finished model as ONNX, and compare its answers on the dev set with those of the model itself."""
    with errors_in_one_line():
        from isinglass.export.compare import compare
        from isinglass.export.onnx import export_run

        finished = finished_run(run_dir, task, data_dir, None)
        exported = export_run(finished, output or run_dir.with_name(f"{run_dir.name}-onnx"), int8=int8, overwrite=overwrite)
        show_export(exported)
        try:
            with progress() as observer:
                compared = compare(finished, exported, [observer])
        except (ConfigError, DataError, HubError) as error:  # a model from elsewhere comes without its data
            print(printable(f"Not compared with the model on its dev set: {error}"), file=sys.stderr)
            return
        show_comparison(compared)
