"""The training loop and the evaluation, read from top to bottom."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isinglass.backends.process_group import ProcessGroup, SingleProcess, in_turn, largest
from isinglass.backends.protocol import Objective, check_installed, create_backend
from isinglass.config import TrainConfig, as_dict, without_places
from isinglass.data import open_data
from isinglass.data.source import TaskData
from isinglass.errors import ConfigError, StorageError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.models.source import load_model
from isinglass.models.vocabulary import Vocabulary
from isinglass.results import RunResult
from isinglass.tasks import Task
from isinglass.training.best_epoch import BestEpoch
from isinglass.training.checkpoints import Checkpoints, TrainingState
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.loop import Loop
from isinglass.training.packer import Packer
from isinglass.training.prediction import predict
from isinglass.training.preparation import PreparedSplit, class_weights, label_order, prepare_split, with_head_for
from isinglass.training.progress import Progress, StepRecord
from isinglass.training.result import make_result
from isinglass.training.scoring import Scored, score

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """All that a run leaves: its result, its model and what led to it."""

    task: Task
    result: RunResult
    checkpoint: Checkpoint
    weights: Weights
    steps: list[StepRecord]
    scored: list[Scored]


def train(
    config: TrainConfig,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    data: TaskData | None = None,
    on_data: Callable[[Mapping[str, PreparedSplit], Task], None] = lambda *_: None,
    first_weights: str | None = None,
    checkpoints: Checkpoints | None = None,
    interruption: Interruption | None = None,
    on_epoch: Callable[[Sequence[float]], None] = lambda _: None,
    group: ProcessGroup | None = None,
) -> TrainedRun:
    """Fine-tune on a task's training set and score its dev sets, and the user's own test set if its labels are known.

    Args:
        data: the task and its examples; None: what `config` names.
        on_data: called before the first step with what will be trained on and scored.
        first_weights: the checkpoint to begin with, if not `config.model` itself but one fine-tuned from it before.
        checkpoints: written while training, and where to go on from; None: none are.
        interruption: tells that the process was asked to end: then a checkpoint is written, and Interrupted raised.
        on_epoch: where the best epoch is picked, called after each with the scores so far; what it raises ends the run.
        group: the processes that share each step, each of which calls this; None: it is this one alone. The checkpoints are
            written by process 0, and lie where all can read them.

    Raises:
        IsinglassError: of the kind that says what is wrong with the settings, the data or the model.
        Interrupted: as asked for.
    """
    check_installed(config.backend)
    group = group or SingleProcess()
    with in_turn(group):
        data = data or open_data(config)
        task = data.task
        if task.train is None:
            raise ConfigError(f"{task.title} has no training set: train mnli, then `isinglass predict RUN_DIR --task ax`.")
        best = BestEpoch(config, task)
        checkpoint, head_note = with_head_for(load_model(first_weights or config.model), task)
        order = checkpoint.label_names
        train_split = prepare_split(data, task.train, config, checkpoint, order, most=config.max_train_examples)
        dev_splits = [prepare_split(data, split, config, checkpoint, order) for split in task.dev]
        test_splits = [prepare_split(data, split, config, checkpoint, order) for split in task.test if config.train_file]
        scored_splits = [split for split in (*dev_splits, *test_splits) if split.labels is not None]
        on_data({split.name: split for split in (train_split, *dev_splits, *test_splits)}, task)
        assert train_split.labels is not None
        if config.label_smoothing and task.is_regression:
            raise ConfigError("label_smoothing is for classes: a regression has none, leave it out.")
        objective = Objective(
            kind=task.kind,
            num_outputs=task.num_outputs,
            class_weights=class_weights(config, task, train_split.labels, order),
            label_smoothing=config.label_smoothing,
        )
    texts = [split.tokens for split in (train_split, *dev_splits, *test_splits)]
    words = Vocabulary.of(config, checkpoint, texts)
    backend = create_backend(config, words.table(checkpoint), objective, group)
    packer = Packer.of(config, checkpoint, words)
    interruption = interruption or Interruption()
    loop = Loop(config, backend, packer, train_split, on_progress, group)
    identity = {} if checkpoints is None and group.size == 1 else _identity(config, checkpoint, train_split, words)
    if group.size > 1:
        alike = [identity, _digest(checkpoint.weights[name] for name in sorted(checkpoint.weights))]
        _check_alike(group, alike, "settings, data or model: start all alike, on the same files")
    if checkpoints is not None:
        state = checkpoints.load(identity)
        _check_alike(
            group,
            None if state is None else state.step,
            "checkpoints: --output-dir must lie on storage that all hosts share",
        )
        if state is not None:
            loop.restore(state)
            best.restore(state.epoch_scores, state.arrays)

    def between_batches(now: Progress) -> None:
        on_progress(now)
        if group.size == 1:  # else all stop together, between two steps
            interruption.check()

    def answers(splits: Sequence[PreparedSplit]) -> list[Scored]:
        return [
            Scored(
                split=one, outputs=predict(backend, packer, one.tokens, one.name, between_batches, group), label_order=order
            )
            for one in splits
        ]

    def judge_epoch() -> None:
        if config.picks_best and loop.step == (len(best.scores) + 1) * loop.steps_per_epoch:
            best.add([score(task, one)[0] for one in answers(dev_splits)], backend.weights())
            on_epoch(best.scores)

    def state_now() -> TrainingState:
        state = loop.state()
        return replace(state, epoch_scores=best.plain_scores(), arrays={**state.arrays, **best.arrays()})

    try:
        with interruption.deferred():
            saved = time.monotonic()
            judge_epoch()  # the last one before the run was taken up again
            steps = iter(()) if best.is_over else loop.run()
            for _ in steps:
                judge_epoch()
                asked, waited = largest(group, interruption.number, int(time.monotonic() - saved))
                if checkpoints is not None and checkpoints.every.is_due(
                    step=loop.step, steps_per_epoch=loop.steps_per_epoch, seconds=waited
                ):
                    try:
                        with loop.clock.paused():
                            if group.rank == 0:
                                checkpoints.save(state_now(), identity)
                    except StorageError as error:
                        logger.warning(f"{error} Training goes on.")
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(asked)
                if group.size == 1:  # else what came meanwhile waits for the next step, for all to know
                    interruption.check()
                if best.is_over:
                    break
            if best.weights:
                backend.load(best.weights)
            evaluation_started = time.perf_counter()
            scored = answers(scored_splits)
            evaluation_seconds = time.perf_counter() - evaluation_started
    except Interrupted as interrupted:
        if checkpoints is None or group.rank > 0:
            raise
        path = checkpoints.save(state_now(), identity)
        raise Interrupted(
            interrupted.number, f"stopped after step {loop.step} of {loop.total_steps}, saved in {path}"
        ) from None
    result = make_result(
        config,
        task,
        scored,
        backend,
        examples={split.name: len(split) for split in (train_split, *dev_splits, *test_splits)},
        epoch_seconds=loop.clock.seconds,
        evaluation_seconds=evaluation_seconds,
        trained_tokens=loop.tokens,
        truncated=train_split.tokens.truncated,
        lengths=train_split.tokens.lengths,
        notes=[
            *([f"The model {config.model} is the hub's at commit {checkpoint.commit}."] if checkpoint.commit else []),
            *data.notes,
            *train_split.notes,
            *([head_note] if head_note else []),
            *best.notes(config.epochs),
            *loop.notes,
            *loop.sharing(),
            *loop.resumptions(),
        ],
        epoch_scores=best.plain_scores(),
        group=group,
    )
    return TrainedRun(
        task=task,
        result=result,
        checkpoint=checkpoint,
        weights=words.whole(backend.weights(), checkpoint),
        steps=loop.records(),
        scored=scored,
    )


def _check_alike(group: ProcessGroup, value: Any, what: str) -> None:
    digest = hashlib.blake2b(json.dumps(value).encode()).digest()
    found = group.gather(np.frombuffer(digest, np.uint8))
    others = [rank for rank, one in enumerate(found) if not np.array_equal(one, found[0])]
    if others:
        raise ConfigError(f"Process {others[0]} of the {group.size} that share this run has other {what}.")


def _identity(config: TrainConfig, checkpoint: Checkpoint, split: PreparedSplit, words: Vocabulary) -> dict[str, Any]:
    """What the steps of a run depend on, by name: its settings but for the data's place, its data, its model's shape.

    And the words of what it scores, because the weights that a checkpoint holds are those of all words of the run.
    """
    assert split.labels is not None
    model = np.frombuffer(json.dumps(checkpoint.config_json, sort_keys=True).encode(), np.uint8)
    return without_places(as_dict(config)) | {
        "training data (digest)": _digest(
            (split.tokens.input_ids, split.tokens.token_type_ids, split.tokens.offsets, split.labels)
        ),
        "words of the training and scored data (digest)": _digest([words.ids]),
        "model config (digest)": _digest([model]),
    }


def _digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def evaluate(
    config: TrainConfig,
    checkpoint: Checkpoint,
    split_names: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    data: TaskData | None = None,
) -> tuple[RunResult, list[Scored]]:
    """Score a finished model on labelled splits of its task: the dev sets unless others are named.

    Labels are matched by name, through the checkpoint's `id2label`.

    Args:
        data: the task and its examples; None: what `config` names.
    """
    check_installed(config.backend)
    data = data or open_data(config)
    task = data.task
    order = label_order(checkpoint, task)
    splits = task.dev if split_names is None else tuple(task.split(name) for name in split_names)
    for split in splits:
        if split.label_column is None:
            raise ConfigError(f"{task.title}'s {split.name} set hides its labels: use `isinglass predict`.")
    if not splits:
        raise ConfigError(f"{task.title} has no labelled set: use `isinglass predict`.")
    prepared = [prepare_split(data, split, config, checkpoint, order) for split in splits]
    for one in prepared:
        if one.labels is None:
            raise ConfigError(f"{one.examples.origin} has no labels to score by: use `isinglass predict`.")
    backend = create_backend(config, checkpoint, Objective.of(task))
    packer = Packer.of(config, checkpoint)
    started = time.perf_counter()
    scored = [
        Scored(split=split, outputs=predict(backend, packer, split.tokens, split.name, on_progress), label_order=order)
        for split in prepared
    ]
    result = make_result(
        config,
        task,
        scored,
        backend,
        examples={split.name: len(split) for split in prepared},
        epoch_seconds=[],
        evaluation_seconds=time.perf_counter() - started,
        trained_tokens=0,
        truncated=sum(s.tokens.truncated for s in prepared),
        lengths=np.concatenate([s.tokens.lengths for s in prepared]),
        notes=[*data.notes, *(note for split in prepared for note in split.notes)],
    )
    return result, scored
