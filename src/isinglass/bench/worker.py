"""One run, or one calibration, in a process of its own: `python -m isinglass.bench.worker`.

The request is one JSON line on standard input, which the bench then holds open: when it closes, because the bench was
killed, this process ends at once. Answers are JSON lines on standard output: `{"progress": ...}` and at last one of
`{"result": ...}`, `{"calibration": ...}` and `{"error": ...}`. What libraries print goes to standard error.

A process a run, because Keras has one framework a process, peak memory belongs to a process, and a crash ends only it.
"""

import dataclasses
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from isinglass.backends.objective import Objective
from isinglass.backends.registry import create_backend
from isinglass.bench.own_data import check_same, describe
from isinglass.bench.plan import Calibration, test_sets
from isinglass.bench.stored_checkpoints import stored_checkpoints
from isinglass.config import TrainConfig, resolve
from isinglass.data import open_data
from isinglass.errors import DataError, IsinglassError
from isinglass.models.source import load_model
from isinglass.packing import plan_epoch
from isinglass.results import RunResult
from isinglass.runs.loading import FinishedModel
from isinglass.runs.prediction_files import Rows
from isinglass.runs.predictor import predict_split
from isinglass.runs.writing import write_run
from isinglass.storage import replacing
from isinglass.tasks import get_task
from isinglass.training.checkpoints import Checkpoints, Interval
from isinglass.training.labels import with_head_for
from isinglass.training.packer import Packer
from isinglass.training.preparation import prepare_split
from isinglass.training.progress import Progress, ProgressObserver
from isinglass.training.scoring import Scored
from isinglass.training.trainer import TrainedRun, train

CALIBRATION_SECONDS: Final = 5.0
CALIBRATION_STEPS: Final = 20


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What there is to train, and what this process finds elsewhere than the settings say.

    Attributes:
        config: settings, as `config.as_dict` has them; the result repeats them.
        first_weights: the directory of the model to begin with; None: where the settings say.
        places: settings of data to take instead of those of `config`: where a copy lies.
        checkpoints, checkpoint_every: the directory, or URL, of checkpoints, and how often one is written; None: never.
    """

    config: dict[str, Any]
    first_weights: str | None = None
    places: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoints: str | None = None
    checkpoint_every: str = "never"

    def located(self) -> TrainConfig:
        """The settings to train by: the data from where they are."""
        return config_from(self.config | self.places)

    def kept(self) -> Checkpoints | None:
        """The checkpoints, to go on from if there are any."""
        if self.checkpoints is None:
            return None
        every = Interval.parse(self.checkpoint_every)
        if "://" in self.checkpoints:
            return stored_checkpoints(self.checkpoints, every)
        directory = Path(self.checkpoints)
        return Checkpoints(directory=directory, every=every, resume=directory.is_dir())


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


@dataclass(frozen=True, kw_only=True)
class CalibrationRequest:
    """Time a few steps of the first task, and count the tokens of all."""

    configs: list[dict[str, Any]]


def perform(request: RunRequest, answer: "Answers") -> RunResult:
    """Make one run and leave it in the bench's directory; its prediction files are named relative to that."""
    bench = Path(request.bench)
    config = request.located()
    data = open_data(config)
    if config.train_file:
        check_same(describe(data), bench)
    observers = [ProgressObserver(answer.progress)]
    run = train(config, observers, data=data, first_weights=request.first_weights, checkpoints=request.kept())
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


def calibrate(request: CalibrationRequest) -> Calibration:
    """Train a few steps of the first configuration's task, as many as fit in CALIBRATION_SECONDS."""
    configs = [config_from(values) for values in request.configs]
    train_tokens, dev_tokens = {}, {}
    first = configs[0]
    for config in configs[::-1]:  # the first task's split and checkpoint are what the loop leaves
        data = open_data(config)
        task = data.task
        checkpoint, _ = with_head_for(load_model(config.model), task)
        most = config.max_train_examples
        splits = [
            prepare_split(data, s, config, checkpoint, checkpoint.label_names, most=most if s is task.train else None)
            for s in task.splits
            if s.label_column is not None
        ]
        assert task.train is not None
        train_tokens[task.name] = sum(int(s.tokens.lengths.sum()) for s in splits if s.name == task.train.name)
        dev_tokens[task.name] = sum(int(s.tokens.lengths.sum()) for s in splits if s.name != task.train.name)
    split = next(s for s in splits if task.train is not None and s.name == task.train.name)
    backend = create_backend(first, checkpoint, Objective.of(task))
    packer = Packer.of(first, checkpoint)
    seconds = tokens = 0.0
    epochs = (plan_epoch(len(split.tokens), first.batch_size, seed=first.seed, epoch=epoch) for epoch in itertools.count())
    for step, index in enumerate(itertools.islice(itertools.chain.from_iterable(epochs), CALIBRATION_STEPS)):
        compiling = backend.compile_seconds
        started = time.perf_counter()
        batches = packer.pack_parts(split.tokens, index, split.labels, backend.parallel_batches)
        backend.train_step(batches, step=step, learning_rate=first.learning_rate)
        backend.synchronize()
        if step > 0 and backend.compile_seconds == compiling:  # a step that warms up or compiles is not the run's speed
            seconds += time.perf_counter() - started
            tokens += sum(batch.num_tokens for batch in batches)
        if seconds > CALIBRATION_SECONDS:
            break
    return Calibration(
        tokens_per_second=tokens / seconds,
        compile_seconds=backend.compile_seconds,
        train_tokens=train_tokens,
        dev_tokens=dev_tokens,
    )


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


def config_from(values: dict[str, Any]) -> TrainConfig:
    """The inverse of `config.as_dict`."""
    return resolve(
        task=values["task"], recipe=values["recipe"], flags={k: v for k, v in values.items() if k not in ("task", "recipe")}
    )


class Answers:
    """Lines to the bench."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def progress(self, now: Progress) -> None:
        """Where the run stands."""
        self.send(progress=dataclasses.asdict(now))

    def send(self, **message: Any) -> None:
        """One message, at once."""
        self._lines.write(json.dumps(message) + "\n")
        self._lines.flush()


def _end_with_the_bench() -> None:
    os.read(0, 1)  # not sys.stdin, whose buffer Python must be able to close when it ends
    os._exit(1)


def serve(kinds: Mapping[str, Callable[[dict[str, Any], Answers], dict[str, Any]]]) -> None:
    """Read the one request, `{KIND: ...}`, do it, and answer with what its kind gives."""
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    ((kind, values),) = json.loads(sys.stdin.readline()).items()
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    try:
        answers.send(**kinds[kind](values, answers))
    except (IsinglassError, OSError, MemoryError) as error:
        answers.send(error=str(error) or type(error).__name__)
        sys.exit(2)


if __name__ == "__main__":
    serve(
        {
            "run": lambda values, answers: {"result": json.loads(perform(RunRequest(**values), answers).to_json())},
            "calibrate": lambda values, _: {"calibration": dataclasses.asdict(calibrate(CalibrationRequest(**values)))},
        }
    )
