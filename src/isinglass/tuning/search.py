"""A search under way: it begins and ends trials, and writes what is known so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isinglass.config import TrainConfig
from isinglass.errors import StorageError
from isinglass.metrics import Metric
from isinglass.tuning.observers import TuningObserver
from isinglass.tuning.recipe import best_trial, write_recipe, write_table
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import Study, Trial, TunedTrial


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trials of a search, in its directory.

    Attributes:
        config: the settings that all trials share.
        metric: what the trials are scored by.
        trials: number of finished trials to reach.
        notes: what a reader of the recipe must know.
    """

    directory: Path
    study: Study
    space: SearchSpace
    config: TrainConfig
    metric: Metric
    trials: int
    notes: tuple[str, ...]
    observer: TuningObserver

    @property
    def missing(self) -> int:
        """Return the number of trials to finish."""
        return max(0, self.trials - len(self.study.finished()))

    def begin(self, running: Sequence[Trial] = ()) -> Trial:
        """Return a new trial to train. `running` are the trials under way."""
        trial = self.study.ask(self.space, self.config, running)
        self.observer.on_trial_begin(TunedTrial(number=trial.number, state="running", settings=trial.settings))
        return trial

    def end(self, trial: Trial) -> None:
        """Write the files anew after a trial whose outcome the study knows."""
        finished = self.study.finished()
        self.write(finished)
        self.observer.on_trial_end(next(each for each in finished if each.number == trial.number))

    def write(self, finished: Sequence[TunedTrial]) -> TunedTrial | None:
        """Write the table of trials and the recipe of the best one. Return that trial; None if no trial has a score.

        Raises:
            StorageError: the disk is full, say.
        """
        best = best_trial(finished, self.metric)
        try:
            write_table(self.directory, finished, self.metric)
            if best is not None:
                write_recipe(self.directory, self.config, best, metric=self.metric, trials=len(finished), notes=self.notes)
        except OSError as error:
            reason = f"{self.directory} cannot be written ({error.strerror})"
            raise StorageError(f"{reason}: make room and run it again.") from error
        return best
