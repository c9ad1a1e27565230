"""What the trials are trained and scored on."""

import dataclasses
import hashlib
import json
from typing import Final

from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.custom import divide
from isinglass.data.examples import LoadedSplits, Source
from isinglass.errors import ConfigError

HELD_OUT: Final = 0.1  # share of a published task's train that scores the trials


def tuning_data(config: TrainConfig) -> tuple[Source, tuple[str, ...]]:
    """Return what the trials are trained on, with what scores them as the only dev set, and notes about it.

    The dev sets of a published task are not read: a tenth of its train, with each label's share, scores the trials. Your own
    files have a validation split for that.

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
    parts = LoadedSplits(task=task, splits={"train": train_part, "dev": dev_part}, notes=data.notes)
    return parts, (*data.notes, f"{note} They are held out of train; the published dev set was not read.")


def digest_of(data: Source) -> str:
    """Return a digest of the texts and labels that the trials see: scores on other data cannot be compared."""
    digest = hashlib.blake2b(digest_size=16)
    for split in (data.task.train, *data.task.dev):
        assert split is not None
        examples = data.read(split)
        assert examples.labels is not None
        for row in zip(*examples.texts, examples.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
