"""Observers of a search: objects that are told how it goes on."""

from isinglass.training.observers import Progress
from isinglass.tuning.study import TunedTrial


class TuningObserver:
    """Base class of a search's observers: every method does nothing until it is overridden."""

    def on_connect(self, summary: str) -> None:
        """Called when a cluster is ready; `summary` says in one line what it has."""

    def on_trial_begin(self, trial: TunedTrial) -> None:
        """Called when a trial begins: it has settings, and no score."""

    def on_progress(self, number: int, progress: Progress) -> None:
        """Called while the trial of that number is trained and evaluated."""

    def on_trial_end(self, trial: TunedTrial) -> None:
        """Called when a trial is finished, with its state and score."""
