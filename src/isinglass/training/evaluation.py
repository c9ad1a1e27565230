"""Use a model on splits of a task: predict them batch by batch, score the outputs, and put a run's figures together."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend, Objective, check_installed, create_backend
from isinglass.config import TrainConfig, as_dict
from isinglass.data import open_data
from isinglass.data.examples import Source
from isinglass.data.tokenization import TokenizedTexts
from isinglass.errors import ConfigError, DeviceMemoryError
from isinglass.metrics import Metric, Values, scores
from isinglass.models.checkpoint import Checkpoint
from isinglass.packing import PackedBatch
from isinglass.results import REPEATED_SETTINGS, RunResult, Score, installed_versions, source_commit
from isinglass.tasks import MULTILABEL, Split, Task
from isinglass.tasks.kinds import EVEN, Kind
from isinglass.training.checkpoints import TrainingState
from isinglass.training.observers import REPORT_SECONDS, Observers, Progress
from isinglass.training.preparation import Packer, PreparedSplit, label_order, prepare_split

Outputs = Float32[np.ndarray, "N outputs"]
"""Logits, or the value of a regression."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One split with the model's outputs.

    Attributes:
        outputs: float32 (N, num_outputs), logits or the value, in the order of the file.
        label_order: name of each output; None for regression.
        seconds: that the prediction took.
        threshold: probability above which an example of a multi-label task has a label.
    """

    split: PreparedSplit
    outputs: Outputs
    label_order: tuple[str, ...] | None
    seconds: float
    threshold: float = EVEN

    def decide(self, kind: Kind) -> Values:
        """Return the predictions, as the metrics take them."""
        return kind.decide(self.outputs, self.threshold)

    def probabilities_and_truth(self, kind: Kind) -> tuple[Float64[np.ndarray, "N K"], Values]:
        """Return the probability of each label, and the labels of a split that has them as the metrics take them."""
        assert self.split.labels is not None
        return kind.probabilities(self.outputs), kind.truth(self.split.labels)


def evaluate(
    config: TrainConfig,
    model: Checkpoint,
    split_names: Sequence[str] | None = None,
    observers: Observers = (),
    *,
    data: Source | None = None,
) -> tuple[RunResult, list[Scored]]:
    """Score a finished model on labelled splits of its task. Labels are matched by name, through the model's `id2label`.

    Args:
        split_names: None: the dev sets.
        data: the task and its examples; None: what `config` names.

    Raises:
        ConfigError: there is no such split, or its labels are hidden.
        CheckpointError: the model's labels are not the task's.
    """
    check_installed(config.backend)
    data = data or open_data(config)
    model = replace(model, label_names=label_order(model, data.task))
    splits = [prepare_split(data, split, config, model) for split in _labelled_splits(data, split_names)]
    for split in splits:
        if split.labels is None:
            raise ConfigError(f"{split.examples.origin} has no labels to score by: use `isinglass predict`.")
    backend = create_backend(config, model, Objective.of(data.task))
    scored = predict_splits(backend, Packer(config, model), splits, observers)
    state = TrainingState(notes=[*data.notes, *(note for split in splits for note in split.examples.notes)])
    result = make_result(config, data.task, backend, scored, splits, state)
    return replace(result, dataset=data.dataset), scored


def _labelled_splits(data: Source, names: Sequence[str] | None) -> Sequence[Split]:
    task = data.task
    splits = task.dev if names is None else [task.split(name) for name in names]
    for split in splits:
        if split.label_column is None:
            raise ConfigError(data.why_unlabelled(split))
    if not splits:
        raise ConfigError(f"{task.title} has no labelled set: use `isinglass predict`.")
    return splits


def predict(
    backend: Backend,
    packer: Packer,
    tokens: TokenizedTexts,
    name: str,
    observers: Observers = (),
    group: ProcessGroup = ProcessGroup(),
) -> Outputs:
    """Return the model's outputs for all examples, in the order of their file.

    A batch that does not fit into memory is halved. A text read in windows gets the mean of their outputs. The processes of
    a group share the batches, and each returns all outputs.

    Args:
        name: of the split, for the observers.

    Raises:
        DeviceMemoryError: a single example does not fit into memory.
    """
    parallel = at_once = backend.parallel_batches
    pending = packer.evaluation_batches(tokens, parallel)[group.rank :: group.size]
    total = sum(batch.num_examples for batch in pending)
    done = tokens_done = 0
    outputs: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    began = reported = time.perf_counter()
    while pending:
        started = time.perf_counter()
        batches = pending[:at_once]
        del pending[:at_once]
        try:
            predicted = backend.predict(batches)
        except DeviceMemoryError as error:
            parallel = at_once = 1
            pending[:0] = _retry(packer, tokens, batches, error)
            continue
        outputs += zip((batch.example_index for batch in batches), predicted, strict=True)
        done += sum(map(len, predicted))
        tokens_done += sum(batch.num_tokens for batch in batches)
        now = time.perf_counter()
        if done == total or now - reported >= REPORT_SECONDS:
            reported = now
            speed = tokens_done / (now - began)
            progress = Progress(stage=f"evaluate {name}", done=done, total=total, tokens_per_second=speed)
            for observer in observers:
                observer.on_prediction_step(progress)
        if now - started < REPORT_SECONDS:
            at_once *= min(parallel, 2)  # so that parallel threads seldom wait for each other
    return tokens.per_text(_gather(outputs, len(tokens), done, group))


def _retry(
    packer: Packer, tokens: TokenizedTexts, batches: list[PackedBatch], error: DeviceMemoryError
) -> list[PackedBatch]:
    """Return what to predict one by one instead of batches that did not fit into memory together: a single one in halves.

    Raises:
        DeviceMemoryError: it is a single example.
    """
    if len(batches) > 1:
        logger.warning(f"{error} Batches are predicted one at a time from here on.")
        return batches
    (batch,) = batches
    if batch.num_examples == 1:
        raise error
    logger.warning(f"{error} The batch is halved.")
    return [packer.pack(tokens, half, None) for half in np.array_split(batch.example_index, 2)]


def _gather(
    outputs: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], rows: int, predicted: int, group: ProcessGroup
) -> Outputs:
    """Return the outputs of all processes as one array; in that of each, what others predict is 0.

    Args:
        outputs: of each batch of this process, the numbers of its examples (S,) and their outputs (S, outputs).
    """
    width = outputs[0][1].shape[1] if outputs else 0  # there may be fewer batches than processes
    shares = group.gather(np.array([predicted, width]))
    assert sum(int(share[0]) for share in shares) == rows, "every example is predicted once"
    own = np.zeros((rows, max(int(share[1]) for share in shares)), np.float32)
    for index, values in outputs:
        own[index] = values
    total: Outputs = np.sum(group.gather(own), axis=0)
    return total


def predict_splits(
    backend: Backend,
    packer: Packer,
    splits: Sequence[PreparedSplit],
    observers: Observers = (),
    group: ProcessGroup = ProcessGroup(),
) -> list[Scored]:
    """Return the splits with the model's outputs for them."""
    scored = []
    for split in splits:
        started = time.perf_counter()
        outputs = predict(backend, packer, split.tokens, split.name, observers, group)
        seconds = time.perf_counter() - started
        model = packer.model
        scored.append(
            Scored(
                split=split,
                outputs=outputs,
                label_order=model.label_names,
                seconds=seconds,
                threshold=model.threshold,
            )
        )
    return scored


def score(task: Task, scored: Scored) -> dict[Metric, Score]:
    """Score the outputs of a split, and the baseline of its task."""
    assert scored.split.labels is not None
    order = scored.label_order or ()
    positive = order.index(task.positive_label) if task.positive_label in order else 0
    truth = task.kind.truth(scored.split.labels)
    found = scores(task.metrics, truth, scored.decide(task.kind), positive)
    baseline = scores(task.metrics, truth, task.kind.constant(truth), positive)
    return {metric: Score.of(found[metric], baseline[metric]) for metric in task.metrics}


def make_result(
    config: TrainConfig,
    task: Task,
    backend: Backend,
    scored: Sequence[Scored],
    splits: Sequence[PreparedSplit],
    state: TrainingState,
) -> RunResult:
    """Score the outputs, and put a run's figures together.

    Args:
        splits: all that were read, after training the training set first.
        state: after the last step, with all notes; without training, that of its beginning.
    """
    train_seconds = sum(state.epoch_seconds)
    texts = [split.tokens for split in (splits[:1] if train_seconds else splits)]
    lengths = np.concatenate([tokens.lengths for tokens in texts])
    return RunResult(
        task=task.name,
        precision=backend.precision,
        xla=config.xla or config.backend == "jax",
        scores={each.split.name: score(task, each) for each in scored},
        collapsed=any(task.kind.is_collapsed(each.decide(task.kind)) for each in scored),
        examples={split.name: len(split) for split in splits},
        train_seconds=train_seconds,
        epoch_seconds=state.epoch_seconds,
        compile_seconds=backend.compile_seconds,
        compilations=backend.compilations,
        evaluation_seconds=sum(each.seconds for each in scored),
        examples_per_second=len(splits[0]) * len(state.epoch_seconds) / train_seconds if train_seconds else 0.0,
        tokens_per_second=state.tokens / train_seconds if train_seconds else 0.0,
        truncated_share=sum(tokens.truncated for tokens in texts) / len(lengths),
        padding_avoided=1 - float(lengths.sum()) / (len(lengths) * config.max_length),
        train_lengths=np.bincount(lengths).tolist() if train_seconds else [],
        peak_memory_bytes=backend.peak_memory_bytes(),
        device=backend.device if state.processes == 1 else f"{state.processes} processes, each on {backend.device}",
        versions=installed_versions(),
        git_commit=source_commit(),
        config=as_dict(config),
        start_from=None,
        predictions={},
        **{name: getattr(config, name) for name in REPEATED_SETTINGS},
        notes=[*state.notes, *backend.notes, *([task.warning] if task.warning else [])],
        epoch_scores=state.epoch_scores,
        processes=state.processes,
        parts=state.parts,
        resumed_at=state.resumed_at,
        threshold=scored[0].threshold if scored and task.kind is MULTILABEL else None,
    )
