"""What trials are trained and scored on."""

import dataclasses
import hashlib
import json
from typing import Final

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.custom.holdout import divide
from isinglass.data.source import LoadedSplits, Source
from isinglass.errors import (
    ConfigError,
)

HELD_OUT: Final = 0.1  # share of a published task's train that scores the trials


def tuning_data(config: TrainConfig) -> tuple[Source, tuple[str, ...]]:
    """What the trials train on and, as the one dev set, what they are scored on; and notes on that.

    Raises:
        ConfigError: the task has no training set.
        DataError: the data are missing or damaged.
    """
    data = open_data(config)
    task = data.task
    if task.train is None:
        raise ConfigError(f"{task.title} has no training set to tune on.")
    if config.train_file:
        note = "Scored on the validation split, which chose the settings: its scores are optimistic. No test set was read."
        return data, (*data.notes, note)
    train_part, dev_part, note = divide(data.read(task.train), task, HELD_OUT, config.split_seed)
    dev = dataclasses.replace(task.train, name="dev")
    task = dataclasses.replace(task, dev=(dev,), test=())
    parts = {"train": train_part, "dev": dev_part}
    data = LoadedSplits(task=task, splits=parts, notes=data.notes)
    return data, (*data.notes, f"{note} They are held out of train; the published dev set was not read.")


def digest_of(data: Source) -> str:
    """Of the texts and labels that the trials see: scores on other data tell nothing."""
    digest = hashlib.blake2b(digest_size=16)
    for split in (data.task.train, *data.task.dev):
        assert split is not None
        examples = data.read(split)
        assert examples.labels is not None
        for row in zip(*examples.texts, examples.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
