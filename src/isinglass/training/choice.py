"""The recipe `auto`: settings that follow from the model and the training data.

A run takes at most twice the time of `classic` on the same rows, counted in tokens: three epochs of texts cut at 128 tokens.
What the values rest on so far: "Good by default" in docs/experiments.md. The learning rates of larger models are those
that others publish.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from isinglass.config import TrainConfig
from isinglass.models.blueprint import Blueprint

CLASSIC_LENGTH: Final = 128  # tokens
CLASSIC_EPOCHS: Final = 3
MOST_TIME: Final = 2.0  # times that of `classic`
FORWARD: Final = 1 / 3  # time of a prediction, where a training step on the same tokens takes 1
FEW_ROWS: Final = 20_000  # fewer are trained on in small batches
SMALL_BATCH: Final = 16
SMALL_BATCH_TIME: Final = 1.1  # of an epoch, as a multiple of that in batches of 32
LEAST_EPOCHS: Final = 3
MOST_EPOCHS: Final = 10
LENGTH_MULTIPLE: Final = 8
SHORTEST: Final = 32  # tokens: new texts may be longer than those trained on
RATES: Final = ((512, 1e-4), (900, 5e-5), (10**9, 2e-5))  # hidden size up to which a model has the learning rate


Rule = Callable[[TrainConfig, "Facts"], tuple[Any, str]]
"""Returns a setting's value and the reason for it. The settings that it is called with hold the earlier choices."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the choice depends on.

    Attributes:
        lengths: tokens of each training example, uncut; int64 (N,).
        dev_rows: number of examples that are scored after each epoch.
        has_head: whether the model has a trained head for the task's labels.
        is_multilabel: whether an example may have several labels.
    """

    blueprint: Blueprint
    lengths: Int64[np.ndarray, " N"]
    dev_rows: int
    has_head: bool
    is_multilabel: bool

    def tokens(self, max_length: int) -> int:
        """Return the tokens of an epoch."""
        return int(np.minimum(self.lengths, max_length).sum())

    def epochs_within(self, config: TrainConfig, max_length: int) -> float:
        """Return how many epochs fit into the time, beside solving the head and scoring the dev set."""
        classic = CLASSIC_EPOCHS * self.tokens(CLASSIC_LENGTH)
        scoring = FORWARD * self.dev_rows / len(self.lengths)
        training = 1.0 if config.batch_size > SMALL_BATCH else SMALL_BATCH_TIME
        once, each_epoch = (FORWARD, training + scoring) if config.picks_best else (FORWARD + scoring, training)
        return (MOST_TIME * classic / self.tokens(max_length) - once) / each_epoch


def choose(config: TrainConfig, facts: Facts) -> tuple[TrainConfig, str]:
    """Return the settings with the values that the recipe chooses, and a sentence that names them and why."""
    rules: dict[str, Rule] = {
        "batch_size": _batch_size,
        "max_length": _max_length,
        "epochs": _epochs,
        "learning_rate": _learning_rate,
        "warmup_ratio": lambda *_: (0.1, "of the steps"),
        "head_start": _head_start,
    }
    if facts.is_multilabel and facts.dev_rows:
        rules |= {"tune_threshold": lambda *_: (True, "on the dev set")}
    chosen = []
    for name, rule in rules.items():
        if name in config.chosen:
            value, reason = rule(config, facts)
            config = replace(config, **{name: value})
            chosen.append(f"{name} {value} ({reason})")
    return config, f"Chosen by the recipe auto: {', '.join(chosen)}. Each can be set instead."


def _batch_size(config: TrainConfig, facts: Facts) -> tuple[int, str]:
    if len(facts.lengths) < FEW_ROWS:
        return SMALL_BATCH, "few rows need more steps"
    return config.batch_size, "many rows"


def _max_length(config: TrainConfig, facts: Facts) -> tuple[int, str]:
    """Return the length of the longest text, or the greatest length that leaves time for a few epochs; in tokens."""
    limit = facts.blueprint.max_length
    longest = max(int(facts.lengths.max()), SHORTEST)
    lengths = range(LENGTH_MULTIPLE, min(limit, longest + LENGTH_MULTIPLE - 1) + 1, LENGTH_MULTIPLE)
    epochs = LEAST_EPOCHS if "epochs" in config.chosen else config.epochs
    in_time = [length for length in lengths if facts.epochs_within(config, length) >= epochs]
    if not in_time or in_time[-1] < lengths[-1]:
        best = max([*in_time, min(CLASSIC_LENGTH, limit)])
        return best, f"cuts {np.mean(facts.lengths > best):.0%} of the texts, to save time"
    return lengths[-1], "the longest text" if longest <= limit else "as many as the model has positions for"


def _epochs(config: TrainConfig, facts: Facts) -> tuple[int, str]:
    epochs = int(np.clip(facts.epochs_within(config, config.max_length), LEAST_EPOCHS, MOST_EPOCHS))
    return epochs, "in twice the time of classic"


def _learning_rate(config: TrainConfig, facts: Facts) -> tuple[float, str]:  # noqa: ARG001 - as all rules
    size = facts.blueprint.hidden_size
    return next(rate for largest, rate in RATES if size <= largest), f"an encoder of hidden size {size}"


def _head_start(config: TrainConfig, facts: Facts) -> tuple[str, str]:  # noqa: ARG001 - as all rules
    if facts.has_head:
        return "random", "the model has a head for these labels, which is kept"
    return "solved", "a regression on the untouched encoder's vectors"
