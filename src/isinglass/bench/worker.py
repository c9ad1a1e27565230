"""What a worker does for a bench: one run, or a few timed steps for an estimate. See `isinglass.executors.worker`."""

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Final

from isinglass.backends.protocol import create_backend
from isinglass.bench.own_data import check_same, describe
from isinglass.bench.plan import test_sets
from isinglass.config import PLACES, TrainConfig
from isinglass.data import open_data
from isinglass.errors import DataError, IsinglassError
from isinglass.executors.messages import Calibration, CalibrationRequest, RunFinished, RunRequest
from isinglass.executors.training import Send, train_requested
from isinglass.packing import plan_epoch
from isinglass.runs.directory import FinishedModel, write_run
from isinglass.runs.predict import predict_split
from isinglass.runs.predictions import Predictions
from isinglass.storage import replacing
from isinglass.tasks import get_task
from isinglass.training.evaluation import Scored
from isinglass.training.preparation import FirstWeights, Packer, PreparedRun, prepare_run
from isinglass.training.trainer import TrainedRun

MOST_SECONDS: Final = 5.0  # of timed steps
MOST_STEPS: Final = 20


def perform_run(request: RunRequest, directory: Path, send: Send) -> RunFinished:
    """Train, predict and write one run. Its prediction files are named relative to the bench's directory."""
    config = request.runs[0].resolve()
    data = open_data(config)
    if config.has_own_data:
        check_same(describe(data), directory)
    run = train_requested(request, config, data, send)
    requested = request.runs[0].config
    settings = run.result.config | {name: requested[name] for name in PLACES}  # the paths as the bench was given them
    result = dataclasses.replace(run.result, config=settings, start_from=request.start_from)
    run = dataclasses.replace(run, result=result)
    predictions = _predict_test_sets(run) if request.predict_test else {}
    for scored in run.scored:
        _write_examples(scored, directory / "examples" / f"{config.task}-{scored.split.name}.jsonl")
    run_dir = f"runs/{request.name}"
    result = write_run(run, directory / run_dir, overwrite=True, with_model=request.keep_model, predictions=predictions)
    files = {split: f"{run_dir}/{file}" for split, file in result.predictions.items()}
    return RunFinished(result=dataclasses.replace(result, predictions=files))


def _predict_test_sets(run: TrainedRun) -> dict[str, Predictions]:
    """Return name -> predictions of each test set that was not scored."""
    scored = {each.split.name for each in run.scored}
    predictions = {}
    for name, (task_name, split) in test_sets(run.config).items():
        if name not in scored:
            task = run.task if task_name == run.task.name else get_task(task_name)
            finished = FinishedModel(checkpoint=run.model, config=dataclasses.replace(run.config, task=task_name), task=task)
            predictions[name] = predict_split(finished, split)
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


def calibrate(request: CalibrationRequest, _directory: Path, _send: Send) -> Calibration:
    """Time a few training steps of the first run, and count the tokens of all runs' tasks."""
    train_tokens, dev_tokens, epochs = {}, {}, {}
    for inputs in reversed(request.runs):  # the first run comes last, and is the one that stays in memory
        config, directory = inputs.resolve(), inputs.first_weights
        prepared = prepare_run(config, open_data(config), FirstWeights(directory) if directory else None)
        if "epochs" in config.chosen:
            epochs[config.task] = prepared.config.epochs
        train_tokens[config.task] = int(prepared.train.tokens.lengths.sum())
        dev_tokens[config.task] = sum(int(split.tokens.lengths.sum()) for split in prepared.scored)
    tokens_per_second, compile_seconds = time_steps(prepared.config, prepared)
    return Calibration(
        tokens_per_second=tokens_per_second,
        compile_seconds=compile_seconds,
        train_tokens=train_tokens,
        dev_tokens=dev_tokens,
        epochs=epochs,
    )


def time_steps(config: TrainConfig, prepared: PreparedRun) -> tuple[float, float]:
    """Train at most MOST_STEPS steps, or MOST_SECONDS. Return real tokens per second, and seconds of compiling.

    Steps that warm up or compile are not counted.

    Raises:
        IsinglassError: no step was left to count.
    """
    tokens_of_train, labels = prepared.train.tokens, prepared.train.labels_of_rows()
    backend = create_backend(config, prepared.model, prepared.objective)
    packer = Packer(config, prepared.model)
    seconds, tokens = 0.0, 0
    # more than enough epochs: each has a step
    epochs = (plan_epoch(len(tokens_of_train), config.batch_size, seed=config.seed, epoch=i) for i in range(MOST_STEPS))
    steps = itertools.islice(itertools.chain.from_iterable(epochs), MOST_STEPS)
    for step, index in enumerate(steps):
        compiled_before = backend.compile_seconds
        started = time.perf_counter()
        batches = packer.pack_parts(tokens_of_train, index, labels, backend.parallel_batches)
        backend.train_step(batches, step=step, learning_rate=config.learning_rate)
        backend.synchronize()
        if step > 0 and backend.compile_seconds == compiled_before:
            seconds += time.perf_counter() - started
            tokens += sum(batch.num_tokens for batch in batches)
        if seconds > MOST_SECONDS:
            break
    if not seconds:
        raise IsinglassError(
            f"All of the first {MOST_STEPS} training steps warmed up or compiled: their speed is not known."
        )
    return tokens / seconds, backend.compile_seconds
