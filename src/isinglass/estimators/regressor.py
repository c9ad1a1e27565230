"""The regressor."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float64
from sklearn.base import RegressorMixin

from isinglass.estimators.base import TextEstimator
from isinglass.estimators.targets import numbers
from isinglass.estimators.texts import check_lengths, plain, text_columns
from isinglass.tasks.custom import custom_task


class TextRegressor(RegressorMixin, TextEstimator):
    """A BERT-like model that predicts a number for texts, or pairs of texts, fine-tuned by `fit` on the squared error.

    It learns numbers of the size of a few units best: scale others, by `sklearn.compose.TransformedTargetRegressor`, say.

    Args:
        Those of `TextClassifier`, without class_weight and label_smoothing, which are for classes.

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
            DataError: X or y is not what is needed; it is a ValueError, and names the row, counted from 0.
            ConfigError: a parameter is out of range, or does not fit another; it is a ValueError.
        """
        texts, values = text_columns(X, to_train=True), numbers(y)
        check_lengths(texts, len(values))
        config = self._settings("text-regressor")
        task = custom_task(
            name=config.task,
            kind="regression",
            labels=None,
            text_columns=("text", "text2")[: len(texts)],
            label_column="label",
            splits=["train", "dev"] if config.picks_best else ["train"],
        )
        return self._train(texts, [*map(repr, values.tolist())], task, config)

    def predict(self, X: Any) -> Float64[np.ndarray, " N"]:
        """Return the number of each text, float64 (N,)."""
        return self._outputs(X)[:, 0].astype(np.float64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2: 1 for perfect predictions, 0 for always predicting the mean of y."""
        return float(super().score(X, plain(y), sample_weight))
