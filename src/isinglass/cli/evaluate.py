"""`isinglass evaluate`."""

from typing import Annotated

import typer

from isinglass.cli.display import progress, show_result
from isinglass.cli.exits import errors_in_one_line
from isinglass.cli.options import DataDir, Json, RunDir, TaskName, TestFile, finished_run


def evaluate(
    run_dir: RunDir,
    data_dir: DataDir = None,
    test_file: TestFile = None,
    task: TaskName = None,
    split: Annotated[list[str] | None, typer.Option(help="A labelled split.  [default: the dev set(s)]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or fp16.  [default: the run's]")] = None,
    json_output: Json = False,
) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    with errors_in_one_line():
        from isinglass.data import open_data
        from isinglass.training.evaluation import evaluate as run_evaluation

        finished = finished_run(run_dir, task, data_dir, precision, test_file)
        data = open_data(finished.config, finished.task)
        chosen = split or (["test"] if test_file else None)
        with progress() as observer:
            result, _ = run_evaluation(finished.config, finished.checkpoint, chosen, [observer], data=data)
        show_result(result, None, as_json=json_output)
