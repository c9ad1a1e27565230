"""From a config to what can be trained on: what a user can get wrong is found here, before the first step."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isinglass.config import TrainConfig
from isinglass.data.examples import Examples, Labels, encode_labels
from isinglass.data.source import TaskData
from isinglass.data.tokenization import TokenizedTexts, tokenize
from isinglass.errors import CheckpointError, ConfigError
from isinglass.models.checkpoint import Checkpoint
from isinglass.names import brief
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedSplit:
    """One split, ready to pack: N examples.

    Attributes:
        labels: int64 (N,) in the model's order, float32 (N,) or float32 (N, outputs); None where hidden.
        notes: what a reader of the result should know.
    """

    name: str
    examples: Examples
    tokens: TokenizedTexts
    labels: Labels | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)


def prepare_split(
    data: TaskData,
    split: Split,
    config: TrainConfig,
    checkpoint: Checkpoint,
    label_order: Sequence[str] | None,
    *,
    most: int | None = None,
) -> PreparedSplit:
    """Read, check and tokenize one split of the task, or `most` rows of it, drawn by `config.split_seed`, in their order."""
    examples = data.read(split)
    notes = examples.notes
    if most is not None and most < len(examples):
        chosen = np.random.default_rng([config.split_seed, len(examples)]).choice(len(examples), most, replace=False)
        notes = (*notes, f"{most:,} of {len(examples):,} rows of {split.name} are used, drawn at random.")
        examples = examples.take(np.sort(chosen))
    labels = None if examples.labels is None else encode_labels(examples, data.task, label_order)
    tokens = prepare_texts(examples, config, checkpoint)
    return PreparedSplit(name=split.name, examples=examples, tokens=tokens, labels=labels, notes=notes)


def class_weights(config: TrainConfig, task: Task, labels: Labels, order: Sequence[str] | None) -> tuple[float, ...] | None:
    """The factors that `config.class_weights` asks for, in the order of the outputs; None if it asks for none.

    `balanced` is N / (K * count) of each of K classes, as in scikit-learn; of a multi-label task, the number of examples
    without the label over that with it. A file's are scaled to a mean of 1 over the N training examples (a multi-label
    task's are taken as they are), so that the learning rate keeps its meaning.

    Raises:
        ConfigError: for a regression, or the file is not a JSON object with a positive number for each label.
    """
    if config.class_weights is None:
        return None
    if order is None:
        raise ConfigError("class_weights are for classes: a regression has none, leave them out.")
    if task.is_multilabel:
        counts = labels.sum(0).astype(np.float64)
        balanced = (len(labels) - counts) / np.maximum(counts, 1)
    else:
        counts = np.bincount(labels.astype(np.int64), minlength=len(order)).astype(np.float64)
        balanced = len(labels) / (len(order) * np.maximum(counts, 1))
    if config.class_weights == "balanced":
        return tuple(balanced.tolist())
    weights = _weights_in(config.class_weights, order)
    scale = 1.0 if task.is_multilabel else len(labels) / float(counts @ weights)
    return tuple((scale * np.array(weights)).tolist())


def _weights_in(source: str, order: Sequence[str]) -> list[float]:
    is_json = source.lstrip().startswith("{")
    path = "class_weights" if is_json else source  # for messages
    try:
        given = json.loads(source if is_json else Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"class_weights is {brief(source)}: neither `balanced` nor a JSON file of label -> weight ({error})."
        ) from None
    if not isinstance(given, dict) or {*given} != {*order}:
        found = ", ".join(map(repr, given)) if isinstance(given, dict) else type(given).__name__
        raise ConfigError(f"{path}: a weight for each of {', '.join(map(repr, order))} was expected; found {found[:200]}.")
    for label, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(f"{path}: the weight of {label!r} is {brief(weight)}; a number above 0 was expected.")
    return [float(given[label]) for label in order]


def prepare_texts(examples: Examples, config: TrainConfig, checkpoint: Checkpoint, *, keep: bool = True) -> TokenizedTexts:
    """Tokenize, and check that tokenizer and model fit each other; `keep`: the tokens, in the cache.

    Raises:
        ConfigError: `max_length` is more than the model has positions for.
        CheckpointError: the tokenizer gives ids that the model has no embedding for.
    """
    encoder = checkpoint.config
    if config.max_length > encoder.max_length:
        raise ConfigError(
            f"max_length is {config.max_length}; {checkpoint.origin} has positions for {encoder.max_length} tokens."
        )
    tokens = tokenize(examples, checkpoint.tokenizer_json, config.max_length, window_overlap=config.overlap, keep=keep)
    largest = int(tokens.input_ids.max(initial=0))
    if largest >= encoder.vocab_size:
        raise CheckpointError(
            f"{checkpoint.origin}: tokenizer.json gives the id {largest}; config.json has vocab_size {encoder.vocab_size}."
        )
    kinds = int(tokens.token_type_ids.max(initial=0)) + 1
    if kinds > encoder.type_vocab_size and encoder.family.has_token_types:
        raise CheckpointError(
            f"{checkpoint.origin}: tokenizer.json gives {kinds} token types; config.json has type_vocab_size "
            f"{encoder.type_vocab_size}."
        )
    return tokens


def with_head_for(checkpoint: Checkpoint, task: Task) -> tuple[Checkpoint, str | None]:
    """The checkpoint with a head that fits the task, and a note if its own head had to go.

    A head whose label names are the task's stays, in its own order, under the task's names. Any other gives way to a
    new one, in the task's order; the layer below it stays.
    """
    checkpoint = replace(checkpoint, is_multilabel=task.is_multilabel)
    output = checkpoint.weights.get("head.output.weight")
    if output is None:
        return replace(checkpoint, label_names=task.labels), None
    if task.is_regression and len(output) == 1:
        return replace(checkpoint, label_names=None), None
    matched = task.match_labels(checkpoint.label_names or ())
    if matched is not None:
        return replace(checkpoint, label_names=matched), None
    weights = {name: array for name, array in checkpoint.weights.items() if not name.startswith("head.output.")}
    names = ", ".join(checkpoint.label_names or ("one output",))
    had = names if len(names) <= 200 else f"{names[:197]}..."
    note = f"{checkpoint.origin} has a head for other labels ({had}): a new one is trained."
    logger.warning(note)
    return replace(checkpoint, weights=weights, label_names=task.labels), note


def label_order(checkpoint: Checkpoint, task: Task) -> tuple[str, ...] | None:
    """The task's label names in the order of a finished model's outputs; None for regression.

    Raises:
        CheckpointError: the checkpoint has no trained head, or one for other labels.
    """
    outputs = checkpoint.num_outputs
    if outputs is None:
        raise CheckpointError(f"{checkpoint.origin} has no trained classification head: train it first.")
    if task.labels is None:
        if outputs != 1:
            raise CheckpointError(f"{checkpoint.origin} has {outputs} outputs; {task.title} is a regression with one.")
        return None
    names = checkpoint.label_names
    matched = None if names is None else task.match_labels(names)
    if matched is None:
        raise CheckpointError(
            f"{checkpoint.origin}: the labels in id2label ({', '.join(names) if names else 'one output'}) are not those of "
            f"{task.title} ({', '.join(task.labels)}); name them in config.json, in the order of the outputs."
        )
    return matched
