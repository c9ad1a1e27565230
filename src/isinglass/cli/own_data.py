"""What is said of a user's own data before the first training step."""

from dataclasses import replace

from isinglass.cli.display import show_facts
from isinglass.data.checks import cut_shares, inspect_data
from isinglass.tasks import TASKS
from isinglass.training.observers import Observer, TrainBegin


class OwnDataFacts(Observer):
    """An observer that shows what may spoil the result of a run on a user's own data."""

    def on_train_begin(self, event: TrainBegin) -> None:
        """Show the facts, on standard error; nothing for a published task."""
        if event.task.name in TASKS:
            return
        facts = inspect_data({name: split.examples for name, split in event.splits.items()}, event.task)
        cut = cut_shares({name: split.tokens for name, split in event.splits.items()})
        show_facts(((), replace(facts, truncated=cut)))
