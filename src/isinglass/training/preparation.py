"""From settings to what can be trained on. A user's mistakes are found here, before the first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.backends.protocol import Objective
from isinglass.config import TrainConfig
from isinglass.data.examples import Examples, encode_labels
from isinglass.data.source import Source
from isinglass.data.tokenization import TokenizedTexts, tokenize
from isinglass.errors import CheckpointError, ConfigError
from isinglass.metrics import Metric
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.source import load_model
from isinglass.tasks import Labels, Split, Task
from isinglass.training.best_epoch import selection_metric
from isinglass.training.labels import class_weights, with_head_for

MAX_NAMED: Final = 64  # examples that a message names


@dataclass(frozen=True, kw_only=True)
class PreparedSplit:
    """One split with N examples, tokenized into M rows: M is more than N where long texts are read in windows.

    Attributes:
        labels: int64 (N,) in the order of the model's outputs, float32 (N,) or float32 (N, outputs); None where hidden.
        notes: what a reader of the result should know.
    """

    name: str
    examples: Examples
    tokens: TokenizedTexts
    labels: Labels | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def labels_of_rows(self) -> Labels | None:
        """Return the label of each tokenized row, (M,) or (M, outputs): a window has the label of its text."""
        if self.labels is None or self.tokens.source is None:
            return self.labels
        labels: Labels = self.labels[self.tokens.source]
        return labels

    def where(self, rows: Int64[np.ndarray, " S"]) -> str:
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
        model: the model to begin with; its head may be missing.
        label_order: name of each output; None for regression.
        metric: what picks the best epoch.
        notes: what a reader of the result should know.
    """

    task: Task
    model: Checkpoint
    label_order: tuple[str, ...] | None
    train: PreparedSplit
    dev: tuple[PreparedSplit, ...]
    test: tuple[PreparedSplit, ...]
    objective: Objective
    metric: Metric
    notes: tuple[str, ...]

    @property
    def splits(self) -> tuple[PreparedSplit, ...]:
        """All splits: train, dev, test."""
        return (self.train, *self.dev, *self.test)

    @property
    def scored(self) -> tuple[PreparedSplit, ...]:
        """The splits that the finished model is scored on."""
        return tuple(split for split in (*self.dev, *self.test) if split.labels is not None)


def prepare_run(config: TrainConfig, data: Source, first_weights: str | None) -> PreparedRun:
    """Read, check and tokenize the data of a run, and load the model that it begins with.

    A test set is prepared only if it is the user's own.

    Raises:
        IsinglassError: settings, data and model do not fit each other, or one of them is missing or damaged.
    """
    task = data.task
    if task.train is None:
        raise ConfigError(f"{task.title} has no training set: train mnli, then `isinglass predict RUN_DIR --task ax`.")
    metric = selection_metric(config, task)
    model, head_note = with_head_for(load_model(first_weights or config.model), task)
    order = model.label_names
    train = prepare_split(data, task.train, config, model, order, most=config.max_train_examples)
    dev = tuple(prepare_split(data, split, config, model, order) for split in task.dev)
    test_splits = task.test if config.train_file else ()
    test = tuple(prepare_split(data, split, config, model, order) for split in test_splits)
    assert train.labels is not None
    if config.label_smoothing and order is None:
        raise ConfigError("label_smoothing is for classes: a regression has none, leave it out.")
    objective = Objective(
        kind=task.kind.name,
        num_outputs=task.num_outputs,
        class_weights=class_weights(config.class_weights, task, train.labels, order),
        label_smoothing=config.label_smoothing,
    )
    notes = [*data.notes, *train.notes]
    if model.commit:
        notes.insert(0, f"The model {config.model} is the hub's at commit {model.commit}.")
    if head_note:
        notes.append(head_note)
    return PreparedRun(
        task=task,
        model=model,
        label_order=order,
        train=train,
        dev=dev,
        test=test,
        objective=objective,
        metric=metric,
        notes=tuple(notes),
    )


def prepare_split(
    data: Source,
    split: Split,
    config: TrainConfig,
    model: Checkpoint,
    label_order: Sequence[str] | None,
    *,
    most: int | None = None,
) -> PreparedSplit:
    """Read, check and tokenize one split of a task.

    Args:
        most: the largest number of rows to use; they are drawn by `config.split_seed` and stay in their order.
    """
    examples = data.read(split)
    notes = examples.notes
    if most is not None and most < len(examples):
        drawn = np.random.default_rng([config.split_seed, len(examples)]).choice(len(examples), most, replace=False)
        notes = (*notes, f"{most:,} of {len(examples):,} rows of {split.name} are used, drawn at random.")
        examples = examples.take(np.sort(drawn))
    labels = None if examples.labels is None else encode_labels(examples, data.task, label_order)
    tokens = prepare_texts(examples, config, model)
    return PreparedSplit(name=split.name, examples=examples, tokens=tokens, labels=labels, notes=notes)


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
    if largest_id >= encoder.vocab_size:
        raise CheckpointError(
            f"{model.origin}: tokenizer.json gives the id {largest_id}; config.json has vocab_size {encoder.vocab_size}."
        )
    token_types = int(tokens.token_type_ids.max(initial=0)) + 1
    if token_types > encoder.embeddings.token_types > 0:
        raise CheckpointError(
            f"{model.origin}: tokenizer.json gives {token_types} token types; config.json has type_vocab_size "
            f"{encoder.embeddings.token_types}."
        )
    return tokens
