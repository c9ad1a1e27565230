"""Search a task's settings: trials that a kill does not lose, and a recipe that `isinglass train` takes.

DIR/
  study.db      Optuna's database: all trials, their scores after each epoch, and the settings that they share
  trials.tsv    the finished trials, one a line
  recipe.toml   the best trial's settings: `isinglass train TASK --config DIR/recipe.toml`
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isinglass.config import TrainConfig, as_dict, without_places
from isinglass.data.examples import Source
from isinglass.errors import ConfigError, RunFailedError
from isinglass.executors.ray import Cluster, connected
from isinglass.metrics import Metric
from isinglass.storage import locked_output
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.preparation import selection_metric
from isinglass.tuning.data import digest_of, tuning_data
from isinglass.tuning.recipe import RECIPE, TRIALS
from isinglass.tuning.search_space import SearchSpace
from isinglass.tuning.study import TunedTrial, check_installed, opened_study
from isinglass.tuning.trials import ParallelTrials, Search, TuningObserver, train_in_turn

DATABASE: Final = "study.db"
SEED_NOTE: Final = (
    "Each trial has a seed of its own, and the recipe that of the best one, whose score is in part luck: repeat it with "
    "other seeds (--runs) before it is compared."
)

_DEFAULT_SPACE: Final = SearchSpace()
_SILENT: Final = TuningObserver()


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        metric: what the trials are scored by.
        best: the complete trial with the best score, the first of equal ones.
        trials: all finished trials, in their order.
        recipe: the file that `isinglass train --config` takes.
        notes: what a reader must know: on what the trials were scored, and the seed.
    """

    metric: Metric
    best: TunedTrial
    trials: tuple[TunedTrial, ...]
    recipe: Path
    notes: tuple[str, ...]


def tune(
    config: TrainConfig,
    *,
    trials: int,
    directory: Path,
    space: SearchSpace = _DEFAULT_SPACE,
    observer: TuningObserver = _SILENT,
    cluster: Cluster | None = None,
    interruption: Interruption | None = None,
) -> Tuned:
    """Train with one setting after another until `directory` holds `trials` finished trials; earlier calls count.

    The dev sets of a published task, and a test file of your own, are not read: see `tuning_data`.

    Args:
        cluster: the cluster that trains several trials at the same time; None: this process, one after another. On a
            cluster the order in which trials end decides what is searched next.
        interruption: tells that the process was asked to end.

    Raises:
        MissingDependencyError: Optuna is not installed.
        ConfigError: the settings do not fit each other, the task, the cluster, or those that `directory` was made with.
        OutputExistsError: `directory` holds something else, or another process holds it.
        RunFailedError: no trial has a score.
        StorageError: the disk is full, say. Finished trials are kept.
        Interrupted: the process was asked to end. Finished trials are kept.
    """
    if trials < 1:
        raise ConfigError(f"trials is {trials}; it must be at least 1.")
    check_installed()
    config = dataclasses.replace(config, test_file=())
    data, notes = tuning_data(config)
    if space.seed:
        notes += (SEED_NOTE,)
    metric = selection_metric(config, data.task)
    with ExitStack() as stack:
        executor = None
        if cluster is not None:
            executor = stack.enter_context(connected(cluster, directory))
            observer.on_connect(executor.summary)
        stack.enter_context(locked_output(directory, "search", DATABASE))
        study = stack.enter_context(opened_study(directory / DATABASE, metric))
        study.check_identity(_identity(config, space, data), directory)
        search = Search(
            directory=directory,
            study=study,
            space=space,
            config=config,
            metric=metric,
            trials=trials,
            notes=notes,
            observer=observer,
        )
        with _says_what_is_kept(search):
            if executor is None:
                train_in_turn(search, data, interruption or Interruption())
            else:
                ParallelTrials(search, executor).train()
        finished = study.finished()
        best = search.write(finished)
    if best is None:
        raise RunFailedError(
            f"No trial has a score ({directory / TRIALS}): search lower learning rates, or look at the data."
        )
    return Tuned(metric=metric, best=best, trials=tuple(finished), recipe=directory / RECIPE, notes=notes)


def _identity(config: TrainConfig, space: SearchSpace, data: Source) -> dict[str, Any]:
    """Return what all trials of a search share, by name, as JSON reads it back."""
    return without_places(as_dict(config)) | {
        "search": json.loads(json.dumps(dataclasses.asdict(space))),
        "data (digest)": digest_of(data),
    }


@contextmanager
def _says_what_is_kept(search: Search) -> Iterator[None]:
    try:
        yield
    except Interrupted as interrupted:
        finished = len(search.study.finished())
        kept = f"{finished} of {search.trials} trials are kept in {search.directory}"
        raise Interrupted(interrupted.number, f"stopped: {kept}, and the same command continues with them.") from None
