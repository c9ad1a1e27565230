"""Fine-tuning in the manner of scikit-learn: `TextClassifier`, `TextRegressor`, and `load` for what a run left.

    from isinglass import TextClassifier, load

    classifier = TextClassifier(epochs=2, max_length=64).fit(["good", "bad", "fine", "poor"], [1, 0, 1, 0])
    classifier.predict(["nice"])              # array([1])
    classifier.predict_proba(["nice"])        # float64 (1, 2), columns as in classifier.classes_
    load("runs/x").predict(["nice"])          # what `isinglass train` or `classifier.save` wrote

X is N texts, or N pairs of texts: a list, an array of NumPy, a Series or DataFrame of pandas or polars, an array or table of
Arrow; pairs are tuples of two, or two columns. All of y is trained on, unless a share is held back to find the best epoch.

Both work in pipelines, cross-validation, searches, `clone` and pickles. Of scikit-learn's own checks (`check_estimator`) all
hold that can be asked of an estimator of texts. These cannot:

    n_features_in_, feature names,   a text has no columns that could be counted or named
      "0 feature(s)" in a message
    X of numbers, sparse, complex,   refused: such X is a mistake here, whatever its shape
      NaN, infinite, of one dtype
      or another
    X of one dimension is refused    a list of texts has one dimension
    accuracy on blobs, R^2 on        they test how well points are told apart, by an estimator that converges in an instant;
      numbers, class weights         the tests of this package train on texts
    sample_weight                    not a parameter of fit: a step is so many examples, each counting as much as its class
    partial_fit, n_iter_             a fit is a whole run: its warm-up and decay need to know where the end is
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, column_or_1d

from isinglass.backends.process_group import SingleProcess
from isinglass.config import TrainConfig, as_dict, resolve
from isinglass.data.custom.holdout import divide
from isinglass.data.examples import Examples
from isinglass.data.source import LoadedSplits
from isinglass.errors import ConfigError, DataError
from isinglass.names import brief, did_you_mean, listed
from isinglass.results import RunResult
from isinglass.runs.directory import RESULT
from isinglass.runs.loading import FinishedModel, load_run
from isinglass.runs.perform import perform
from isinglass.runs.predictor import Predictor
from isinglass.runs.writing import write_run
from isinglass.tasks import Task
from isinglass.tasks.custom import custom_task
from isinglass.training.labels import label_order
from isinglass.training.observers import StepRecord
from isinglass.training.prediction import probabilities
from isinglass.training.progress import Progress, ProgressObserver
from isinglass.training.trainer import TrainedRun

logger = logging.getLogger(__name__)

DEFAULT_SEED: Final = 42
RENAMED: Final = {"class_weight": "class_weights", "random_state": "seed"}  # scikit-learn's name -> that of TrainConfig
MISSING: Final = ("None", "nan", "NaT", "<NA>")  # how Python, NumPy and pandas write what is not there
Texts = tuple[list[str], ...]  # one column, or two


class _TextEstimator(BaseEstimator):
    """What both estimators share: texts in, a run, outputs out."""

    result_: RunResult
    _predictor: Predictor
    _steps: list[StepRecord]

    def _fit(self, texts: Texts, labels: Sequence[Any], task: Task, config: TrainConfig) -> Self:
        """Train on the texts, whose labels are names of the task's, and keep what the run leaves."""
        examples = {"train": Examples(texts=texts, labels=labels, origin="X", line_numbers=range(len(labels)), unit="row")}
        notes = []
        if config.picks_best:
            examples["train"], examples["dev"], note = divide(
                examples["train"], task, config.validation_fraction, config.split_seed
            )
            notes = [note]
        data = LoadedSplits(task=task, splits=examples, notes=tuple(notes))
        observers = [ProgressObserver(self._report)] if self.verbose else []
        run = perform(config, observers=observers, data=data, group=SingleProcess()).trained
        assert run is not None
        self._keep(FinishedModel(checkpoint=run.trained_model(), config=config, task=run.task), run.result, run.steps)
        return self

    def _keep(self, model: FinishedModel, result: RunResult, steps: list[StepRecord]) -> None:
        self.result_ = result
        self._predictor = Predictor(model)
        self._steps = steps

    @property
    def _task(self) -> Task:
        task: Task = self._predictor.model.task
        return task

    def _config(self, task: str, **changes: Any) -> TrainConfig:
        flags = {RENAMED.get(name, name): value for name, value in self.get_params(deep=False).items() if name != "verbose"}
        if isinstance(self.random_state, np.random.RandomState):
            flags["seed"] = check_random_state(self.random_state).randint(2**31)
        return resolve(task=task, flags={"seed": DEFAULT_SEED} | flags | changes | {"model": str(self.model)})

    def _report(self, now: Progress) -> None:
        loss = "" if now.loss is None else f", loss {now.loss:.4f}"
        logger.info(f"{now.stage}: {now.done} of {now.total}{loss}")

    def _outputs(self, X: Any) -> Float32[np.ndarray, "N outputs"]:
        check_is_fitted(self)
        texts = _texts(X)
        if (len(texts) == 2) != self._task.is_pair:
            needed, found = ("pairs", "single texts") if self._task.is_pair else ("single texts", "pairs")
            raise DataError(f"X holds {found}; the {type(self).__name__} was trained on {needed}.")
        examples = Examples(texts=texts, labels=None, origin="X", line_numbers=range(len(texts[0])), unit="row")
        return self._predictor.outputs(examples, keep=False)

    def save(self, directory: str | Path, *, overwrite: bool = False) -> RunResult:
        """Write a run directory, which `isinglass.load`, the command line and, its `model/`, `transformers` read.

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


class TextClassifier(ClassifierMixin, _TextEstimator):
    """A BERT-like classifier of texts, or of pairs of texts, that is fine-tuned by `fit`.

    y is N labels: names, whole numbers or booleans. It may also give each text any number of labels (multi-label), as a list
    of N lists or sets of labels, or as scikit-learn has it, an array (N, K) of 0 and 1; `predict` then answers with such an
    array, its columns as in `classes_`.

    Args:
        model: a checkpoint directory, a name on the hub (`USER/NAME`, or `USER/NAME@COMMIT`), or `demo`.
        backend: `torch`, `tensorflow` or `jax`.
        precision: of the matrix products: `fp32`, `bf16`, `fp16` or `amp`.
        recipe: where the values come from that are None: `classic` or `small`.
        epochs, batch_size, learning_rate, warmup_ratio, weight_decay, max_length, dropout, long_texts, window_overlap,
            label_smoothing, layer_decay, freeze_layers, freeze_embeddings, max_train_examples: as in
            `isinglass.TrainConfig`, where all are explained; None: the recipe's.
        class_weight: of the classes' losses: None: all alike; `balanced`; or a dictionary of label -> weight, 1 for those
            left out. Weights are scaled to a mean of 1 over the training examples.
        keep_best: keep the weights of the best epoch, by the score on held-out examples, instead of the last's.
        early_stopping: the same, and stop after so many epochs in a row without a better one.
        validation_fraction: share of the examples that is held out for that; else all are trained on.
        random_state: the seed of batches, dropout and a new head; None: always 42.
        verbose: log losses and progress, by Python's `logging` at the level INFO.

    Attributes:
        classes_: the labels, sorted; for an array of 0 and 1, the numbers of its columns.
        result_: the RunResult: settings, times, versions, and notes on what a reader must know.
    """

    classes_: np.ndarray[Any, Any]
    _names: tuple[str, ...]  # of `classes_`, in the task

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
        self.model = model
        self.backend = backend
        self.precision = precision
        self.recipe = recipe
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warmup_ratio = warmup_ratio
        self.weight_decay = weight_decay
        self.max_length = max_length
        self.dropout = dropout
        self.long_texts = long_texts
        self.window_overlap = window_overlap
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.layer_decay = layer_decay
        self.freeze_layers = freeze_layers
        self.freeze_embeddings = freeze_embeddings
        self.keep_best = keep_best
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.max_train_examples = max_train_examples
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their labels y.

        Raises:
            DataError: a ValueError: X or y is not what is needed; it names the row, counted from 0.
            ConfigError: a ValueError: a parameter is out of range, or does not fit another.
        """
        texts, target = _texts(X, to_train=True), _Target.of(y)
        _check_lengths(texts, target.rows)
        self.classes_, self._names = target.classes, tuple(map(_label_name, target.classes.tolist()))
        config = self._config("text-classifier", class_weights=self._class_weights())
        task = custom_task(
            name=config.task,
            kind="multilabel" if target.is_multilabel else "classification",
            labels=self._names,
            text_columns=("text", "text2")[: len(texts)],
            label_column="label",
            splits=["train", "dev"] if config.picks_best else ["train"],
        )
        if target.is_multilabel:
            labels = [tuple(self._names[i] for i in np.flatnonzero(row)) for row in target.encoded]
            return self._fit(texts, labels, task, config)
        return self._fit(texts, [self._names[i] for i in target.encoded], task, config)

    def _class_weights(self) -> str | None:
        """`class_weight` as TrainConfig has it: a dictionary as JSON, by the labels' names."""
        weights = self.class_weight
        if not isinstance(weights, Mapping):
            if weights not in (None, "balanced"):
                raise ConfigError(f"class_weight is {brief(weights)}; None, 'balanced' or a dictionary was expected.")
            return weights
        known = self.classes_.tolist()
        for label, weight in weights.items():
            if label not in known:
                hint = did_you_mean(str(label), self._names)
                raise ConfigError(f"class_weight has the label {brief(label)}{hint}; y has {listed(known)}.")
            if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 < weight < np.inf:
                raise ConfigError(f"class_weight of {brief(label)} is {brief(weight)}; a number above 0 was expected.")
        return json.dumps({name: float(weights.get(label, 1)) for label, name in zip(known, self._names, strict=True)})

    def _logits(self, X: Any) -> Float32[np.ndarray, "N K"]:
        """In the order of `classes_`, which is not always that of the model's outputs."""
        outputs = self._outputs(X)
        order = label_order(self._predictor.model.checkpoint, self._task)
        assert order is not None
        logits: Float32[np.ndarray, "N K"] = outputs[:, [order.index(name) for name in self._names]]
        return logits

    def decision_function(self, X: Any) -> Float32[np.ndarray, "..."]:
        """The logits, float32 (N, K); of two classes, as scikit-learn has it, (N,): that of the second less the first's."""
        logits = self._logits(X)
        if self._task.is_multilabel or logits.shape[1] > 2:
            return logits
        difference: Float32[np.ndarray, " N"] = logits[:, 1] - logits[:, 0]
        return difference

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "N K"]:
        """The probability of each class, float64 (N, K), in the order of `classes_`."""
        return probabilities(self._logits(X), self._task)

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """The most probable label of each text, in y's own kind; multi-label: int64 (N, K) of 0 and 1."""
        logits = self._logits(X)
        if self._task.is_multilabel:
            return (logits > 0).astype(np.int64)
        answers: np.ndarray[Any, Any] = self.classes_[logits.argmax(1)]
        return answers

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy; multi-label: the share of texts whose labels are all right."""
        check_is_fitted(self)
        if self._task.is_multilabel:
            y = _indicator(y, self.classes_)
        return float(super().score(X, _plain(y), sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class TextRegressor(RegressorMixin, _TextEstimator):
    """A BERT-like model that gives texts, or pairs of texts, a number, fine-tuned by `fit` on the squared error.

    Numbers of some few units are learned best: scale others, say by `sklearn.compose.TransformedTargetRegressor`.

    Args:
        As of `TextClassifier`, but for class_weight and label_smoothing, which are for classes.

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
        self.model = model
        self.backend = backend
        self.precision = precision
        self.recipe = recipe
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.warmup_ratio = warmup_ratio
        self.weight_decay = weight_decay
        self.max_length = max_length
        self.dropout = dropout
        self.long_texts = long_texts
        self.window_overlap = window_overlap
        self.layer_decay = layer_decay
        self.freeze_layers = freeze_layers
        self.freeze_embeddings = freeze_embeddings
        self.keep_best = keep_best
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.max_train_examples = max_train_examples
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the texts X and their numbers y.

        Raises:
            DataError: a ValueError: X or y is not what is needed; it names the row, counted from 0.
            ConfigError: a ValueError: a parameter is out of range, or does not fit another.
        """
        texts, values = _texts(X, to_train=True), _numbers(y)
        _check_lengths(texts, len(values))
        config = self._config("text-regressor")
        task = custom_task(
            name=config.task,
            kind="regression",
            labels=None,
            text_columns=("text", "text2")[: len(texts)],
            label_column="label",
            splits=["train", "dev"] if config.picks_best else ["train"],
        )
        return self._fit(texts, [*map(repr, values.tolist())], task, config)

    def predict(self, X: Any) -> Float64[np.ndarray, " N"]:
        """The number of each text, float64 (N,)."""
        return self._outputs(X)[:, 0].astype(np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2: 1 for perfect answers, 0 for always answering the mean of y."""
        return float(super().score(X, _plain(y), sample_weight))


def load(directory: str | Path) -> TextClassifier | TextRegressor:
    """The fitted estimator of a run directory: what `isinglass train` wrote, or `save`.

    Its parameters are the run's settings, so that `clone` and `fit` train anew as the run did. Labels that are whole numbers
    are such in `classes_` too; others are names.

    Raises:
        DataError: it is no run directory, or damaged.
    """
    directory = Path(directory)
    model = load_run(directory)
    settings = as_dict(model.config)
    kind = TextRegressor if model.task.is_regression else TextClassifier
    known = {name: settings[RENAMED.get(name, name)] for name in kind._get_param_names() if name != "verbose"}
    if model.task.labels is not None and known["class_weight"] != "balanced":
        known["class_weight"] = _weights_of(known["class_weight"], model.task.labels)
    estimator: TextClassifier | TextRegressor = kind(**known)
    if isinstance(estimator, TextClassifier):
        assert model.task.labels is not None
        label_order(model.checkpoint, model.task)  # refuses a head for other labels
        classes = _classes(model.task.labels)
        estimator.classes_ = np.array(sorted(classes))
        estimator._names = tuple(classes[label] for label in estimator.classes_.tolist())
    estimator._keep(model, RunResult.read(directory / RESULT), [])
    return estimator


def _classes(names: Sequence[str]) -> dict[Any, str]:
    """Label -> name: whole numbers if all names are such."""
    if all(name.removeprefix("-").isdecimal() and str(int(name)) == name for name in names):
        return {int(name): name for name in names}
    return {name: name for name in names}


def _weights_of(class_weights: str | None, names: Sequence[str]) -> dict[Any, float] | None:
    """`class_weight` of a run: None where its file is not read again."""
    if class_weights is None or not class_weights.lstrip().startswith("{"):
        return None
    weights = json.loads(class_weights)
    return {label: weights[name] for label, name in _classes(names).items()}


# ---- X -----------------------------------------------------------------


def _texts(X: Any, *, to_train: bool = False) -> Texts:
    """X as one column of texts, or two.

    Args:
        to_train: refuse texts of nothing but spaces, from which there is nothing to learn.

    Raises:
        DataError: X is something else.
    """
    if isinstance(X, str | bytes):
        raise DataError(f"X is a single text, {brief(X)}; a list of texts was expected: write [text].")
    if isinstance(X, Mapping | set | frozenset):
        raise DataError(f"X is a {type(X).__name__}; texts in an order were expected: a list, say.")
    columns = _columns(X)
    if not columns[0]:
        raise DataError("X holds no text (0 samples, while a minimum of 1 is required).")
    for column in columns:
        for row, text in enumerate(column):
            if not isinstance(text, str):
                raise DataError(f"X, row {row}: {brief(text)} ({type(text).__name__}) was found; a text was expected.")
            if to_train and not text.strip():
                raise DataError(f"X, row {row}: the text is empty: fill it in, or leave the row out.")
            if not text.isascii():
                _check_characters(text, row)
    return tuple([str(text) for text in column] for column in columns)  # NumPy's own strings are made Python's


def _check_characters(text: str, row: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"X, row {row}: {ascii(text)[:60]} holds half of a surrogate pair, which is no character.") from None


def _columns(X: Any) -> tuple[list[Any], ...]:
    """Columns of whatever X is, unchecked: one, or two."""
    if hasattr(X, "column_names") and hasattr(X, "columns"):  # Arrow's table
        columns = [column.to_pylist() for column in X.columns]
    else:
        rows = _plain(X)
        try:
            rows = rows.tolist() if isinstance(rows, np.ndarray) else [*rows]
        except TypeError as error:
            raise DataError(f"X is {type(X).__name__}; a list of texts was expected ({error}).") from None
        first = rows[0] if rows else ""
        if isinstance(first, str) or not isinstance(first, list | tuple | np.ndarray):
            return (rows,)
        for row, pair in enumerate(rows):
            if not isinstance(pair, list | tuple | np.ndarray) or len(pair) != len(first):
                raise DataError(f"X, row {row}: {brief(pair)} was found; {len(first)} texts, as in row 0, were expected.")
        columns = [list(column) for column in zip(*rows, strict=True)]
    if len(columns) not in (1, 2):
        raise DataError(f"X has {len(columns)} columns; one of texts, or two for pairs, were expected.")
    return tuple(columns)


def _plain(values: Any) -> Any:
    """Of a Series, a DataFrame, an Arrow array: NumPy's array of Python's values; a list as it is."""
    if hasattr(values, "to_pylist"):
        return values.to_pylist()
    if isinstance(values, list | tuple) or not hasattr(values, "__array__"):
        return values
    array = np.asarray(values)
    if array.ndim == 0:
        raise DataError(f"{brief(values)} is a single value; a list was expected.")
    return array


def _check_lengths(texts: Texts, rows: int) -> None:
    if len(texts[0]) != rows:
        raise DataError(f"X has {len(texts[0]):,} texts and y {rows:,} labels; as many of each were expected.")


# ---- y -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Target:
    """y of a classifier.

    Attributes:
        classes: sorted, (K,).
        encoded: int64 (N,), places in `classes`; multi-label: (N, K) of 0 and 1.
    """

    classes: np.ndarray[Any, Any]
    encoded: np.ndarray[Any, Any]

    @property
    def is_multilabel(self) -> bool:
        """Whether a text may have any number of the labels."""
        return self.encoded.ndim == 2

    @property
    def rows(self) -> int:
        """Examples."""
        return len(self.encoded)

    @staticmethod
    def of(y: Any) -> "_Target":
        """Tell classes and kind.

        Raises:
            DataError: y is not labels.
        """
        values = _checked(y)
        if values.ndim == 2 or _is_of_lists(values):
            classes = np.arange(values.shape[1]) if values.ndim == 2 else _sorted(one for row in values for one in row)
            _check_classes(classes)
            return _Target(classes=classes, encoded=_indicator(y, classes))
        if values.dtype.kind == "f" and (fraction := np.flatnonzero(values % 1)).size:
            row = fraction[0]
            raise DataError(
                f"Unknown label type: y, row {row} is {values[row]}; names or whole numbers were expected (TextRegressor is "
                f"for others)."
            )
        classes = _sorted(values) if values.dtype == object else np.unique(values)
        _check_classes(classes)
        place = {label: i for i, label in enumerate(classes.tolist())}
        return _Target(classes=classes, encoded=np.array([place[label] for label in values.tolist()], np.int64))


def _check_classes(classes: np.ndarray[Any, Any]) -> None:
    if len(classes) < 2:
        found = f"one class, {brief(classes.tolist()[0])}" if len(classes) else "no class"
        raise DataError(f"y has {found}; two are the least that can be told apart.")


def _sorted(labels: Iterable[Any]) -> np.ndarray[Any, Any]:
    """The different labels in order: as numbers or texts if all are such, else as objects."""
    found = {*labels}
    kinds = {bool if isinstance(one, bool | np.bool_) else str if isinstance(one, str) else int for one in found}
    odd = [one for one in found if not isinstance(one, str | bool | int | float | np.number | np.bool_)]
    if odd or len(kinds) > 1:
        names = odd[:1] or sorted(found, key=str)
        raise DataError(f"y holds {listed(names, 100)}; names only, or whole numbers only, were expected.")
    return np.array(sorted(found), dtype=object if kinds == {str} else None)


def _is_of_lists(values: np.ndarray[Any, Any]) -> bool:
    return values.dtype == object and len(values) > 0 and isinstance(values[0], list | tuple | set | frozenset)


def _checked(y: Any) -> np.ndarray[Any, Any]:
    """Make y an array (N,), or (N, K) of 0 and 1; lists of labels as objects (N,). Nothing is missing.

    Raises:
        DataError: y is none of these.
    """
    if y is None:
        raise DataError("The estimator requires y to be passed, but the target y is None.")
    if isinstance(y, str | bytes | Mapping | set | frozenset):
        raise DataError(f"y is {brief(y)}; a label for each text was expected, in a list, say.")
    y = y.toarray() if hasattr(y, "toarray") else _plain(y)  # toarray: a sparse matrix
    if not isinstance(y, np.ndarray):
        y = [*y]
        if y and any(isinstance(row, list | tuple | set | frozenset) for row in y):
            y = _of_lists(y)
        else:
            numbers = [one for one in y if not isinstance(one, str)]
            y = np.array(y, dtype=object if 0 < len(numbers) < len(y) else None)  # NumPy would make [1, "a"] two texts
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if y.ndim > 2 or y.dtype.kind not in "OUSTbiuf":
        raise DataError(f"y is an array of shape {y.shape} and dtype {y.dtype}; a label for each text was expected.")
    if y.dtype.kind in "ST":
        y = y.astype(str)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = np.argwhere(~np.isfinite(y))[0, 0]
        raise DataError(f"y, row {row} is {y[row]} (NaN or infinite); a label was expected.")
    for row, value in enumerate(y.ravel()) if y.dtype == object and not _is_of_lists(y) else ():
        if not isinstance(value, str) and str(value) in MISSING:
            raise DataError(f"y, row {row} is {value}; a label was expected.")
    if y.ndim == 2 and not np.isin(y, (0, 1)).all():
        row = np.argwhere(~np.isin(y, (0, 1)))[0, 0]
        raise DataError(f"y, row {row} is {brief(y[row].tolist())}; a single label, or 0 and 1 for each, was expected.")
    return y  # type: ignore[no-any-return]


def _of_lists(rows: list[Any]) -> np.ndarray[Any, Any]:
    """Lists of labels as objects (N,); or, where all are as long and of 0 and 1 only, an array (N, K)."""
    for row, labels in enumerate(rows):
        if not isinstance(labels, list | tuple | set | frozenset):
            raise DataError(f"y, row {row} is {brief(labels)}; a list of labels, as other rows have, was expected.")
    first = rows[0]
    if len(first) > 1 and all(isinstance(row, list | tuple) and len(row) == len(first) and {*row} <= {0, 1} for row in rows):
        return np.array(rows)
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def _indicator(y: Any, classes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Multi-label y as int64 (N, K), 1 where the text of that row has the label of that column."""
    values = _checked(y)
    if values.ndim == 2:
        if values.shape[1] != len(classes):
            raise DataError(f"y has {values.shape[1]} columns; {len(classes)}, one for each class, were expected.")
        return values.astype(np.int64)
    place = {label: i for i, label in enumerate(classes.tolist())}
    encoded = np.zeros((len(values), len(place)), np.int64)
    for row, labels in enumerate(values):
        for label in labels if _is_of_lists(values) else [labels]:
            if label not in place:
                raise DataError(f"y, row {row}: the label {brief(label)} is none of {listed(place)}.")
            encoded[row, place[label]] = 1
    return encoded


def _label_name(label: Any) -> str:
    """How the task and the saved model call a label: `1` also for 1.0, `true` for True."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(int(label)) if isinstance(label, float) else str(label)


def _numbers(y: Any) -> Float64[np.ndarray, " N"]:
    """Make y an array of numbers.

    Raises:
        DataError: it is not a number for each text.
    """
    values = _checked(y)
    if values.ndim != 1:
        raise DataError(f"y is an array of shape {values.shape}; a number for each text was expected.")
    for row, value in enumerate(values.tolist()) if values.dtype.kind not in "biuf" else ():
        try:
            float(value)
        except (TypeError, ValueError):
            raise DataError(f"y, row {row} is {brief(value)}; a number was expected.") from None
    return values.astype(np.float64)
