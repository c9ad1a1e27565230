"""From settings to what can be trained on. A user's mistakes are found here, before the first step."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Float64, Int64

from isinglass.backends.protocol import Objective
from isinglass.config import TrainConfig
from isinglass.data.examples import Examples, Source, encode_labels
from isinglass.data.tokenization import TokenizedTexts, tokenize
from isinglass.errors import CheckpointError, ConfigError
from isinglass.metrics import Metric
from isinglass.models.blueprint import HEAD_OUTPUT
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.source import load_model
from isinglass.models.vocabulary import Vocabulary
from isinglass.names import brief, did_you_mean, shortened
from isinglass.packing import PackedBatch, pack_flat, pack_rows, plan_evaluation, row_counts, shard_step
from isinglass.results import HubData
from isinglass.tasks import MULTILABEL, Labels, Split, Task
from isinglass.training.choice import Facts, choose

MAX_NAMED: Final = 64  # examples that a message names
ROW_MULTIPLE: Final = 8  # in the rows layout L is `max_length` rounded up to a multiple of this

Index = Int64[np.ndarray, " S"]
"""Numbers of tokenized rows: the examples of a batch."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedSplit:
    """One split with N examples, tokenized into M rows: M is more than N where long texts are read in windows.

    Attributes:
        labels: int64 (N,) in the order of the model's outputs, float32 (N,) or float32 (N, outputs); None where hidden.
    """

    name: str
    examples: Examples
    tokens: TokenizedTexts
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.examples)

    def labels_of_rows(self) -> Labels | None:
        """Return the label of each tokenized row, (M,) or (M, outputs): a window has the label of its text."""
        if self.labels is None or self.tokens.source is None:
            return self.labels
        labels: Labels = self.labels[self.tokens.source]
        return labels

    def where(self, rows: Index) -> str:
        """Return files and lines of the examples of these tokenized rows, for messages."""
        index = rows if self.tokens.source is None else np.unique(self.tokens.source[rows])
        examples, named = self.examples, sorted(index)[:MAX_NAMED]
        if examples.origins:  # several files
            places = "; ".join(map(examples.where, named))
        else:
            numbers = ", ".join(str(examples.line_numbers[i]) for i in named)
            places = f"{examples.origin}, {examples.unit}s {numbers}"
        omitted = len(index) - len(named)
        return f"{places} and {omitted} more" if omitted else places


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """All that a run begins with.

    Attributes:
        config: the settings, those that the recipe chooses included.
        model: the model to begin with; its head may be missing.
        metric: what picks the best epoch.
        notes: what a reader of the result should know.
        dataset: the data set of the hub that the examples come from, if they do.
        start_from: name of the task on which the model had been fine-tuned before; None: it is `config.model` itself.
        train_vectors: float32 (N, H), what the head reads of the training examples before fine-tuning; None: not computed.
    """

    config: TrainConfig
    task: Task
    model: Checkpoint
    train: PreparedSplit
    dev: tuple[PreparedSplit, ...]
    test: tuple[PreparedSplit, ...]
    objective: Objective
    metric: Metric
    notes: tuple[str, ...]
    dataset: HubData | None = None
    start_from: str | None = None
    train_vectors: Float32[np.ndarray, "N H"] | None = None

    @property
    def splits(self) -> tuple[PreparedSplit, ...]:
        """All splits: train, dev, test."""
        return (self.train, *self.dev, *self.test)

    @property
    def scored(self) -> tuple[PreparedSplit, ...]:
        """The splits that the finished model is scored on."""
        return tuple(split for split in (*self.dev, *self.test) if split.labels is not None)


@dataclass(frozen=True)
class FirstWeights:
    """A model that was fine-tuned from the one that the settings name.

    Attributes:
        directory: of the model.
        task: name of the task on which it was fine-tuned; None: the result does not say it.
    """

    directory: str
    task: str | None = None


def prepare_run(config: TrainConfig, data: Source, first_weights: FirstWeights | None = None) -> PreparedRun:
    """Read, check and tokenize the data of a run, and load the model that it begins with.

    A test set is prepared only if it is the user's own.

    Raises:
        IsinglassError: settings, data and model do not fit each other, or one of them is missing or damaged.
    """
    task = data.task
    if task.train is None:
        raise ConfigError(f"{task.title} has no training set: train mnli, then `isinglass predict RUN_DIR --task ax`.")
    model, notes = with_head_for(load_model(first_weights.directory if first_weights else config.model), task)
    if config.chosen:
        config, sentence = choose(config, _facts(config, data, model))
        notes.append(sentence)
    metric = selection_metric(config, task)
    train = prepare_split(data, task.train, config, model, most=config.max_train_examples)
    dev = tuple(prepare_split(data, split, config, model) for split in task.dev)
    test_splits = task.test if config.has_own_data else ()
    test = tuple(prepare_split(data, split, config, model) for split in test_splits)
    assert train.labels is not None
    if config.label_smoothing and model.label_names is None:
        raise ConfigError("label_smoothing is for classes: a regression has none, leave it out.")
    objective = Objective(
        kind=task.kind.name,
        num_outputs=task.num_outputs,
        class_weights=class_weights(config.class_weights, task, train.labels, model.label_names),
        label_smoothing=config.label_smoothing,
    )
    notes = [*data.notes, *train.examples.notes, *notes]
    if model.commit:
        notes.insert(0, f"The model {config.model} is the hub's at commit {model.commit}.")
    return PreparedRun(
        config=config,
        task=task,
        model=model,
        train=train,
        dev=dev,
        test=test,
        objective=objective,
        metric=metric,
        notes=tuple(notes),
        dataset=data.dataset,
        start_from=first_weights.task if first_weights else None,
    )


def _facts(config: TrainConfig, data: Source, model: Checkpoint) -> Facts:
    """Return what the recipe `auto` chooses by. The training texts are tokenized without being cut for it."""
    task = data.task
    assert task.train is not None
    limit = model.blueprint.max_length if "max_length" in config.chosen else config.max_length
    uncut = prepare_split(data, task.train, replace(config, max_length=limit), model, most=config.max_train_examples)
    return Facts(
        blueprint=model.blueprint,
        lengths=uncut.tokens.lengths,
        dev_rows=sum(len(data.read(split)) for split in task.dev),
        has_head=model.num_outputs is not None,
        is_multilabel=task.kind is MULTILABEL,
    )


def prepare_split(
    data: Source, split: Split, config: TrainConfig, model: Checkpoint, *, most: int | None = None
) -> PreparedSplit:
    """Read, check and tokenize one split of a task.

    Args:
        model: its label names are those of the task, in the order of its outputs.
        most: the largest number of rows to use; they are drawn by `config.split_seed` and stay in their order.
    """
    examples = data.read(split)
    if most is not None and most < len(examples):
        drawn = np.random.default_rng([config.split_seed, len(examples)]).choice(len(examples), most, replace=False)
        note = f"{most:,} of {len(examples):,} rows of {split.name} are used, drawn at random."
        examples = replace(examples.take(np.sort(drawn)), notes=(*examples.notes, note))
    labels = None if examples.labels is None else encode_labels(examples, data.task, model.label_names)
    tokens = prepare_texts(examples, config, model)
    return PreparedSplit(name=split.name, examples=examples, tokens=tokens, labels=labels)


def prepare_texts(examples: Examples, config: TrainConfig, model: Checkpoint, *, keep: bool = True) -> TokenizedTexts:
    """Tokenize texts, and check that tokenizer and model fit each other.

    Args:
        keep: whether to store the tokens in the cache.

    Raises:
        ConfigError: `max_length` is more than the model has positions for.
        CheckpointError: the tokenizer gives ids that the model has no embedding for.
    """
    encoder = model.blueprint
    if config.max_length > encoder.max_length:
        raise ConfigError(
            f"max_length is {config.max_length}; {model.origin} has positions for {encoder.max_length} tokens."
        )
    tokens = tokenize(examples, model.tokenizer_json, config.max_length, window_overlap=config.overlap, keep=keep)
    largest_id = int(tokens.input_ids.max(initial=0))
    V = encoder.embeddings.vocab_size
    if largest_id >= V:
        raise CheckpointError(f"{model.origin}: tokenizer.json gives the id {largest_id}; config.json has vocab_size {V}.")
    token_types = int(tokens.token_type_ids.max(initial=0)) + 1
    if token_types > encoder.embeddings.token_types > 0:
        raise CheckpointError(
            f"{model.origin}: tokenizer.json gives {token_types} token types; config.json has type_vocab_size "
            f"{encoder.embeddings.token_types}."
        )
    return tokens


def selection_metric(config: TrainConfig, task: Task) -> Metric:
    """Return the metric by which epochs, and trials of a search, are compared.

    Raises:
        ConfigError: the task does not have it, or has no dev set although the best epoch is to be picked.
    """
    metric = config.best_metric or task.metrics[0]
    if metric not in task.metrics:
        hint = did_you_mean(metric, task.metrics)
        raise ConfigError(f"best_metric is {metric!r}{hint}; {task.title} has {', '.join(task.metrics)}.")
    if config.picks_best and not task.dev:
        raise ConfigError(f"{task.title} has no dev set that could tell which epoch is the best.")
    return Metric(metric)


def with_head_for(checkpoint: Checkpoint, task: Task) -> tuple[Checkpoint, list[str]]:
    """Return the model with a head that fits the task, and notes: whether its own output layer was dropped.

    A head whose label names are the task's is kept, in its own order, under the task's names. Any other output layer is
    replaced by a new one, in the task's order; the layer below it is kept.
    """
    output = checkpoint.weights.get(f"{HEAD_OUTPUT}.weight")
    if output is None or (task.labels is None and len(output) == 1):
        return replace(checkpoint, label_names=task.labels), []
    matched = task.match_labels(checkpoint.label_names or ())
    if matched is not None:
        return replace(checkpoint, label_names=matched), []
    weights = {name: array for name, array in checkpoint.weights.items() if not name.startswith(f"{HEAD_OUTPUT}.")}
    old_names = shortened(", ".join(checkpoint.label_names or ("one output",)), 200)
    note = f"{checkpoint.origin} has a head for other labels ({old_names}): a new one is trained."
    logger.warning(note)
    return replace(checkpoint, weights=weights, label_names=task.labels), [note]


def label_order(checkpoint: Checkpoint, task: Task) -> tuple[str, ...] | None:
    """Return the task's label names in the order of a finished model's outputs; None for regression.

    Raises:
        CheckpointError: the model has no trained head, or one for other labels.
    """
    outputs = checkpoint.num_outputs
    if outputs is None:
        raise CheckpointError(f"{checkpoint.origin} has no trained classification head: train it first.")
    if task.labels is None:
        if outputs != 1:
            raise CheckpointError(f"{checkpoint.origin} has {outputs} outputs; {task.title} is a regression with one.")
        return None
    names = checkpoint.label_names or ()
    matched = task.match_labels(names)
    if matched is None:
        raise CheckpointError(
            f"{checkpoint.origin}: the labels in id2label ({', '.join(names) or 'one output'}) are not those of "
            f"{task.title} ({', '.join(task.labels)}); name them in config.json, in the order of the outputs."
        )
    return matched


def class_weights(source: str | None, task: Task, labels: Labels, order: Sequence[str] | None) -> tuple[float, ...] | None:
    """Return the factors that the setting `class_weights` asks for, in the order of the outputs; None if it asks for none.

    `balanced` is N / (K * count) for each of K classes, as in scikit-learn; for a multi-label task it is the number of
    examples without the label over the number with it. The weights of a file are scaled to a mean of 1 over the N training
    examples, so that the learning rate keeps its meaning; those of a multi-label task are taken as they are.

    Args:
        source: None, `balanced`, a JSON file of label -> weight, or such a JSON object itself.

    Raises:
        ConfigError: for a regression, or where the file is not a JSON object with a positive number for each label.
    """
    if source is None:
        return None
    balanced = task.kind.balanced_weights(labels, task.num_outputs)
    if source == "balanced":
        return tuple(balanced.tolist())
    weights = _read_weights(source, order or ())
    return tuple((task.kind.weight_scale(labels, weights) * weights).tolist())


def _read_weights(source: str, order: Sequence[str]) -> Float64[np.ndarray, " K"]:
    is_json = source.lstrip().startswith("{")
    origin = "class_weights" if is_json else source
    try:
        weights: Any = json.loads(source if is_json else Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"class_weights is {brief(source)}: neither `balanced` nor a JSON file of label -> weight ({error})."
        ) from None
    if not isinstance(weights, dict) or {*weights} != {*order}:
        found = ", ".join(map(repr, weights)) if isinstance(weights, dict) else type(weights).__name__
        raise ConfigError(f"{origin}: a weight for each of {', '.join(map(repr, order))} was expected; found {found[:200]}.")
    for label, weight in weights.items():
        if type(weight) not in (int, float) or not 0 < weight < math.inf:
            raise ConfigError(f"{origin}: the weight of {label!r} is {brief(weight)}; a number above 0 was expected.")
    return np.array([float(weights[label]) for label in order])


@dataclass(frozen=True)
class Packer:
    """What makes batches of examples.

    Attributes:
        model: with its complete vocabulary.
        vocabulary: if there is one, token ids become rows of its embedding table.
    """

    config: TrainConfig
    model: Checkpoint
    vocabulary: Vocabulary | None = None

    def pack(self, tokens: TokenizedTexts, index: Index, labels: Labels | None) -> PackedBatch:
        """Return the examples `index` as one batch."""
        if self.config.uses_rows:
            batch = pack_rows(
                tokens,
                index,
                labels,
                row_length=-(-self.config.max_length // ROW_MULTIPLE) * ROW_MULTIPLE,
                row_counts=row_counts(len(index)),
                pad_token_id=self.model.blueprint.embeddings.pad_token_id,
            )
        else:
            batch = pack_flat(tokens, index, labels)
        if self.vocabulary is None:
            return batch
        return replace(batch, input_ids=self.vocabulary.rows[batch.input_ids])

    def pack_parts(self, tokens: TokenizedTexts, index: Index, labels: Labels | None, parts: int) -> list[PackedBatch]:
        """Return the examples `index` as `parts` micro-batches of about the same number of tokens."""
        shards = shard_step(tokens.lengths[index], min(parts, len(index)))
        return [self.pack(tokens, index[shard], labels) for shard in shards]

    def evaluation_batches(self, tokens: TokenizedTexts, parallel: int = 1) -> list[PackedBatch]:
        """Return all examples in batches.

        In the flat layout examples of similar length are together, and `parallel` batches have at most `eval_tokens` tokens.
        In the rows layout a batch has as many examples as in training.
        """
        if self.config.uses_rows:
            size, total = self.config.batch_size, len(tokens)
            plan: Iterator[Index] = (np.arange(start, min(start + size, total)) for start in range(0, total, size))
        else:
            plan = plan_evaluation(tokens.lengths, self.config.eval_tokens // parallel)
        return [self.pack(tokens, index, None) for index in plan]
