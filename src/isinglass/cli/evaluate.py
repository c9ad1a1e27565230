"""`isinglass evaluate`."""

from typing import Annotated, Any

import typer

from isinglass.cli.display import progress, show_result
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import Json, RunDir, TaskOfRun, finished_run, with_options


@with_options("data_dir", "test_file", "precision", of_a_run=True)
def evaluate(
    run_dir: RunDir,
    *,
    settings: dict[str, Any],
    task: TaskOfRun = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A labelled split; may be repeated.  [default: the dev set(s)]")
    ] = None,
    json_output: Json = False,
) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    with errors_in_one_line():
        from isinglass.data import open_data
        from isinglass.training.trainer import evaluate as run_evaluation

        finished = finished_run(run_dir, task, settings)
        data = open_data(finished.config, finished.task)
        chosen = split or (["test"] if "test_file" in settings else None)
        with progress() as observer:
            result, _ = run_evaluation(finished.config, finished.checkpoint, chosen, [observer], data=data)
        show_result(result, None, as_json=json_output)
