"""One run, or one calibration, in a process of its own: `python -m isinglass.bench.worker`.

The request is one JSON line on standard input, which the bench then holds open: when it closes, because the bench was
killed, this process ends at once. Answers are JSON lines on standard output: `{"progress": ...}` and at last one of
`{"result": ...}`, `{"calibration": ...}` and `{"error": ...}`. What libraries print goes to standard error.

A process a run, because Keras has one framework a process, peak memory belongs to a process, and a crash ends only it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from isinglass.bench.calibration import calibrate
from isinglass.bench.own_data import check_same, describe
from isinglass.bench.plan import test_sets
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.errors import DataError
from isinglass.executors.worker import Answers, CalibrationRequest, TrainingRequest, serve
from isinglass.results import RunResult
from isinglass.runs.directory import write_run
from isinglass.runs.finished import FinishedModel, predict_split
from isinglass.runs.prediction_files import Rows
from isinglass.storage import replacing
from isinglass.tasks import get_task
from isinglass.training.observers import ProgressObserver
from isinglass.training.scoring import Scored
from isinglass.training.trainer import TrainedRun


@dataclass(frozen=True, kw_only=True)
class RunRequest(TrainingRequest):
    """Train, predict and write one run.

    Attributes:
        start_from: the task that the first weights were fine-tuned on.
        bench: the directory of the bench; the run goes to `runs/name`.
    """

    start_from: str | None
    bench: str
    name: str
    keep_model: bool
    predict_test: bool


def perform(request: RunRequest, answer: "Answers") -> RunResult:
    """Make one run and leave it in the bench's directory; its prediction files are named relative to that."""
    bench = Path(request.bench)
    config = request.located()
    data = open_data(config)
    if config.train_file:
        check_same(describe(data), bench)
    run = request.train(config, data, [ProgressObserver(answer.progress)])
    result = dataclasses.replace(run.result, config=request.config, start_from=request.start_from)
    run = dataclasses.replace(run, result=result)
    predictions = _test_predictions(config, run) if request.predict_test else {}
    for scored in run.scored:
        write_examples(scored, bench / "examples" / f"{config.task}-{scored.split.name}.jsonl")
    result = write_run(
        run, bench / "runs" / request.name, overwrite=True, with_model=request.keep_model, predictions=predictions
    )
    located = {split: f"runs/{request.name}/{file}" for split, file in result.predictions.items()}
    return dataclasses.replace(result, predictions=located)


def _test_predictions(config: TrainConfig, run: TrainedRun) -> dict[str, Rows]:
    """Name -> rows of each test set that was not scored."""
    scored = {one.split.name for one in run.scored}
    return {
        name: predict_split(
            FinishedModel(
                checkpoint=run.trained_model(),
                config=dataclasses.replace(config, task=task),
                task=run.task if task == run.task.name else get_task(task),
            ),
            split,
        )
        for name, (task, split) in test_sets(config).items()
        if name not in scored
    }


def write_examples(scored: Scored, path: Path) -> None:
    """Texts and label of each example, one JSON object a line, whole or not at all.

    Raises:
        DataError: other examples are there already: earlier runs were scored on other data.
    """
    examples = scored.split.examples
    assert examples.labels is not None
    content = "".join(
        json.dumps({"texts": texts, "label": label}) + "\n"
        for texts, label in zip(zip(*examples.texts, strict=True), examples.labels, strict=True)
    )
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
    serve(
        {
            "run": lambda values, answers: {"result": json.loads(perform(RunRequest(**values), answers).to_json())},
            "calibrate": lambda values, _: {"calibration": dataclasses.asdict(calibrate(CalibrationRequest(**values)))},
        }
    )
