"""Print what a person sees of a search: each trial, and in the end all of them."""

import sys

from rich.table import Table

from isinglass.cli.display import console
from isinglass.cli.progress import RunBars
from isinglass.names import duration, printable
from isinglass.training.observers import Progress
from isinglass.tuning import Tuned, TunedTrial, TuningObserver


class TuneDisplay(TuningObserver):
    """Prints the progress of a search, to standard error.

    Args:
        trials: number of finished trials to reach.
    """

    def __init__(self, bars: RunBars, trials: int) -> None:
        self._bars = bars
        self._trials = trials

    def on_connect(self, summary: str) -> None:
        """Print what the cluster has."""
        self._bars.share()
        print(summary, file=sys.stderr, flush=True)

    def on_trial_begin(self, trial: TunedTrial) -> None:
        """Print the settings of a trial."""
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial.settings.items())
        print(f"[trial {trial.number + 1}, {self._trials} asked for] {settings}", file=sys.stderr, flush=True)
        self._bars.begin()

    def on_progress(self, number: int, progress: Progress) -> None:
        """Show how far a trial is."""
        self._bars.show(self._label(number), progress)

    def on_trial_end(self, trial: TunedTrial) -> None:
        """Print the score of a trial."""
        label = self._label(trial.number)
        self._bars.end(label)
        score = "" if trial.score is None else f": {trial.score:.4f}"
        print(f"{label}{trial.state}{score} after {duration(trial.seconds)}", file=sys.stderr, flush=True)

    def _label(self, number: int) -> str:
        return self._bars.label(f"trial {number + 1}")


def show_tuned(tuned: Tuned) -> None:
    """Print the trials of a search, the best first, and where its recipe lies."""
    table = Table()
    for name in ("trial", "state", *tuned.best.settings, tuned.metric, "seconds"):
        table.add_column(name.replace("_", " "), justify="left" if name == "state" else "right")
    for trial in sorted(tuned.trials, key=lambda trial: tuned.metric.rank(trial.score), reverse=True):
        score = "-" if trial.score is None else tuned.metric.text(trial.score)
        settings = [f"{value:.3g}" for value in trial.settings.values()]
        table.add_row(str(trial.number + 1), trial.state, *settings, score, f"{trial.seconds:.1f}")
    out = console()
    out.print(table)
    for note in tuned.notes:
        out.print(f"Note: {printable(note)}")
    out.print(f"Recipe of the best written to {printable(str(tuned.recipe))}: isinglass train TASK --config it")
