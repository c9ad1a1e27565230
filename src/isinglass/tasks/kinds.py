"""The kinds of task: what is predicted for each example, and all that follows from it.

Shapes: N examples, K outputs of the model, one for each label; a regression has one output.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from isinglass.errors import ConfigError
from isinglass.metrics import Metric, Values

KindName = Literal["classification", "regression", "multilabel"]
# int64 (N,), positions in the model's label order; float32 (N,), the scores of a regression; or float32 (N, K), 1 where an
# example of a multi-label task has the label of that output, else 0
Labels = NDArray[np.int64] | NDArray[np.float32]
Outputs = Float32[np.ndarray, "N K"]
EVEN: Final = 0.5  # the threshold of a multi-label task where none was chosen
LARGEST_SCORE: Final = float(np.finfo(np.float32).max)
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class InvalidLabelError(ValueError):
    """A label that is not the task's.

    Its `args` are the label, and what was expected instead of a number; None where it is none of the task's names.
    """


class Kind:
    """A kind of task; its instances have no state. What a kind does not override is that of a classification.

    Attributes:
        name: in settings and files.
        problem_type: the name that `transformers` has for it, in `config.json`.
        baseline: the prediction without a look at the text, in words.
        usage: what the model prints for a text, in words, which may have the threshold to fill in.
        score_notes: sentences below the scores on a model's card.
    """

    name: ClassVar[KindName] = "classification"
    problem_type: ClassVar[str] = "single_label_classification"
    baseline: ClassVar[str] = "always answering the most frequent label"
    usage: ClassVar[str] = "It prints each label with its probability, the likeliest first."
    score_notes: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> str:
        """Stay the same object in copies and in other processes: the global of that name."""
        return self.name.upper()

    def metrics(self, labels: Sequence[str]) -> tuple[Metric, ...]:
        """Return the metrics of a task of the user's own."""
        return Metric.ACCURACY, Metric.F1 if len(labels) == 2 else Metric.MACRO_F1

    def target(self, labels: Sequence[str], score_range: tuple[float, float]) -> str:
        """Return what the model predicts, in words."""
        return f"one of {len(labels):,} labels"

    def encode(self, labels: Sequence[Any], order: Sequence[str], score_range: tuple[float, float]) -> Labels:
        """Return the labels as a model sees them.

        Args:
            order: the label names in the order of the outputs; empty for regression.

        Raises:
            InvalidLabelError: a label is none of `order`, or no number in `score_range`.
        """
        return np.fromiter(_positions(labels, order), np.int64, len(labels))

    def truth(self, labels: Labels) -> Values:
        """Return encoded labels as the metrics take them."""
        return labels.astype(np.int64)

    def decide(self, outputs: Outputs, threshold: float = EVEN) -> Values:
        """Return the predictions, as the metrics take them.

        Args:
            threshold: probability above which an example of a multi-label task has a label.
        """
        return np.asarray(outputs.argmax(1))

    def constant(self, truth: Values) -> Values:
        """Return the predictions of the baseline."""
        return np.full(len(truth), np.bincount(truth).argmax(), np.int64)

    def is_collapsed(self, predicted: Values) -> bool:
        """Tell whether all examples got the same labels; numbers never count as that."""
        return len(np.unique(predicted, axis=0)) == 1

    def probabilities(self, outputs: Outputs) -> Float64[np.ndarray, "N K"]:
        """Return the probability of each label; of a regression the values."""
        exponentials = np.exp(outputs.astype(np.float64) - outputs.max(1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(1, keepdims=True))

    def names(self, probabilities: Float64[np.ndarray, " K"], order: Sequence[str], threshold: float = EVEN) -> str:
        """Return the prediction for one example as a file of predictions has it.

        Args:
            threshold: as in `decide`.
        """
        return order[int(probabilities.argmax())]

    def parse(self, text: str) -> str | tuple[str, ...]:
        """Return what `names` wrote as `encode` takes it."""
        return text

    def balanced_weights(self, labels: Labels, outputs: int) -> Float64[np.ndarray, " K"]:
        """Return the class weights that make up for unequal frequencies: N / (K * count), as in scikit-learn.

        Raises:
            ConfigError: for a regression.
        """
        return np.asarray(len(labels) / (outputs * np.maximum(_counts(labels, outputs), 1)))

    def weight_scale(self, labels: Labels, weights: Float64[np.ndarray, " K"]) -> float:
        """Return the factor that makes the mean of the user's class weights over the examples 1."""
        return len(labels) / float(_counts(labels, len(weights)) @ weights)

    def strata(self, labels: Labels, parts: int) -> tuple[Int64[np.ndarray, " N"], str]:
        """Return the group of each example, from each of which a dev set takes its share, and what the groups are.

        Args:
            parts: number of groups where labels are numbers.
        """
        return labels.astype(np.int64), "of each label"

    def agreement(self, outputs: Outputs, others: Outputs, threshold: float = EVEN) -> float:
        """Return the share of equal predictions of two models; NaN for numbers.

        Args:
            threshold: as in `decide`.
        """
        return float(np.mean(self.decide(outputs, threshold) == self.decide(others, threshold)))


class _Multilabel(Kind):
    name = "multilabel"
    problem_type = "multi_label_classification"
    baseline = "always answering the most frequent labels"
    usage = "It prints each label with its probability: a text has those above {threshold:g}."
    score_notes = ("Accuracy asks for exactly the labels of an example.",)

    def metrics(self, labels: Sequence[str]) -> tuple[Metric, ...]:
        return Metric.MICRO_F1, Metric.MACRO_F1, Metric.ACCURACY

    def target(self, labels: Sequence[str], score_range: tuple[float, float]) -> str:
        return f"any of {len(labels):,} labels"

    def encode(self, labels: Sequence[Any], order: Sequence[str], score_range: tuple[float, float]) -> Labels:
        sets = [(names,) if isinstance(names, str) else names for names in labels]
        rows = np.repeat(np.arange(len(sets)), [*map(len, sets)])
        columns = _positions(chain.from_iterable(sets), order)
        encoded = np.zeros((len(sets), len(order)), np.float32)
        encoded[rows, columns] = 1
        return encoded

    def truth(self, labels: Labels) -> Values:
        return labels > 0

    def decide(self, outputs: Outputs, threshold: float = EVEN) -> Values:
        return self.probabilities(outputs) > threshold

    def constant(self, truth: Values) -> Values:
        """Return the labels that at least half of the examples have, or else the most frequent one."""
        share = truth.mean(0)
        return np.broadcast_to(share >= min(0.5, share.max()), truth.shape)

    def probabilities(self, outputs: Outputs) -> Float64[np.ndarray, "N K"]:
        return 0.5 + 0.5 * np.tanh(0.5 * outputs.astype(np.float64))

    def names(self, probabilities: Float64[np.ndarray, " K"], order: Sequence[str], threshold: float = EVEN) -> str:
        return "|".join(name for name, share in zip(order, probabilities, strict=True) if share > threshold)

    def parse(self, text: str) -> tuple[str, ...]:
        return tuple(filter(None, text.split("|")))

    def balanced_weights(self, labels: Labels, outputs: int) -> Float64[np.ndarray, " K"]:
        """Return the number of examples without the label over the number with it."""
        counts = labels.sum(0).astype(np.float64)
        return np.asarray((len(labels) - counts) / np.maximum(counts, 1))

    def weight_scale(self, labels: Labels, weights: Float64[np.ndarray, " K"]) -> float:
        return 1.0

    def strata(self, labels: Labels, parts: int) -> tuple[Int64[np.ndarray, " N"], str]:
        return np.zeros(len(labels), np.int64), "at random"


class _Regression(Kind):
    name = "regression"
    problem_type = "regression"
    baseline = "always answering the mean"
    usage = "It prints one score, in the unit of the training data."
    score_notes = ("An answer that never changes correlates with nothing: NaN.",)

    def metrics(self, labels: Sequence[str]) -> tuple[Metric, ...]:
        return Metric.PEARSON, Metric.SPEARMAN, Metric.RMSE

    def target(self, labels: Sequence[str], score_range: tuple[float, float]) -> str:
        low, high = score_range
        return "a number" if math.isinf(high - low) else f"a number from {low:g} to {high:g}"

    def encode(self, labels: Sequence[Any], order: Sequence[str], score_range: tuple[float, float]) -> Labels:
        low, high = score_range
        scores = np.fromiter((parse_number(str(label).strip()) for label in labels), np.float64, len(labels))
        is_valid = (scores >= low) & (scores <= high) & (np.abs(scores) <= LARGEST_SCORE)
        if not is_valid.all():
            needed = "a finite number" if math.isinf(high) else f"a number from {low:g} to {high:g}"
            raise InvalidLabelError(labels[int(is_valid.argmin())], needed)
        return scores.astype(np.float32)

    def truth(self, labels: Labels) -> Values:
        return labels.astype(np.float32)

    def decide(self, outputs: Outputs, threshold: float = EVEN) -> Values:
        return outputs[:, 0]

    def constant(self, truth: Values) -> Values:
        return np.full(len(truth), truth.mean(dtype=np.float64), np.float32)

    def is_collapsed(self, predicted: Values) -> bool:
        return False

    def probabilities(self, outputs: Outputs) -> Float64[np.ndarray, "N K"]:
        return outputs.astype(np.float64)

    def names(self, probabilities: Float64[np.ndarray, " K"], order: Sequence[str], threshold: float = EVEN) -> str:
        return f"{probabilities[0]:.6g}"

    def balanced_weights(self, labels: Labels, outputs: int) -> Float64[np.ndarray, " K"]:
        raise ConfigError("class_weights are for classes: a regression has none, leave them out.")

    def strata(self, labels: Labels, parts: int) -> tuple[Int64[np.ndarray, " N"], str]:
        """Return equal parts of the range, by rank."""
        ranks = np.argsort(np.argsort(labels, kind="stable"), kind="stable")
        return ranks * parts // len(labels), "of each part of the range"

    def agreement(self, outputs: Outputs, others: Outputs, threshold: float = EVEN) -> float:
        return math.nan


CLASSIFICATION: Final = Kind()
MULTILABEL: Final[Kind] = _Multilabel()
REGRESSION: Final[Kind] = _Regression()
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in (CLASSIFICATION, MULTILABEL, REGRESSION)})


def _positions(labels: Iterable[Any], order: Sequence[str]) -> list[int]:
    """Return the position of each label in `order`."""
    positions = {name: position for position, name in enumerate(order)}
    try:
        return [positions[label] for label in labels]
    except KeyError as error:
        raise InvalidLabelError(*error.args, None) from None


def _counts(labels: Labels, outputs: int) -> Float64[np.ndarray, " K"]:
    return np.bincount(labels.astype(np.int64), minlength=outputs).astype(np.float64)


def parse_number(text: str) -> float:
    """Return the number that a text is as people write it; NaN if it is none.

    >>> parse_number("1e3"), parse_number("one"), parse_number("1_000")
    (1000.0, nan, nan)
    """
    return float(text) if _NUMBER.fullmatch(text) else math.nan
