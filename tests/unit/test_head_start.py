"""A solved head: it is the regression it claims to be, in every family, for every kind of task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, create_backend
from isinglass.baselines import FROZEN
from isinglass.config import resolve
from isinglass.data import open_data
from isinglass.models.blueprint import Head
from isinglass.models.source import load_model
from isinglass.tasks.kinds import CLASSIFICATION, MULTILABEL, REGRESSION
from isinglass.training.baselines import train_baselines
from isinglass.training.evaluation import predict, predict_splits
from isinglass.training.frozen import encode
from isinglass.training.head_start import solve_head, with_solved_head
from isinglass.training.preparation import Packer, prepare_run
from tests.tiny import ARCHITECTURES, WORDS, save_tiny

N, H = 600, 8


def _vectors(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(N, H)) * rng.uniform(0.1, 3, H) + rng.normal(size=H) * 5).astype(np.float32)


def _outputs(head: Head, weights: dict[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
    activation = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[head.activation]
    dense = torch.from_numpy(vectors @ weights["head.dense.weight"].T + weights["head.dense.bias"])
    return activation(dense).numpy() @ weights["head.output.weight"].T + weights["head.output.bias"]


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_a_solved_head_separates_what_a_linear_model_can(activation):
    vectors = _vectors()
    scores = (vectors - vectors.mean(0)) / vectors.std(0) @ np.random.default_rng(1).normal(size=(H, 4))
    labels = scores.argmax(1)
    head = Head(activation=activation)
    solved = solve_head(head, vectors, labels, CLASSIFICATION, 4)
    right = _outputs(head, solved.weights, vectors).argmax(1) == labels
    assert right.mean() > 0.9


def test_a_solved_head_is_scikit_learns_regression_where_the_activation_is_linear():
    vectors = _vectors()
    labels = (vectors[:, 0] > vectors[:, 0].mean()).astype(np.int64)
    head = Head(activation="tanh")
    solved = solve_head(head, vectors, labels, CLASSIFICATION, 2)
    features = np.tanh(0.5 * (vectors - vectors.mean(0)) / vectors.std(0))
    reference = LogisticRegression(C=solved.strength, max_iter=1000).fit(features, labels)
    outputs = _outputs(head, solved.weights, vectors).astype(np.float32)
    probabilities = CLASSIFICATION.probabilities(outputs)
    np.testing.assert_allclose(probabilities[:, 1], reference.predict_proba(features)[:, 1], atol=2e-3)


def test_each_of_several_labels_has_a_regression_of_its_own_and_rare_ones_are_improbable():
    vectors = _vectors()
    truth = (vectors[:, :3] > vectors[:, :3].mean(0)).astype(np.float32)
    truth = np.concatenate([truth, np.zeros((N, 1), np.float32)], 1)  # nobody has the fourth label
    head = Head(activation="tanh")
    solved = solve_head(head, vectors, truth, MULTILABEL, 4)
    outputs = _outputs(head, solved.weights, vectors)
    assert ((outputs[:, :3] > 0) == truth[:, :3]).mean() > 0.95
    assert (outputs[:, 3] < -7).all()


def test_a_regression_gets_a_ridge_regression():
    vectors = _vectors()
    scores = (vectors[:, 0] - vectors[:, 1] + 3).astype(np.float32)
    head = Head(activation="tanh")
    solved = solve_head(head, vectors, scores, REGRESSION, 1)
    assert np.corrcoef(_outputs(head, solved.weights, vectors)[:, 0], scores)[0, 1] > 0.95


def test_classes_that_the_training_set_lacks_are_never_predicted():
    vectors = _vectors()
    labels = np.where(vectors[:, 0] > vectors[:, 0].mean(), 3, 1)
    head = Head(activation="tanh")
    outputs = _outputs(head, solve_head(head, vectors, labels, CLASSIFICATION, 5).weights, vectors)
    assert set(outputs.argmax(1)) <= {1, 3}


def test_a_unit_that_never_changes_does_not_explode():
    vectors = _vectors()
    vectors[:, 0] = 1e-3 * np.random.default_rng(0).normal(size=N)
    solved = solve_head(Head(activation="tanh"), vectors, (vectors[:, 1] > 0).astype(np.int64), CLASSIFICATION, 2)
    assert np.abs(solved.weights["head.dense.weight"]).max() < 20


def _own_run(tmp_path, family: str):
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(WORDS, rng.integers(3, 9))), "cat" if rng.random() < 0.5 else "dog") for _ in range(120)]
    rows = [(f"{label} {text}", label) for text, label in rows]
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    model = save_tiny(tmp_path / "model", family)
    flags = {"train_file": [str(tmp_path / "train.csv")], "model": str(model), "max_length": 32}
    config = resolve(task="pets", flags=flags)
    return config, prepare_run(config, open_data(config), None)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_model_with_a_solved_head_predicts_the_training_labels_before_the_first_step(tmp_path, family):
    _, run = _own_run(tmp_path, family)
    solved = with_solved_head(run, (), ProcessGroup())
    backend = create_backend(run.config, solved.model, Objective.of(run.task))
    outputs = predict(backend, Packer(run.config, solved.model), run.train.tokens, "train")
    assert (outputs.argmax(1) == run.train.labels).mean() > 0.75  # the random encoder sees the word, mixed with others
    assert "solved" in solved.notes[-1]


def test_a_head_that_fits_the_task_is_kept(tmp_path):
    config, _ = _own_run(tmp_path, "bert")
    model = save_tiny(tmp_path / "fine-tuned", "bert", labels=("cat", "dog"))
    config = resolve(task="pets", flags={"train_file": list(config.train_file), "model": str(model), "max_length": 32})
    run = prepare_run(config, open_data(config), None)
    assert with_solved_head(run, (), ProcessGroup()) is run
    assert load_model(str(model)).num_outputs == 2
    assert run.config.head_start == "random"


def test_the_vectors_of_a_solved_head_serve_the_frozen_baseline(tmp_path):
    _, run = _own_run(tmp_path, "bert")
    solved = with_solved_head(run, (), ProcessGroup())
    (vectors,) = encode(run.model, run.config, [run.train])
    np.testing.assert_array_equal(solved.train_vectors, vectors)
    backend = create_backend(run.config, solved.model, Objective.of(run.task))
    scored = predict_splits(backend, Packer(run.config, solved.model), run.dev)
    shared, _ = train_baselines(run.config, solved, scored)
    anew, _ = train_baselines(run.config, replace(solved, train_vectors=None), scored)
    assert shared[FROZEN].metrics == anew[FROZEN].metrics
