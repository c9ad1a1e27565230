"""The estimators: a classifier and a regressor of texts."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from isinglass.backends.process_group import SingleProcess
from isinglass.config import SETTINGS, TrainConfig, as_dict, resolve
from isinglass.data.custom.holdout import divide
from isinglass.data.examples import Examples
from isinglass.data.source import LoadedSplits
from isinglass.errors import ConfigError, DataError
from isinglass.estimators.inputs import Target, Texts, check_lengths, indicator, numbers, plain, text_columns
from isinglass.names import brief, did_you_mean, listed
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT, write_run
from isinglass.runs.finished import FinishedModel, Predictor, load_run
from isinglass.runs.perform import perform
from isinglass.tasks import MULTILABEL, KindName, Task
from isinglass.tasks.custom import custom_task
from isinglass.training.labels import label_order
from isinglass.training.observers import Progress, ProgressObserver, StepRecord
from isinglass.training.trainer import TrainedRun

logger = logging.getLogger(__name__)

DEFAULT_SEED: Final = 42
RENAMED: Final = {"class_weight": "class_weights", "random_state": "seed"}  # scikit-learn's name -> that of the setting


class TextEstimator(BaseEstimator):
    """What both estimators share: texts in, a run, outputs out."""

    result_: RunResult
    _predictor: Predictor
    _steps: list[StepRecord]

    def save(self, directory: str | Path, *, overwrite: bool = False) -> RunResult:
        """Write a run directory, which `isinglass.load` and the command line read, and `transformers` its `model/`.

        Raises:
            OutputExistsError: it exists, and `overwrite` is false.
        """
        check_is_fitted(self)
        model, weights = self._predictor.model.checkpoint, self._predictor.model.checkpoint.weights
        run = TrainedRun(task=self._task, result=self.result_, model=model, weights=weights, steps=self._steps, scored=[])
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

    @classmethod
    def _settings(cls) -> dict[str, str]:
        """Return parameter -> setting."""
        return {name: RENAMED.get(name, name) for name in cls._get_param_names() if name != "verbose"}

    def _store(self, parameters: dict[str, Any]) -> None:
        """Keep the parameters of `__init__` as attributes, as scikit-learn has it."""
        for name in self._get_param_names():
            setattr(self, name, parameters[name])

    def _fit(self, kind: KindName, names: Sequence[str] | None, texts: Texts, labels: Sequence[Any], **changes: Any) -> Self:
        """Train on texts and the names of their labels.

        Args:
            names: of all labels; None for regression.
            changes: settings that differ from the parameter.
        """
        flags = {setting: getattr(self, name) for name, setting in self._settings().items()} | changes
        if isinstance(flags["seed"], np.random.RandomState):
            flags["seed"] = flags["seed"].randint(2**31)
        name = "text-regressor" if kind == "regression" else "text-classifier"
        config = resolve(task=name, flags={"seed": DEFAULT_SEED} | flags | {"model": str(flags["model"])})
        task = custom_task(
            name=name,
            kind=kind,
            labels=names,
            text_columns=("text", "text2")[: len(texts)],
            label_column="label",
            splits=["train", "dev"] if config.picks_best else ["train"],
        )
        observers = [ProgressObserver(_log)] if self.verbose else []
        run = perform(
            config, observers=observers, data=_source(task, _examples(texts, labels), config), group=SingleProcess()
        )
        assert run.trained is not None
        model = FinishedModel(checkpoint=run.trained.trained_model(), config=config, task=task)
        return self._become(model, run.result, run.trained.steps)

    def _become(self, model: FinishedModel, result: RunResult, steps: list[StepRecord]) -> Self:
        """Become a fitted estimator with this model."""
        self.result_, self._predictor, self._steps = result, Predictor(model), steps
        return self

    def _outputs(self, X: Any) -> Float32[np.ndarray, "N outputs"]:
        """Return the model's outputs, in the order of its head."""
        check_is_fitted(self)
        texts = text_columns(X)
        if (len(texts) == 2) != self._task.is_pair:
            needed, found = ("pairs", "single texts") if self._task.is_pair else ("single texts", "pairs")
            raise DataError(f"X holds {found}; the {type(self).__name__} was trained on {needed}.")
        return self._predictor.outputs(_examples(texts, None), keep=False)


def _examples(texts: Texts, labels: Sequence[Any] | None) -> Examples:
    return Examples(texts=texts, labels=labels, origin="X", line_numbers=range(len(texts[0])), unit="row")


def _source(task: Task, train: Examples, config: TrainConfig) -> LoadedSplits:
    """Return the examples as a source, a part of them held out where the best epoch is picked."""
    if not config.picks_best:
        return LoadedSplits(task=task, splits={"train": train})
    train, dev, note = divide(train, task, config.validation_fraction, config.split_seed)
    return LoadedSplits(task=task, splits={"train": train, "dev": dev}, notes=(note,))


def _explained(estimator: type[TextEstimator]) -> None:
    """Put the meaning of the parameters that are settings into the docstring, in place of `{settings}`."""
    names = [name for name in estimator._settings() if name in SETTINGS and name != "validation_fraction"]
    lines = [f"{name}: {SETTINGS[name].meaning}" for name in names]
    estimator.__doc__ = (estimator.__doc__ or "").replace("{settings}", f"\n{' ' * 8}".join(lines))


def _log(progress: Progress) -> None:
    loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
    logger.info(f"{progress.stage}: {progress.done} of {progress.total}{loss}")


class TextClassifier(ClassifierMixin, TextEstimator):
    """A BERT-like classifier of texts, or of pairs of texts, that is fine-tuned by `fit`.

    y is N labels: names, whole numbers or booleans. Each text may also have any number of labels (multi-label): then y is a
    list of N lists or sets of labels, or an array (N, K) of 0 and 1 as in scikit-learn, and `predict` returns such an
    array, its columns as in `classes_`. A parameter that is None has the value of the recipe.

    Args:
        {settings}
        class_weight: of the classes' losses. None: all are 1; `balanced`; or a dictionary of label -> weight, 1 for labels
            that it lacks. Weights are scaled to a mean of 1 over the training examples.
        validation_fraction: share of the examples that is held out to find the best epoch. Without keep_best and
            early_stopping all examples are trained on.
        random_state: the seed of batches, dropout and a new head; None: always 42.
        verbose: whether to log losses and progress, by Python's `logging` at the level INFO.

    Attributes:
        classes_: the labels, sorted; for an array of 0 and 1, the numbers of its columns.
        result_: the RunResult: settings, times, versions, and notes on what a reader must know.
    """

    classes_: NDArray[Any]
    _names: tuple[str, ...]  # what the task calls `classes_`

    def __init__(
        self,
        model: str | Path = "demo",
        *,
        backend: str = "torch",
        precision: str = "fp32",
        recipe: str = "classic",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        warmup_ratio: float | None = None,
        weight_decay: float | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        long_texts: str | None = None,
        window_overlap: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        label_smoothing: float | None = None,
        layer_decay: float | None = None,
        freeze_layers: int | None = None,
        freeze_embeddings: bool | None = None,
        keep_best: bool | None = None,
        early_stopping: int | None = None,
        validation_fraction: float | None = None,
        max_train_examples: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self._store(locals())

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their labels y.

        Raises:
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts, target = text_columns(X, to_train=True), Target.of(y)
        check_lengths(texts, len(target.encoded))
        self.classes_, self._names = target.classes, target.names
        weights = self._class_weights()
        if target.is_multilabel:
            sets = [tuple(self._names[i] for i in np.flatnonzero(row)) for row in target.encoded]
            return self._fit("multilabel", self._names, texts, sets, class_weights=weights)
        labels = [self._names[i] for i in target.encoded]
        return self._fit("classification", self._names, texts, labels, class_weights=weights)

    def decision_function(self, X: Any) -> Float32[np.ndarray, "..."]:
        """Return the logits, float32 (N, K).

        For two classes it is (N,), as in scikit-learn: the logit of the second class minus that of the first.
        """
        logits = self._logits(X)
        if self._task.kind is MULTILABEL or logits.shape[1] > 2:
            return logits
        difference: Float32[np.ndarray, " N"] = logits[:, 1] - logits[:, 0]
        return difference

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "N K"]:
        """Return the probability of each class, float64 (N, K), in the order of `classes_`."""
        logits = self._logits(X)
        return self._task.kind.probabilities(logits)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each text, of the type that y had; multi-label: int64 (N, K) of 0 and 1."""
        logits = self._logits(X)
        if self._task.kind is MULTILABEL:
            return (logits > 0).astype(np.int64)
        labels: NDArray[Any] = self.classes_[logits.argmax(1)]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; multi-label: the share of texts whose labels are all right."""
        check_is_fitted(self)
        if self._task.kind is MULTILABEL:
            y = indicator(y, self.classes_)
        return float(super().score(X, plain(y), sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _logits(self, X: Any) -> Float32[np.ndarray, "N K"]:
        """Return the outputs in the order of `classes_`, which is not always that of the model's head."""
        outputs = self._outputs(X)
        order = label_order(self._predictor.model.checkpoint, self._task)
        assert order is not None
        logits: Float32[np.ndarray, "N K"] = outputs[:, [order.index(name) for name in self._names]]
        return logits

    def _class_weights(self) -> str | None:
        """Return `class_weight` as the setting has it: a dictionary as JSON, by the names of the labels."""
        weights: Any = self.class_weight
        if not isinstance(weights, Mapping):
            if weights not in (None, "balanced"):
                raise ConfigError(f"class_weight is {brief(weights)}; None, 'balanced' or a dictionary was expected.")
            return None if weights is None else "balanced"
        labels = self.classes_.tolist()
        for label, weight in weights.items():
            if label not in labels:
                hint = did_you_mean(str(label), self._names)
                raise ConfigError(f"class_weight has the label {brief(label)}{hint}; y has {listed(labels)}.")
            is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
            if not is_number or not 0 < weight < np.inf:
                raise ConfigError(f"class_weight of {brief(label)} is {brief(weight)}; a number above 0 was expected.")
        return json.dumps({name: float(weights.get(label, 1)) for label, name in zip(labels, self._names, strict=True)})


class TextRegressor(RegressorMixin, TextEstimator):
    """A BERT-like model that predicts a number for texts, or pairs of texts, fine-tuned by `fit` on the squared error.

    It learns numbers of the size of a few units best: scale others, by `sklearn.compose.TransformedTargetRegressor`, say.
    A parameter that is None has the value of the recipe.

    Args:
        {settings}
        validation_fraction, random_state, verbose: as in `TextClassifier`.

    Attributes:
        result_: the RunResult: settings, times, versions, and notes on what a reader must know.
    """

    def __init__(
        self,
        model: str | Path = "demo",
        *,
        backend: str = "torch",
        precision: str = "fp32",
        recipe: str = "classic",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        warmup_ratio: float | None = None,
        weight_decay: float | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        long_texts: str | None = None,
        window_overlap: int | None = None,
        layer_decay: float | None = None,
        freeze_layers: int | None = None,
        freeze_embeddings: bool | None = None,
        keep_best: bool | None = None,
        early_stopping: int | None = None,
        validation_fraction: float | None = None,
        max_train_examples: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
    ) -> None:
        self._store(locals())

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their numbers y.

        Raises:
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts, values = text_columns(X, to_train=True), numbers(y)
        check_lengths(texts, len(values))
        return self._fit("regression", None, texts, [*map(repr, values.tolist())])

    def predict(self, X: Any) -> Float64[np.ndarray, " N"]:
        """Return the number of each text, float64 (N,)."""
        return self._outputs(X)[:, 0].astype(np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2: 1 for perfect predictions, 0 for always predicting the mean of y."""
        return float(super().score(X, plain(y), sample_weight))


_explained(TextClassifier)
_explained(TextRegressor)


def load(directory: str | Path) -> TextClassifier | TextRegressor:
    """Return the fitted estimator of a run directory, which `isinglass train` or `save` wrote.

    Its parameters are the run's settings, so that `clone` and `fit` train as the run did. If all labels are whole numbers,
    `classes_` holds numbers; otherwise it holds names.

    Raises:
        DataError: it is no run directory, or is damaged.
    """
    directory = Path(directory)
    model = load_run(directory)
    result, settings = RunResult.read(directory / RESULT), as_dict(model.config)
    if model.task.labels is None:
        regressor = TextRegressor(**{name: settings[key] for name, key in TextRegressor._settings().items()})
        return regressor._become(model, result, [])
    label_order(model.checkpoint, model.task)  # refuses a head for other labels
    labels = _labels(model.task.labels)
    parameters = {name: settings[key] for name, key in TextClassifier._settings().items()}
    if parameters["class_weight"] != "balanced":
        parameters["class_weight"] = _class_weight(parameters["class_weight"], labels)
    classifier = TextClassifier(**parameters)
    classifier.classes_ = np.array(sorted(labels))
    classifier._names = tuple(labels[label] for label in classifier.classes_.tolist())
    return classifier._become(model, result, [])


def _labels(names: Sequence[str]) -> dict[Any, str]:
    """Return label -> its name: labels are numbers if all names are those of whole numbers."""
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in names):
        return {int(name): name for name in names}
    return {name: name for name in names}


def _class_weight(setting: str | None, labels: dict[Any, str]) -> dict[Any, float] | None:
    """Return the parameter `class_weight`; None if the run read its weights from a file, which is not read again."""
    if setting is None or not setting.lstrip().startswith("{"):
        return None
    weights = json.loads(setting)
    return {label: weights[name] for label, name in labels.items()}
