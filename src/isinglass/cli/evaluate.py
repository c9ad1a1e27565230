"""`isinglass evaluate`."""

from dataclasses import dataclass
from typing import Any

from isinglass.cli.display import show_result
from isinglass.cli.options import FinishedRunOptions, RunDir, command
from isinglass.cli.progress import progress
from isinglass.config.setting import setting


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(FinishedRunOptions):
    """What to score, and how to show it."""

    split: tuple[str, ...] = setting((), unset="the dev set(s)")
    """Labelled split to score; may be repeated."""
    json: bool = setting(False)
    """Print one JSON object, and nothing else, on standard output."""


@command("data_dir", "test_file", "precision", of_a_run=True)
def evaluate(run_dir: RunDir, options: EvaluateOptions, settings: dict[str, Any]) -> None:
    """Score a finished model on a task's dev set(s), labels matched by name."""
    from isinglass.data import open_data
    from isinglass.training.trainer import evaluate as run_evaluation

    finished = options.load(run_dir, settings)
    data = open_data(finished.config, finished.task)
    splits = options.split or (["test"] if "test_file" in settings else None)
    with progress() as observer:
        result, _ = run_evaluation(finished.config, finished.checkpoint, splits, [observer], data=data)
    show_result(result, None, as_json=options.json)
