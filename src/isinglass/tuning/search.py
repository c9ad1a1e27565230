"""Search a task's settings by Optuna: trials that a kill does not lose, and a recipe that `isinglass train` takes.

DIR/
  study.db      Optuna's database: all trials, the scores after each epoch, and the settings that they share
  trials.tsv    the finished trials, one a line
  recipe.toml   the best trial's settings: `isinglass train TASK --config DIR/recipe.toml`

The state of the sampler is a function of (seed, finished trials): a study that was killed goes on as if it had not been.
Several trials at once (`Elsewhere`) begin before they know of each other: then the order in which they end counts too.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isinglass.config import TrainConfig, as_dict, without_places
from isinglass.errors import (
    ConfigError,
    RunFailedError,
)
from isinglass.training.best_epoch import selection_metric
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import Observers
from isinglass.tuning.data import digest_of, tuning_data
from isinglass.tuning.recipe import RECIPE, TRIALS, write
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import DATABASE, TunedTrial, check_identity, check_installed, finished_trials, hold, opened
from isinglass.tuning.trials import Elsewhere, Search


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        metric: what the trials are scored by.
        best: of the complete trials, of equal ones the first.
        trials: all finished ones, in their order.
        recipe: the file that `isinglass train --config` takes.
        notes: what a reader must know: on what the trials were scored.
    """

    metric: str
    best: TunedTrial
    trials: tuple[TunedTrial, ...]
    recipe: Path
    notes: tuple[str, ...]


def tune(
    config: TrainConfig,
    *,
    trials: int,
    directory: Path,
    space: SearchSpace = SearchSpace(),  # noqa: B008
    on_trial: Callable[[TunedTrial], None] = lambda _: None,
    observers: Observers = (),
    interruption: Interruption | None = None,
    elsewhere: Elsewhere | None = None,
) -> Tuned:
    """Train with one setting after another until `directory` holds so many finished trials; what is there already counts.

    A published task's dev sets are not read: a tenth of train, with each label's share, scores the trials. The user's own
    files have their validation split for that; a test file is not read.

    Args:
        on_trial: called when a trial begins (`running`), and again with what came of it.
        observers: are told how each trial in this process goes on.
        elsewhere: train several trials at once; what is searched next then depends on which of them end first.

    Raises:
        MissingDependencyError: Optuna is not installed.
        ConfigError: the settings do not fit each other, the task, or those that `directory` was made with.
        OutputExistsError: `directory` holds something else, or another process holds it.
        RunFailedError: no trial has a score.
        StorageError: the disk is full, say. The trials so far are kept.
        Interrupted: the process was asked to end. The trials so far are kept.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; it must be at least 1.")
    check_installed()
    config = dataclasses.replace(config, test_file=())
    data, notes = tuning_data(config)
    if space.seed:
        notes += (
            "Each trial has a seed of its own, and the recipe that of the best one, whose score is in part luck: repeat it "
            "with other seeds (--runs) before it is compared.",
        )
    metric = selection_metric(config, data.task)
    identity = without_places(as_dict(config)) | {
        "search": json.loads(json.dumps(dataclasses.asdict(space))),
        "data (digest)": digest_of(data),
    }
    with hold(directory), opened(directory / DATABASE, metric) as study:
        check_identity(study, identity, directory)
        search = Search(study, config, data, space, observers, interruption or Interruption())
        finished = finished_trials(study)

        def on_end(number: int) -> None:
            finished[:] = finished_trials(study)
            write(directory, config, metric, finished, notes)
            on_trial(next(one for one in finished if one.number == number))

        try:
            if elsewhere is None:
                while len(finished) < trials:
                    on_end(search.run_one(on_trial))
            else:
                search.run_elsewhere(elsewhere, trials, on_trial, on_end)
        except Interrupted as interrupted:
            done = f"{len(finished)} of {trials} trials are kept in {directory}"
            raise Interrupted(interrupted.number, f"stopped: {done}, and the same command goes on with them.") from None
        best = write(directory, config, metric, finished, notes)
    if best is None:
        raise RunFailedError(
            f"No trial has a score ({directory / TRIALS}): search lower learning rates, or look at the data."
        )
    return Tuned(metric=metric, best=best, trials=tuple(finished), recipe=directory / RECIPE, notes=notes)
