"""Train simple models on the rows of a run, and compare the run with them on the same examples.

Both are linear models of scikit-learn: a logistic regression (of several labels, one for each), or a ridge regression. One
reads the TF-IDF weights of words and pairs of words, the other the vectors of the encoder before fine-tuning. Their one
setting, and the threshold of several labels, is chosen on a held-out fifth of the training rows, by the metric that picks
the best epoch.

Shapes: N examples, F features, K outputs.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from isinglass.backends.process_group import ProcessGroup
from isinglass.baselines import FROZEN, TFIDF, Baseline, Gain
from isinglass.config import TrainConfig
from isinglass.data.examples import Examples
from isinglass.errors import DeviceMemoryError
from isinglass.metrics import Values, scores
from isinglass.statistics import Answers, paired_difference
from isinglass.tasks import MULTILABEL, REGRESSION, Labels
from isinglass.tasks.kinds import EVEN
from isinglass.training.evaluation import Scored
from isinglass.training.frozen import encode
from isinglass.training.observers import Observers
from isinglass.training.preparation import PreparedRun
from isinglass.training.threshold import best_threshold

STRENGTHS: Final = {TFIDF: (1.0, 10.0, 100.0, 1000.0), FROZEN: (0.01, 0.1, 1.0)}  # scikit-learn's C
RIDGES: Final = {TFIDF: (0.3, 1.0, 3.0), FROZEN: (10.0, 100.0, 1000.0)}  # scikit-learn's alpha
HELD_OUT: Final = 0.2  # share of the rows that choose the setting
MOST_ROWS: Final = 5000  # that choose the setting
LEAST_ROWS: Final = 10  # with fewer, the middle one is taken
MOST_TERMS: Final = 200_000  # the most frequent ones
MOST_ITERATIONS: Final = 300

Features = Any
"""(N, F), of NumPy or SciPy's sparse."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a baseline reads: of the training rows, and of each scored split."""

    train: Features
    scored: Sequence[Features]


def train_baselines(
    config: TrainConfig,
    run: PreparedRun,
    scored: Sequence[Scored],
    observers: Observers = (),
    group: ProcessGroup = ProcessGroup(),
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Baseline], list[str]]:
    """Return the baselines by name, and notes on those that are left out because memory is short.

    The processes of a group share the encoding; process 0 trains, and the others return nothing.

    Args:
        scored: the splits with the outputs of the finished model.
        check: is called between the parts; may raise.
    """
    ways: dict[str, Callable[[], Inputs]] = {
        TFIDF: lambda: _weigh_terms(run, scored),
        FROZEN: lambda: _encode(config, run, scored, observers, group),
    }
    found, notes = {}, []
    for name, read in ways.items():
        if group.rank > 0 and name == TFIDF:
            continue
        began = time.perf_counter()
        try:
            inputs = read()
            if group.rank == 0:
                found[name] = _train(name, run, scored, inputs, began, check)
        except (DeviceMemoryError, MemoryError) as error:
            if group.size > 1:  # the others wait
                raise
            notes.append(f"The baseline {name} is left out: {error or 'memory is short'}.".replace("..", "."))
    group.wait()
    return found, notes


def _weigh_terms(run: PreparedRun, scored: Sequence[Scored]) -> Inputs:
    """Return the TF-IDF weights of words and pairs of words; of a pair of texts, those of both and their cosine."""
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=MOST_TERMS)
    try:
        vectorizer.fit([text for column in run.train.examples.texts for text in column])
    except ValueError:  # no text has a word
        vectorizer = None

    def weigh(examples: Examples) -> Features:
        if vectorizer is None:
            return csr_array((len(examples), 1))
        parts = [vectorizer.transform(column) for column in examples.texts]
        if len(parts) == 2:
            parts.append(csr_array(parts[0].multiply(parts[1]).sum(1).reshape(-1, 1)))
        return hstack(parts, format="csr") if len(parts) > 1 else parts[0]

    return Inputs(train=weigh(run.train.examples), scored=[weigh(one.split.examples) for one in scored])


def _encode(
    config: TrainConfig, run: PreparedRun, scored: Sequence[Scored], observers: Observers, group: ProcessGroup
) -> Inputs:
    """Return the vectors of the encoder before fine-tuning, each column standardised by the training rows."""
    splits = [one.split for one in scored]
    if run.train_vectors is None:
        splits.insert(0, run.train)
    named = [replace(split, name=f"{split.name} by the frozen encoder") for split in splits]
    encoded = encode(run.model, config, named, observers, group)
    train, *others = encoded if run.train_vectors is None else (run.train_vectors, *encoded)
    mean, deviation = train.mean(0), np.maximum(train.std(0), 1e-6)
    return Inputs(train=(train - mean) / deviation, scored=[(vectors - mean) / deviation for vectors in others])


def _train(
    name: str, run: PreparedRun, scored: Sequence[Scored], inputs: Inputs, began: float, check: Callable[[], None]
) -> Baseline:
    """Choose the setting, train on all rows, and compare the run with the predictions."""
    kind, labels = run.task.kind, run.train.labels
    assert labels is not None
    check()
    with _quiet():
        strength, threshold = _choose(name, run, inputs.train, labels, check)
        model = _fitted(name, run, inputs.train, labels, strength)
        predicted = [_predicted(model, features, run, threshold) for features in inputs.scored]
    seconds = time.perf_counter() - began
    check()
    positive = _positive(run)
    metrics, differences = {}, {}
    for one, answers in zip(scored, predicted, strict=True):
        assert one.split.labels is not None
        values = scores(run.task.metrics, kind.truth(one.split.labels), answers, positive)
        metrics[one.split.name] = {str(metric): _number(value) for metric, value in values.items()}
        differences[one.split.name] = _gain(run, one, answers)
    setting = "alpha" if kind is REGRESSION else "C"
    settings: dict[str, str | int | float] = {"features": int(inputs.train.shape[1]), setting: strength}
    if _tunes_threshold(run):
        settings["threshold"] = threshold
    return Baseline(metrics=metrics, seconds=seconds, settings=settings, differences=differences)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of scikit-learn: of labels without examples, and of steps that do not converge."""
    with warnings.catch_warnings(action="ignore"):
        yield


def _choose(
    name: str, run: PreparedRun, features: Features, labels: Labels, check: Callable[[], None]
) -> tuple[float, float]:
    """Return the strength with the best score on held-out rows, the first of equal ones, and the best threshold there."""
    candidates = (RIDGES if run.task.kind is REGRESSION else STRENGTHS)[name]
    if len(labels) < LEAST_ROWS:
        return candidates[len(candidates) // 2], EVEN
    rows = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS]
    held_out, fitted = np.split(rows, [round(HELD_OUT * len(rows))])
    truth, positive, metric = run.task.kind.truth(labels[held_out]), _positive(run), run.metric

    ranks: dict[tuple[float, float], float] = {}
    for strength in candidates:
        check()
        model = _fitted(name, run, features[fitted], labels[fitted], strength)
        threshold = EVEN
        if _tunes_threshold(run):
            probabilities = np.asarray(model.predict_proba(features[held_out]))
            threshold = best_threshold([(probabilities, truth)], metric)
        answers = _predicted(model, features[held_out], run, threshold)
        ranks[strength, threshold] = metric.rank(scores([metric], truth, answers, positive)[metric])
    return max(ranks, key=ranks.__getitem__)


def _tunes_threshold(run: PreparedRun) -> bool:
    return run.config.tune_threshold and run.task.kind is MULTILABEL


def _fitted(name: str, run: PreparedRun, features: Features, labels: Labels, strength: float) -> Any:
    """Return the trained model; where all rows have the same label, one that always predicts it."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    kind = run.task.kind
    if kind is REGRESSION:
        return Ridge(alpha=strength).fit(features, labels)
    truth = kind.truth(labels)
    if kind is not MULTILABEL and len(np.unique(truth)) == 1:
        return DummyClassifier().fit(features, truth)
    # with tens of thousands of sparse features, one regression for each class is ten times as fast, and as good
    sparse = {"solver": "liblinear", "dual": True, "random_state": 0} if name == TFIDF else {}
    regression = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS, **sparse)
    if kind is MULTILABEL or name == TFIDF:
        return OneVsRestClassifier(regression).fit(features, truth.astype(np.int64))
    return regression.fit(features, truth)


def _predicted(model: Any, features: Features, run: PreparedRun, threshold: float) -> Values:
    """Return the predictions as the metrics take them; a multi-label example has the labels above the threshold."""
    if run.task.kind is MULTILABEL:
        has_label: Values = np.asarray(model.predict_proba(features)) > threshold
        return has_label
    predicted = np.asarray(model.predict(features))
    return predicted.astype(np.float32 if run.task.kind is REGRESSION else np.int64)


def _positive(run: PreparedRun) -> int:
    order = run.model.label_names or ()
    return order.index(run.task.positive_label) if run.task.positive_label in order else 0


def _gain(run: PreparedRun, scored: Scored, answers: Values) -> Gain:
    """Compare the run with the answers of a baseline on one split."""
    truth, kind = scored.split.labels, run.task.kind
    assert truth is not None
    columns = [answers, scored.decide(kind)]
    if kind is MULTILABEL:
        columns = [column.astype(np.float32) for column in columns]
    baseline, model = (
        Answers(
            labels=scored.label_order,
            truth=truth,
            predicted=column,
            probabilities=None,
            texts=[],
            positive=_positive(run),
        )
        for column in columns
    )
    found = paired_difference(run.metric, [baseline], [model])
    numbers = {key: _number(getattr(found, key)) for key in ("mean", "low", "high", "p_value")}
    return Gain(metric=str(run.metric), test=found.test, **numbers)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
