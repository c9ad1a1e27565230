"""The classifier."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from isinglass.errors import ConfigError
from isinglass.estimators.base import TextEstimator
from isinglass.estimators.targets import Target, indicator, label_name
from isinglass.estimators.texts import check_lengths, plain, text_columns
from isinglass.names import brief, did_you_mean, listed
from isinglass.tasks.custom import custom_task
from isinglass.training.labels import label_order
from isinglass.training.prediction import probabilities


class TextClassifier(ClassifierMixin, TextEstimator):
    """A BERT-like classifier of texts, or of pairs of texts, that is fine-tuned by `fit`.

    y is N labels: names, whole numbers or booleans. Each text may also have any number of labels (multi-label): then y is a
    list of N lists or sets of labels, or an array (N, K) of 0 and 1 as in scikit-learn, and `predict` returns such an
    array, its columns as in `classes_`.

    Args:
        model: a model directory, a name on the hub (`USER/NAME`, or `USER/NAME@COMMIT`), or `demo`.
        backend: `torch`, `tensorflow` or `jax`.
        precision: of the matrix products: `fp32`, `bf16`, `fp16` or `amp`.
        recipe: `classic` or `small`: where the values of parameters come from that are None.
        epochs, batch_size, learning_rate, warmup_ratio, weight_decay, max_length, dropout, long_texts, window_overlap,
            label_smoothing, layer_decay, freeze_layers, freeze_embeddings, max_train_examples: as in
            `isinglass.TrainConfig`, where all are explained; None: the recipe's.
        class_weight: of the classes' losses. None: all are 1; `balanced`; or a dictionary of label -> weight, 1 for labels
            that it lacks. Weights are scaled to a mean of 1 over the training examples.
        keep_best: whether to keep the weights of the best epoch, by the score on held-out examples, instead of the last's.
        early_stopping: the same, and stop after this number of epochs in a row without a better one.
        validation_fraction: share of the examples that is held out for that. Without it all examples are trained on.
        random_state: the seed of batches, dropout and a new head; None: always 42.
        verbose: whether to log losses and progress, by Python's `logging` at the level INFO.

    Attributes:
        classes_: the labels, sorted; for an array of 0 and 1, the numbers of its columns.
        result_: the RunResult: settings, times, versions, and notes on what a reader must know.
    """

    classes_: np.ndarray[Any, Any]
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
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts, target = text_columns(X, to_train=True), Target.of(y)
        check_lengths(texts, len(target.encoded))
        self.classes_, self._names = target.classes, tuple(map(label_name, target.classes.tolist()))
        config = self._settings("text-classifier", class_weights=self._class_weights())
        task = custom_task(
            name=config.task,
            kind="multilabel" if target.is_multilabel else "classification",
            labels=self._names,
            text_columns=("text", "text2")[: len(texts)],
            label_column="label",
            splits=["train", "dev"] if config.picks_best else ["train"],
        )
        if target.is_multilabel:
            sets = [tuple(self._names[i] for i in np.flatnonzero(row)) for row in target.encoded]
            return self._train(texts, sets, task, config)
        return self._train(texts, [self._names[i] for i in target.encoded], task, config)

    def decision_function(self, X: Any) -> Float32[np.ndarray, "..."]:
        """Return the logits, float32 (N, K).

        For two classes it is (N,), as in scikit-learn: the logit of the second class minus that of the first.
        """
        logits = self._logits(X)
        if self._task.is_multilabel or logits.shape[1] > 2:
            return logits
        difference: Float32[np.ndarray, " N"] = logits[:, 1] - logits[:, 0]
        return difference

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "N K"]:
        """Return the probability of each class, float64 (N, K), in the order of `classes_`."""
        return probabilities(self._logits(X), self._task)

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """Return the most probable label of each text, of the type that y had; multi-label: int64 (N, K) of 0 and 1."""
        logits = self._logits(X)
        if self._task.is_multilabel:
            return (logits > 0).astype(np.int64)
        labels: np.ndarray[Any, Any] = self.classes_[logits.argmax(1)]
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; multi-label: the share of texts whose labels are all right."""
        check_is_fitted(self)
        if self._task.is_multilabel:
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
        weights = self.class_weight
        if not isinstance(weights, Mapping):
            if weights not in (None, "balanced"):
                raise ConfigError(f"class_weight is {brief(weights)}; None, 'balanced' or a dictionary was expected.")
            return weights
        labels = self.classes_.tolist()
        for label, weight in weights.items():
            if label not in labels:
                hint = did_you_mean(str(label), self._names)
                raise ConfigError(f"class_weight has the label {brief(label)}{hint}; y has {listed(labels)}.")
            is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
            if not is_number or not 0 < weight < np.inf:
                raise ConfigError(f"class_weight of {brief(label)} is {brief(weight)}; a number above 0 was expected.")
        return json.dumps({name: float(weights.get(label, 1)) for label, name in zip(labels, self._names, strict=True)})
