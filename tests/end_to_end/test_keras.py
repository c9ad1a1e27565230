"""Training with the Keras backend from files to scores, and the round trip between the frameworks."""

import sys
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import resolve
from isinglass.errors import ConfigError
from isinglass.runs.directory import load_run, write_run
from isinglass.tasks import TASKS
from isinglass.training.evaluation import evaluate
from isinglass.training.trainer import TrainedRun, train
from tests.backends.variants import KERAS
from tests.tiny import save_tiny, write_glue


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("glue")
    for seed, name in enumerate(("mrpc", "mnli", "stsb", "cola", "wnli")):
        write_glue(TASKS[name], directory, rows=40, seed=seed)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


def run(task: str, glue: Path, model: Path, **flags: object) -> TrainedRun:
    values = {"data_dir": str(glue), "model": str(model), "epochs": 3, "batch_size": 40, "max_length": 40, "backend": KERAS}
    return train(resolve(task=task, flags={**values, **flags}))


@pytest.mark.parametrize("task", ["mnli", "stsb", "cola", "wnli"])
def test_tasks_of_every_kind_train_and_score(task: str, glue: Path, model: Path) -> None:
    result = run(task, glue, model).result
    scores = result.metrics["dev_matched"] if task == "mnli" else result.metrics
    assert set(scores) == set(TASKS[task].metrics)
    assert (result.backend, result.precision, len(result.epoch_seconds)) == (KERAS, "fp32", 3)
    assert result.compilations == 1, "a batch of the same examples has the same shape in every epoch"
    assert 0 < result.compile_seconds < result.train_seconds
    assert result.versions["keras"]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(glue: Path, model: Path) -> None:
    first, second, third = (run("mrpc", glue, model, seed=seed) for seed in (5, 5, 6))
    assert [step.loss for step in first.steps] == [step.loss for step in second.steps]
    for name, array in first.model.weights.items():
        np.testing.assert_array_equal(array, second.model.weights[name])
    assert [step.loss for step in first.steps] != [step.loss for step in third.steps]


@pytest.mark.parametrize(("trained_on", "asked_on"), [(KERAS, "torch"), ("torch", KERAS)])
def test_a_model_trained_on_one_answers_alike_on_the_other(
    trained_on: str, asked_on: str, glue: Path, model: Path, tmp_path: Path
) -> None:
    """Round trip: train, save as a Hugging Face checkpoint, load in the other framework, get the same logits and scores."""
    trained = run("mrpc", glue, model, backend=trained_on, learning_rate=1e-3)
    write_run(trained, tmp_path / "run", overwrite=False)
    finished = load_run(tmp_path / "run")
    settings = {"data_dir": str(glue), "model": str(model), "max_length": 40, "backend": asked_on}
    result, scored = evaluate(resolve(task="mrpc", flags=settings), finished.checkpoint)
    np.testing.assert_allclose(scored[0].outputs, trained.scored[0].outputs, rtol=0, atol=1e-5)
    assert np.ptp(scored[0].outputs[:, 0]) > 1e-3, "the answers differ between examples"
    assert result.metrics == trained.result.metrics


@pytest.mark.slow
@pytest.mark.skipif(KERAS == "jax", reason="JAX always compiles by XLA")
def test_xla_and_mixed_precision_run_and_learn_alike(glue: Path, model: Path) -> None:
    """XLA must compute the same as the plain graph, and AMP must be recorded as the precision that was used."""
    plain = run("mrpc", glue, model, dropout=0.0)
    xla = run("mrpc", glue, model, dropout=0.0, xla=True)
    np.testing.assert_allclose([s.loss for s in xla.steps], [s.loss for s in plain.steps], atol=1e-5)
    assert xla.result.xla and not plain.result.xla
    amp = run("mrpc", glue, model, dropout=0.0, precision="amp").result
    assert amp.precision in ("bf16", "fp16")


def test_one_process_has_one_keras(glue: Path, model: Path) -> None:
    other = {"tensorflow": "jax", "jax": "tensorflow"}[KERAS]
    run("mrpc", glue, model)
    assert "keras" in sys.modules
    with pytest.raises(ConfigError, match=f"Keras runs on {KERAS} in this process: use the backend {other} in another one"):
        run("mrpc", glue, model, backend=other)
