"""The estimators: a classifier and a regressor of texts."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from isinglass.config import SETTINGS, as_dict, resolve
from isinglass.data.custom import divide
from isinglass.data.examples import Examples, LoadedSplits
from isinglass.errors import ConfigError, DataError
from isinglass.estimators.inputs import Texts, classes_and_labels, indicator, numbers, text_columns
from isinglass.estimators.progress import fit_progress
from isinglass.names import brief, did_you_mean, listed
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT, FinishedModel, load_run, write_run
from isinglass.tasks import MULTILABEL, KindName
from isinglass.tasks.custom import custom_task
from isinglass.training.observers import ProgressObserver, StepRecord
from isinglass.training.preparation import label_order
from isinglass.training.trainer import TrainedRun, train

Estimator = TypeVar("Estimator", bound="TextEstimator")
RENAMED: Final = {"class_weight": "class_weights", "random_state": "seed"}  # scikit-learn's name -> that of the setting


@dataclass(eq=False, repr=False)
class TextEstimator(BaseEstimator):
    """What both estimators share: texts in, a run, outputs out."""

    model: str | Path = "demo"
    _: KW_ONLY
    backend: str = "torch"
    precision: str = "fp32"
    recipe: str = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    warmup_ratio: float | None = None
    weight_decay: float | None = None
    max_length: int | None = None
    dropout: float | None = None
    long_texts: str | None = None
    window_overlap: int | None = None
    layer_decay: float | None = None
    freeze_layers: int | None = None
    freeze_embeddings: bool | None = None
    keep_best: bool | None = None
    early_stopping: int | None = None
    validation_fraction: float | None = None
    max_train_examples: int | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: bool | int = False
    result_: RunResult = field(init=False)
    _model: FinishedModel = field(init=False)
    _steps: list[StepRecord] = field(init=False)

    def save(self, directory: str | Path, *, overwrite: bool = False) -> RunResult:
        """Write a run directory, which `isinglass.load` and the command line read, and `transformers` its `model/`.

        Raises:
            OutputExistsError: it exists, and `overwrite` is false.
        """
        check_is_fitted(self)
        config, task, model = self._model.config, self._model.task, self._model.checkpoint
        run = TrainedRun(config=config, task=task, result=self.result_, model=model, steps=self._steps, scored=[])
        return write_run(run, Path(directory), overwrite=overwrite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    @classmethod
    def _settings(cls) -> dict[str, str]:
        """Return parameter -> setting."""
        return {name: RENAMED.get(name, name) for name in cls._get_param_names() if name != "verbose"}

    def _fit(self, kind: KindName, names: Sequence[str] | None, texts: Texts, labels: Sequence[Any], **changes: Any) -> Self:
        """Train on texts and the names of their labels.

        Args:
            names: of all labels; None for regression.
            changes: settings that differ from the parameter.
        """
        if len(texts[0]) != len(labels):
            raise DataError(f"X has {len(texts[0]):,} texts and y {len(labels):,} labels; as many of each were expected.")
        flags = {setting: getattr(self, name) for name, setting in self._settings().items()} | changes
        if isinstance(flags["seed"], np.random.RandomState):
            flags["seed"] = flags["seed"].randint(2**31)
        name = "text-regressor" if kind == "regression" else "text-classifier"
        config = resolve(task=name, flags=flags | {"model": str(self.model)})
        columns = ("text", "text2")[: len(texts)]
        tunes_threshold = kind == "multilabel" and (config.tune_threshold or "tune_threshold" in config.chosen)
        needs_dev = config.picks_best or tunes_threshold
        splits = ["train", "dev"] if needs_dev else ["train"]
        task = custom_task(name=name, kind=kind, labels=names, text_columns=columns, label_column="label", splits=splits)
        examples = _examples(texts, labels)
        data = LoadedSplits(task=task, splits={"train": examples})
        if needs_dev:
            rest, held_out, note = divide(examples, task, config.validation_fraction, config.split_seed)
            data = LoadedSplits(task=task, splits={"train": rest, "dev": held_out}, notes=(note,))
        with fit_progress() if self.verbose else nullcontext() as show:
            trained = train(config, [ProgressObserver(show)] if show else [], data=data)
        self._model = FinishedModel(checkpoint=trained.model, config=trained.config, task=task)
        self._model.warm_up()
        self.result_, self._steps = trained.result, trained.steps
        return self

    def _outputs(self, X: Any) -> Float32[np.ndarray, "N outputs"]:
        """Return the model's outputs, in the order of its head."""
        check_is_fitted(self)
        texts = text_columns(X)
        if not texts[0]:
            return np.zeros((0, self._model.task.num_outputs), np.float32)
        if (len(texts) == 2) != self._model.task.is_pair:
            needed, found = ("pairs", "single texts") if self._model.task.is_pair else ("single texts", "pairs")
            raise DataError(f"X holds {found}; the {type(self).__name__} was trained on {needed}.")
        return self._model.outputs(_examples(texts, None), keep=False)


def _examples(texts: Texts, labels: Sequence[Any] | None) -> Examples:
    return Examples(texts=texts, labels=labels, origin="X", line_numbers=range(len(texts[0])), unit="row")


def _explained(estimator: type[Estimator]) -> type[Estimator]:
    """Put the meaning of the parameters that are settings into the docstring, in place of `{settings}`."""
    names = [name for name in estimator._settings() if name in SETTINGS and name != "validation_fraction"]
    lines = [f"{name}: {SETTINGS[name].meaning}" for name in names]
    estimator.__doc__ = (estimator.__doc__ or "").replace("{settings}", f"\n{' ' * 8}".join(lines))
    return estimator


@_explained
@dataclass(eq=False, repr=False, kw_only=True)
class TextClassifier(ClassifierMixin, TextEstimator):
    """A BERT-like classifier of texts, or of pairs of texts, that is fine-tuned by `fit`.

    y is N labels: names, whole numbers or booleans. Each text may also have any number of labels (multi-label): then y is a
    list of N lists or sets of labels, or an array (N, K) of 0 and 1 as in scikit-learn, and `predict` returns such an
    array, its columns as in `classes_`. A parameter that is None has the value of the recipe.

    Args:
        {settings}
        class_weight: of the classes' losses. None: all are 1; `balanced`; or a dictionary of label -> weight, 1 for labels
            that it lacks. Weights are scaled to a mean of 1 over the training examples.
        validation_fraction: share of the examples that is held out to find the best epoch, or the threshold of several
            labels. Without keep_best, early_stopping and tune_threshold all examples are trained on; the recipe `auto` tunes
            the threshold.
        random_state: the seed of batches, dropout and a new head; None: always 42.
        verbose: whether to show progress and losses on the standard error stream: a bar on a terminal, else lines. They are
            logged too, by Python's `logging` at the level INFO.

    Attributes:
        classes_: the labels, sorted; for an array of 0 and 1, the numbers of its columns.
        result_: the RunResult: settings, times, versions, and notes on what a reader must know.
    """

    class_weight: str | Mapping[Any, float] | None = None
    label_smoothing: float | None = None
    tune_threshold: bool | None = None
    classes_: NDArray[Any] = field(init=False)
    _names: tuple[str, ...] = field(init=False)  # what the task calls `classes_`

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their labels y.

        Raises:
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts = text_columns(X, to_train=True)
        self.classes_, self._names, labels = classes_and_labels(y)
        kind: KindName = "multilabel" if isinstance(labels[0], tuple) else "classification"
        return self._fit(kind, self._names, texts, labels, class_weights=self._class_weights())

    def decision_function(self, X: Any) -> Float32[np.ndarray, "..."]:
        """Return the logits, float32 (N, K).

        For two classes it is (N,), as in scikit-learn: the logit of the second class minus that of the first.
        """
        logits = self._logits(X)
        if self._model.task.kind is MULTILABEL or logits.shape[1] > 2:
            return logits
        return np.diff(logits).ravel()

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "N K"]:
        """Return the probability of each class, float64 (N, K), in the order of `classes_`."""
        logits = self._logits(X)
        return self._model.task.kind.probabilities(logits)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each text, of the type that y had; multi-label: int64 (N, K) of 0 and 1.

        A text has the labels whose probability is above `result_.threshold`.
        """
        logits = self._logits(X)
        kind = self._model.task.kind
        if kind is MULTILABEL:
            return kind.decide(logits, self._model.checkpoint.threshold).astype(np.int64)
        return np.asarray(self.classes_[logits.argmax(1)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; multi-label: the share of texts whose labels are all right."""
        check_is_fitted(self)
        if self._model.task.kind is MULTILABEL:
            y = indicator(y, self.classes_)
        return float(super().score(X, y, sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _logits(self, X: Any) -> Float32[np.ndarray, "N K"]:
        """Return the outputs in the order of `classes_`, which is not always that of the model's head."""
        outputs = self._outputs(X)
        order = label_order(self._model.checkpoint, self._model.task)
        assert order is not None
        return outputs.take([order.index(name) for name in self._names], axis=1)

    def _class_weights(self) -> str | None:
        """Return `class_weight` as the setting has it: a dictionary as JSON, by the names of the labels."""
        weights: Any = self.class_weight
        if weights is None or (isinstance(weights, str) and weights == "balanced"):
            return weights
        if not isinstance(weights, Mapping):
            raise ConfigError(f"class_weight is {brief(weights)}; None, 'balanced' or a dictionary was expected.")
        names = dict(zip(self.classes_.tolist(), self._names, strict=True))
        for label in weights.keys() - names.keys():
            hint = did_you_mean(str(label), self._names)
            raise ConfigError(f"class_weight has the label {brief(label)}{hint}; y has {listed(names)}.")
        return json.dumps({name: weights.get(label, 1.0) for label, name in names.items()}, default=float)

    def _take_labels(self, names: Sequence[str], weights: str | None) -> None:
        """Set the classes of a saved run, and their weights: those of a file are not read again."""
        are_numbers = all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in names)
        labels: dict[Any, str] = dict(zip(map(int, names) if are_numbers else names, names, strict=True))
        self.classes_ = np.array(sorted(labels))
        self._names = tuple(map(labels.__getitem__, self.classes_.tolist()))
        if weights is not None and weights != "balanced":
            is_json = weights.lstrip().startswith("{")
            self.class_weight = {label: json.loads(weights)[name] for label, name in labels.items()} if is_json else None


@_explained
@dataclass(eq=False, repr=False, kw_only=True)
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

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their numbers y.

        Raises:
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts, values = text_columns(X, to_train=True), numbers(y)
        return self._fit("regression", None, texts, [*map(repr, values.tolist())])

    def predict(self, X: Any) -> Float64[np.ndarray, " N"]:
        """Return the number of each text, float64 (N,)."""
        return self._outputs(X)[:, 0].astype(np.float64)


def load(directory: str | Path, *, precision: str = "fp32") -> TextClassifier | TextRegressor:
    """Return the fitted estimator of a run directory, which `isinglass train` or `save` wrote, ready to predict.

    It predicts in fp32, also where the run was trained in another precision: its probabilities are those of `transformers`
    and of the exported ONNX model.

    Its parameters are the run's settings, so that `clone` and `fit` train as the run did. If all labels are whole numbers,
    `classes_` holds numbers; otherwise it holds names.

    Args:
        precision: what to predict in, such as `bf16`, which is faster on devices that have it.

    Raises:
        DataError: it is no run directory, or is damaged.
        ConfigError: there is no such precision, or the device does not have it.
    """
    directory = Path(directory)
    model = load_run(directory)
    result, settings = RunResult.read(directory / RESULT), as_dict(model.config)
    kind = TextRegressor if model.task.labels is None else TextClassifier
    estimator = kind(**{name: settings[key] for name, key in kind._settings().items()})
    if isinstance(estimator, TextClassifier):
        estimator._take_labels(model.task.labels or (), settings["class_weights"])
        label_order(model.checkpoint, model.task)  # refuses a head for other labels
    changes: dict[str, Any] = {"precision": precision}
    model = replace(model, config=replace(model.config, **changes))
    model.warm_up()
    estimator._model, estimator.result_, estimator._steps = model, result, []
    return estimator
