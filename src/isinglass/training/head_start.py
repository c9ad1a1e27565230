"""Start a new head as a regression that is solved on the vectors of the untouched encoder, before all weights are tuned.

The gradients of a random head disturb the encoder until the head has learned the labels; with many labels and few rows that
takes longer than most people train. A solved head is useful from the first step.

Source: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR.

Shapes: N examples, H hidden size, K outputs.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

from isinglass.backends.process_group import ProcessGroup
from isinglass.models.blueprint import HEAD_DENSE, HEAD_OUTPUT, Head
from isinglass.models.files import Weights
from isinglass.tasks import MULTILABEL, REGRESSION, Labels
from isinglass.tasks.kinds import Kind
from isinglass.training.frozen import Vectors, encode
from isinglass.training.observers import Observers
from isinglass.training.preparation import PreparedRun

SPREAD: Final = 0.5  # standard deviation of the activation's argument: nearly linear, far from saturated
SHIFT: Final = 2.0  # added to the argument of activations that suppress negative values
FLATTEST: Final = 0.1  # smallest standard deviation of a unit, as a multiple of the root mean square over all units
STRENGTHS: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # scikit-learn's C, of which the likeliest on held-out rows is taken
RIDGES: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)  # scikit-learn's alpha
MOST_ROWS: Final = 5000  # of those that choose C
FEWEST_ROWS: Final = 10  # with fewer, C and alpha are 1
HELD_OUT: Final = 0.2  # share of them that compares the candidates
LEAST_LIKELY: Final = 1e-6  # a single mistake does not decide
MOST_ITERATIONS: Final = 300
RARE: Final = -8.0  # logit of a label that no row has, or that all but no row have: a probability of 0.03 %

Array = NDArray[Any]

_ACTIVATIONS: Final[Mapping[str, Callable[[Array], Array]]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * expit(x),
}


def with_solved_head(run: PreparedRun, observers: Observers, group: ProcessGroup) -> PreparedRun:
    """Return the run with a model whose new head is solved. A head that fits the task already is kept.

    The processes of a group all solve it, and take the one of process 0: rounding may differ between machines.
    """
    model = run.model
    if model.num_outputs is not None:
        return run
    began = time.perf_counter()
    (vectors,) = encode(model, run.config, [run.train], observers, group)
    assert run.train.labels is not None
    head = solve_head(model.blueprint.head, vectors, run.train.labels, run.task.kind, run.task.num_outputs)
    seconds = time.perf_counter() - began
    weights = {name: group.gather(array)[0] for name, array in head.weights.items()}
    strength = f"{'alpha' if run.task.kind is REGRESSION else 'C'} {head.strength:g}"
    note = f"The head starts as a regression ({strength}) solved on the untouched encoder's vectors, in {seconds:.1f} s."
    with_head = replace(model, weights=model.encoder_weights | weights)
    return replace(run, model=with_head, notes=(*run.notes, note), train_vectors=vectors)


@dataclass(frozen=True, kw_only=True)
class SolvedHead:
    """The weights of a head, and how they came about.

    Attributes:
        weights: by canonical name, float32.
        strength: the C or alpha that was chosen.
    """

    weights: Weights
    strength: float


def solve_head(head: Head, vectors: Vectors, labels: Labels, kind: Kind, num_outputs: int) -> SolvedHead:
    """Return a head that is the best regularised regression of the labels on the vectors.

    The dense product standardises each unit, so that the activation is nearly linear; the output is a logistic regression
    on what the activation gives, one for each label of a multi-label task, or a ridge regression.

    Args:
        vectors: what the head reads of the untouched encoder.
        labels: in the order of the outputs.
    """
    scale, shift = _standardisation(head, vectors)
    features = _features(head, vectors * scale + shift)
    centre = features.mean(0)
    strength = _choose_strength(features - centre, labels, kind, num_outputs)
    weight, bias = _regress(features - centre, labels, kind, num_outputs, strength)
    weights = {
        f"{HEAD_DENSE}.weight": np.diag(scale),
        f"{HEAD_OUTPUT}.weight": weight,
        f"{HEAD_OUTPUT}.bias": bias - weight @ centre,
    }
    if head.bias:
        weights[f"{HEAD_DENSE}.bias"] = shift
    return SolvedHead(weights={name: array.astype(np.float32) for name, array in weights.items()}, strength=strength)


def _standardisation(head: Head, vectors: Vectors) -> tuple[Array, Array]:
    """Return what each unit is multiplied with, and what is added to it then: (H,) both."""
    spread = vectors.std(0, dtype=np.float64)
    least = FLATTEST * np.sqrt(np.mean(spread**2)) or 1.0  # where all texts are the same to the encoder
    scale = SPREAD / np.maximum(spread, least)
    if not head.bias:
        return scale, np.zeros_like(scale)
    return scale, (0 if head.activation == "tanh" else SHIFT) - scale * vectors.mean(0, dtype=np.float64)


def _features(head: Head, arguments: Array) -> Array:
    """Return what the head's output reads."""
    features: Array = _ACTIVATIONS[head.activation](arguments)
    if head.norm is None:
        return features
    if head.norm.kind == "layer":
        features = features - features.mean(1, keepdims=True)
    normalised: Array = features / np.sqrt(np.mean(features**2, 1, keepdims=True) + head.norm.epsilon)
    return normalised


def _choose_strength(features: Array, labels: Labels, kind: Kind, num_outputs: int) -> float:
    """Return the candidate under which held-out labels are the likeliest."""
    if len(features) < FEWEST_ROWS:
        return 1.0
    if kind is REGRESSION:
        return float(RidgeCV(RIDGES).fit(features, labels).alpha_)
    rows = np.random.default_rng(0).permutation(len(features))[:MOST_ROWS]
    held_out, fitted = np.split(rows, [round(HELD_OUT * len(rows))])

    def loss(strength: float) -> float:
        weight, bias = _regress(features[fitted], labels[fitted], kind, num_outputs, strength)
        outputs = features[held_out] @ weight.T + bias
        probabilities = kind.probabilities(outputs.astype(np.float32))
        if kind is MULTILABEL:
            likelihoods = np.where(labels[held_out] > 0, probabilities, 1 - probabilities)
        else:
            likelihoods = probabilities[np.arange(len(held_out)), labels[held_out].astype(np.int64)]
        return -float(np.log(np.maximum(likelihoods, LEAST_LIKELY)).mean())

    return min(STRENGTHS, key=loss)


def _regress(features: Array, labels: Labels, kind: Kind, num_outputs: int, strength: float) -> tuple[Array, Array]:
    """Return weight (K, H) and bias (K,) of the regression."""
    if kind is REGRESSION:
        ridge = Ridge(alpha=strength).fit(features, labels)
        return ridge.coef_[None], np.array([ridge.intercept_])
    weight = np.zeros((num_outputs, features.shape[1]))
    bias = np.full(num_outputs, RARE)
    if kind is MULTILABEL:
        for output, truth in enumerate(labels.T > 0):
            weight[output], bias[output] = _logistic(features, truth, strength)
        return weight, bias
    known = np.unique(labels)
    bias[known] = 0
    if len(known) == 2:
        difference, offset = _logistic(features, labels == known[1], strength)
        weight[known], bias[known] = (-difference / 2, difference / 2), (-offset / 2, offset / 2)
    elif len(known) > 2:
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            model = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS).fit(features, labels)
        weight[known], bias[known] = model.coef_, model.intercept_
    return weight, bias


def _logistic(features: Array, truth: Array, strength: float) -> tuple[Array, float]:
    """Return the coefficients and the intercept of the logit of one label; a constant where all rows agree."""
    if truth.all() or not truth.any():
        return np.zeros(features.shape[1]), -RARE if truth.all() else RARE
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS).fit(features, truth)
    return model.coef_[0], float(model.intercept_[0])
