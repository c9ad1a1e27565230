"""Tell what is known about the data of a run before anything is trained."""

from dataclasses import replace

from isinglass.cli.display import show_facts
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.checks import cut_shares, inspect_data
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
    splits = {split.name: data.read(split) for split in data.task.splits}
    facts = inspect_data(splits, data.task)
    try:
        checkpoint = load_model(config.model)
        tokens = {name: prepare_texts(examples, config, checkpoint) for name, examples in splits.items()}
        facts = replace(facts, truncated=cut_shares(tokens))
    finally:
        show_facts(data.notes, facts)
