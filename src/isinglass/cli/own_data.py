"""Tell what is known about the data of a run before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from isinglass.bench.own_data import describe
from isinglass.cli.display import show_facts
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.checks import DataFacts, cut_shares, inspect_data
from isinglass.data.examples import Examples
from isinglass.data.source import Source
from isinglass.models.source import load_model
from isinglass.tasks import TASKS
from isinglass.training.observers import Observer, RunState
from isinglass.training.preparation import PreparedRun, prepare_texts


class OwnDataFacts(Observer):
    """An observer that shows what may spoil the result of a run on a user's own data."""

    def on_train_begin(self, run: PreparedRun, state: RunState) -> None:  # noqa: ARG002
        """Show the facts, on standard error; nothing for a published task."""
        if run.task.name not in TASKS:
            facts = inspect_data({split.name: split.examples for split in run.splits}, run.task)
            truncated = cut_shares({split.name: split.tokens for split in run.splits})
            show_facts((), replace(facts, truncated=truncated))


def show_data_facts(config: TrainConfig) -> None:
    """Read, tokenize and check the data of a run, and show what was found. Facts known without the model come first."""
    data = open_data(config)
    splits = _read_splits(data)
    facts = inspect_data(splits, data.task)
    try:
        checkpoint = load_model(config.model)
        tokens = {name: prepare_texts(examples, config, checkpoint) for name, examples in splits.items()}
        facts = replace(facts, truncated=cut_shares(tokens))
    finally:
        show_facts(data.notes, facts)


@dataclass(frozen=True)
class OwnData:
    """What is known about the user's own files before a bench runs on them.

    Attributes:
        digests: what all runs of the bench must share.
        notes: how the files were read.
        facts: what may spoil a result.
    """

    digests: dict[str, Any]
    notes: tuple[str, ...]
    facts: DataFacts


def describe_own_data(config: TrainConfig) -> OwnData:
    """Read and check the user's own files of a run."""
    data = open_data(config)
    return OwnData(describe(data), data.notes, inspect_data(_read_splits(data), data.task))


def _read_splits(data: Source) -> Mapping[str, Examples]:
    return {split.name: data.read(split) for split in data.task.splits}
