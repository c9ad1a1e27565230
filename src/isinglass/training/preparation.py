"""From a config to what can be trained on: what a user can get wrong is found here, before the first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isinglass.config import TrainConfig
from isinglass.data import load_split
from isinglass.data.examples import Examples, Labels, encode_labels
from isinglass.data.tokenization import TokenizedTexts, tokenize
from isinglass.errors import CheckpointError, ConfigError
from isinglass.models.checkpoint import Checkpoint
from isinglass.tasks import Split, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedSplit:
    """One split, ready to pack: N examples.

    Attributes:
        labels: int64 (N,) in the model's order, or float32 (N,); None where hidden.
    """

    name: str
    examples: Examples
    tokens: TokenizedTexts
    labels: Labels | None


def prepare_split(
    task: Task, split: Split, config: TrainConfig, checkpoint: Checkpoint, label_order: Sequence[str] | None
) -> PreparedSplit:
    """Read, check and tokenize one split of the task."""
    examples = load_split(task, split, None if config.data_dir is None else Path(config.data_dir))
    labels = None if examples.labels is None else encode_labels(examples, task, label_order)
    return PreparedSplit(
        name=split.name, examples=examples, tokens=prepare_texts(examples, config, checkpoint), labels=labels
    )


def prepare_texts(examples: Examples, config: TrainConfig, checkpoint: Checkpoint) -> TokenizedTexts:
    """Tokenize, and check that tokenizer and model fit each other.

    Raises:
        ConfigError: `max_length` is more than the model has positions for.
        CheckpointError: the tokenizer gives ids that the model has no embedding for.
    """
    encoder = checkpoint.config
    if config.max_length > encoder.max_length:
        raise ConfigError(
            f"max_length is {config.max_length}; {checkpoint.origin} has positions for {encoder.max_length} tokens."
        )
    tokens = tokenize(examples, checkpoint.tokenizer_json, config.max_length)
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
