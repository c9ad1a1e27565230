"""The worker of a bench: performs one run, or one calibration. See `isinglass.executors.worker`."""

import dataclasses
import json
from pathlib import Path

from isinglass.bench.calibration import calibrate
from isinglass.bench.own_data import check_same, describe
from isinglass.bench.plan import test_sets
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.errors import DataError
from isinglass.executors.messages import CalibrationRequest, RunFinished, RunRequest
from isinglass.executors.worker import Send, serve, train_requested
from isinglass.runs.directory import Rows, write_run
from isinglass.runs.finished import FinishedModel, predict_split
from isinglass.storage import replacing
from isinglass.tasks import get_task
from isinglass.training.scoring import Scored
from isinglass.training.trainer import TrainedRun


def perform_run(request: RunRequest, directory: Path, send: Send) -> RunFinished:
    """Train, predict and write one run. Its prediction files are named relative to the bench's directory."""
    config = request.run.resolve()
    data = open_data(config)
    if config.train_file:
        check_same(describe(data), directory)
    run = train_requested(request, config, data, send)
    result = dataclasses.replace(run.result, config=request.run.config, start_from=request.start_from)
    run = dataclasses.replace(run, result=result)
    predictions = _predict_test_sets(config, run) if request.predict_test else {}
    for scored in run.scored:
        _write_examples(scored, directory / "examples" / f"{config.task}-{scored.split.name}.jsonl")
    run_dir = f"runs/{request.name}"
    result = write_run(run, directory / run_dir, overwrite=True, with_model=request.keep_model, predictions=predictions)
    files = {split: f"{run_dir}/{file}" for split, file in result.predictions.items()}
    return RunFinished(result=dataclasses.replace(result, predictions=files))


def _predict_test_sets(config: TrainConfig, run: TrainedRun) -> dict[str, Rows]:
    """Return name -> rows of each test set that was not scored."""
    scored = {each.split.name for each in run.scored}
    predictions = {}
    for name, test_set in test_sets(config).items():
        if name in scored:
            continue
        task = run.task if test_set.task == run.task.name else get_task(test_set.task)
        finished = FinishedModel(checkpoint=run.model, config=dataclasses.replace(config, task=task.name), task=task)
        predictions[name] = predict_split(finished, test_set.split)
    return predictions


def _write_examples(scored: Scored, path: Path) -> None:
    """Write texts and label of each example, one JSON object a line.

    Raises:
        DataError: the file exists with other examples: earlier runs were scored on other data.
    """
    examples = scored.split.examples
    assert examples.labels is not None
    rows = zip(zip(*examples.texts, strict=True), examples.labels, strict=True)
    content = "".join(json.dumps({"texts": texts, "label": label}) + "\n" for texts, label in rows)
    if path.exists():
        if path.read_text(encoding="utf-8") != content:
            raise DataError(
                f"{examples.origin} has changed since earlier runs of this bench were scored on it: use a new --output."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    serve({RunRequest: perform_run, CalibrationRequest: calibrate})
