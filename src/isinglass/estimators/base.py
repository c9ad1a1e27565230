"""What both estimators share: texts in, a run, outputs out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig, resolve
from isinglass.data.custom.holdout import divide
from isinglass.data.examples import Examples
from isinglass.data.source import LoadedSplits
from isinglass.errors import DataError
from isinglass.estimators.texts import Texts, text_columns
from isinglass.results import RunResult
from isinglass.runs.directory import write_run
from isinglass.runs.finished import FinishedModel, Predictor
from isinglass.runs.perform import perform
from isinglass.tasks import Task
from isinglass.training.observers import Progress, ProgressObserver, StepRecord
from isinglass.training.trainer import TrainedRun

logger = logging.getLogger(__name__)

DEFAULT_SEED: Final = 42
NOT_SETTINGS: Final = ("verbose",)  # parameters of the estimators that are no settings of a run
RENAMED: Final = {"class_weight": "class_weights", "random_state": "seed"}  # scikit-learn's name -> that of the setting


class TextEstimator(BaseEstimator):
    """An estimator that is fine-tuned on texts."""

    result_: RunResult
    _predictor: Predictor
    _steps: list[StepRecord]

    def save(self, directory: str | Path, *, overwrite: bool = False) -> RunResult:
        """Write a run directory, which `isinglass.load` and the command line read, and `transformers` its `model/`.

        Raises:
            OutputExistsError: it exists, and `overwrite` is false.
        """
        check_is_fitted(self)
        model = self._predictor.model
        run = TrainedRun(
            task=model.task,
            result=self.result_,
            model=model.checkpoint,
            weights=model.checkpoint.weights,
            steps=self._steps,
            scored=[],
        )
        return write_run(run, Path(directory), overwrite=overwrite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    @property
    def _task(self) -> Task:
        task: Task = self._predictor.model.task
        return task

    def _settings(self, task: str, **changes: Any) -> TrainConfig:
        """Return the settings of a run that the parameters stand for."""
        parameters = self.get_params(deep=False)
        flags = {RENAMED.get(name, name): value for name, value in parameters.items() if name not in NOT_SETTINGS}
        if flags["seed"] is None:
            flags["seed"] = DEFAULT_SEED
        elif isinstance(flags["seed"], np.random.RandomState):
            flags["seed"] = flags["seed"].randint(2**31)
        return resolve(task=task, flags=flags | changes | {"model": str(self.model)})

    def _train(self, texts: Texts, labels: Sequence[Any], task: Task, config: TrainConfig) -> Self:
        """Train on texts with the names of their labels, and keep the run."""
        train = Examples(texts=texts, labels=labels, origin="X", line_numbers=range(len(labels)), unit="row")
        data = LoadedSplits(task=task, splits={"train": train})
        if config.picks_best:
            train, dev, note = divide(train, task, config.validation_fraction, config.split_seed)
            data = LoadedSplits(task=task, splits={"train": train, "dev": dev}, notes=(note,))
        observers = [ProgressObserver(_log)] if self.verbose else []
        run = perform(config, observers=observers, data=data, group=SingleProcess()).trained
        assert run is not None
        model = FinishedModel(checkpoint=run.trained_model(), config=config, task=run.task)
        self._keep(model, run.result, run.steps)
        return self

    def _keep(self, model: FinishedModel, result: RunResult, steps: list[StepRecord]) -> None:
        """Become a fitted estimator with this model."""
        self.result_ = result
        self._predictor = Predictor(model)
        self._steps = steps

    def _outputs(self, X: Any) -> Float32[np.ndarray, "N outputs"]:
        """Return the model's outputs, in the order of its head."""
        check_is_fitted(self)
        texts = text_columns(X)
        if (len(texts) == 2) != self._task.is_pair:
            needed, found = ("pairs", "single texts") if self._task.is_pair else ("single texts", "pairs")
            raise DataError(f"X holds {found}; the {type(self).__name__} was trained on {needed}.")
        examples = Examples(texts=texts, labels=None, origin="X", line_numbers=range(len(texts[0])), unit="row")
        return self._predictor.outputs(examples, keep=False)


def _log(progress: Progress) -> None:
    loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
    logger.info(f"{progress.stage}: {progress.done} of {progress.total}{loss}")
