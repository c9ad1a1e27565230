"""Training from files to scores, on tiny models."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import resolve
from isinglass.errors import ConfigError, TrainingDivergedError
from isinglass.models.checkpoint import load_checkpoint
from isinglass.runs.directory import load_run, write_run
from isinglass.runs.predict import predict_split
from isinglass.tasks import TASKS
from isinglass.training.evaluation import evaluate
from isinglass.training.trainer import TrainedRun, train
from tests.tiny import ARCHITECTURES, VOCABULARY, save_tiny, write_glue

TRAINABLE = [name for name, task in TASKS.items() if task.train and name != "demo"]


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("glue")
    for seed, task in enumerate(TASKS.values()):
        if task.name != "demo":
            write_glue(task, directory, rows=40, seed=seed)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


def run(task: str, glue: Path, model: Path, **flags: object) -> TrainedRun:
    values = {"data_dir": str(glue), "model": str(model), "epochs": 2, "batch_size": 16, "max_length": 40, **flags}
    return train(resolve(task=task, flags=values))


@pytest.mark.parametrize("task", TRAINABLE)
def test_every_task_trains_evaluates_and_predicts(task: str, glue: Path, model: Path, tmp_path: Path) -> None:
    result = run(task, glue, model).result
    expected = set(TASKS[task].metrics)
    if task == "mnli":
        assert set(result.metrics) == set(result.majority) == {"dev_matched", "dev_mismatched"}
        assert result.split == "dev_matched+dev_mismatched"
        assert all(set(scores) == expected for scores in result.metrics.values())
    else:
        assert set(result.metrics) == set(result.majority) == expected
    assert len(result.epoch_seconds) == 2
    assert result.train_seconds == pytest.approx(sum(result.epoch_seconds))
    assert result.examples_per_second == pytest.approx(80 / result.train_seconds)
    assert (task == "wnli") == any("adversarial" in note for note in result.notes)
    trained = run(task, glue, model)
    write_run(trained, tmp_path / "run", overwrite=False)
    finished = load_run(tmp_path / "run")
    again, _ = evaluate(finished.config, finished.checkpoint)
    assert again.metrics == trained.result.metrics, "the saved model scores what the trained one did"
    for split in TASKS[task].test:
        index, predicted, *chances = predict_split(finished, split.name).values()
        assert [*index] == [*range(40)]
        if TASKS[task].labels is not None:
            assert {*predicted} <= set(TASKS[task].labels)
            np.testing.assert_allclose(np.sum(chances, 0), 1)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(glue: Path, model: Path) -> None:
    first, second = run("rte", glue, model, seed=5), run("rte", glue, model, seed=5)
    assert [step.loss for step in first.steps] == [step.loss for step in second.steps]
    for name, array in first.model.weights.items():
        np.testing.assert_array_equal(array, second.model.weights[name])
    third = run("rte", glue, model, seed=6)
    assert [step.loss for step in first.steps] != [step.loss for step in third.steps]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_each_family_learns_a_rule(family: str, precision: str, glue: Path, tmp_path: Path) -> None:
    """The label depends on the length of the first word. A model that learns fits its training set."""
    data = write_glue(TASKS["sst2"], tmp_path / "data", rows=96)
    model = save_tiny(tmp_path / "model", family, initializer_range=0.1)
    trained = run("sst2", data, model, epochs=20, learning_rate=5e-3, precision=precision, dropout=0.0)
    losses = [step.loss for step in trained.steps]
    assert trained.result.precision == precision
    assert np.mean(losses[-6:]) < 0.3 < np.mean(losses[:3])


def test_rows_and_flat_train_to_the_same_weights(glue: Path, model: Path) -> None:
    """Without dropout, the layout must affect only memory."""
    flat = run("mrpc", glue, model, layout="flat", dropout=0.0)
    rows = run("mrpc", glue, model, layout="rows", dropout=0.0)
    assert_same_training(rows, flat)


def assert_same_training(one: TrainedRun, other: TrainedRun) -> None:
    """Compare losses and logits. Single weights may differ where Adam divides noise by noise."""
    np.testing.assert_allclose([s.loss for s in one.steps], [s.loss for s in other.steps], rtol=0, atol=1e-5)
    np.testing.assert_allclose(one.scored[0].outputs, other.scored[0].outputs, rtol=0, atol=1e-4)


def test_mnli_trained_weights_predict_ax_and_start_rte(glue: Path, model: Path, tmp_path: Path) -> None:
    write_run(run("mnli", glue, model), tmp_path / "mnli", overwrite=False)
    ax = load_run(tmp_path / "mnli", task="ax")
    names = [*predict_split(ax)]
    assert names[2:] == [f"probability:{name}" for name in ("contradiction", "entailment", "neutral")]
    started = run("rte", glue, tmp_path / "mnli" / "model")
    assert any("a new one is trained" in note for note in started.result.notes)


def test_a_finished_model_with_another_label_order_is_scored_by_name(glue: Path, model: Path, tmp_path: Path) -> None:
    """Guards against the score of 5 to 7 % that results if labels are matched by position instead of by name."""
    trained = run("mnli", glue, model, epochs=4, learning_rate=1e-3)
    write_run(trained, tmp_path / "ours", overwrite=False)
    finished = load_run(tmp_path / "ours")
    checkpoint = finished.checkpoint
    order = [2, 0, 1]
    names = [checkpoint.label_names[i].upper() for i in order]
    turned = dict(checkpoint.weights)
    for part in ("weight", "bias"):
        turned[f"head.output.{part}"] = turned[f"head.output.{part}"][order]
    other = dataclasses.replace(checkpoint, label_names=tuple(names), weights=turned)
    expected, _ = evaluate(finished.config, checkpoint)
    found, _ = evaluate(finished.config, other)
    assert found.metrics == expected.metrics


def test_a_trained_head_with_the_tasks_labels_is_kept(glue: Path, tmp_path: Path) -> None:
    """Fine-tuning must start from the trained head, in the checkpoint's own label order."""
    model = save_tiny(tmp_path, "bert", labels=("not_entailment", "entailment"))
    trained = run("rte", glue, model, learning_rate=1e-9)
    assert trained.model.label_names == ("not_entailment", "entailment")
    np.testing.assert_allclose(
        trained.model.weights["head.output.weight"], load_checkpoint(model).weights["head.output.weight"], atol=1e-6
    )


def test_what_ran_is_what_is_recorded_and_fp16_needs_a_gpu(glue: Path, model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        assert run("rte", glue, model, precision="fp16").result.precision == "fp16"
    else:
        with pytest.raises(ConfigError, match=r"fp16 does not run on a CPU .*use --precision bf16"):
            run("rte", glue, model, precision="fp16")


def test_a_diverging_run_stops_with_its_step(glue: Path, model: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"The loss is nan at step \d+, at a learning rate of .* lines 2, "):
        run("rte", glue, model, learning_rate=1e38, epochs=3)


def test_a_length_beyond_the_models_positions_is_refused(glue: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length is 128; .* has positions for 80 tokens"):
        run("rte", glue, model, max_length=128)


def test_truncation_and_avoided_padding_are_reported(glue: Path, model: Path) -> None:
    result = run("rte", glue, model, max_length=16).result
    assert 0 < result.truncated_share < 1
    assert 0 < result.padding_avoided < 1
    assert result.examples == {"train": 40, "dev": 40}
    assert len(VOCABULARY) > 50


@pytest.mark.slow
def test_a_compiled_model_trains_like_the_plain_one(glue: Path, model: Path) -> None:
    """Shapes are fixed, the numbers must be the same, and the compile time is reported separately."""
    settings = {"dropout": 0.0, "batch_size": 40, "epochs": 3}  # one shape to compile for, in training and in evaluation
    plain = run("rte", glue, model, layout="rows", **settings)
    compiled = run("rte", glue, model, compile=True, **settings)
    assert compiled.result.compile
    assert 0 < compiled.result.compile_seconds <= compiled.result.train_seconds
    assert_same_training(compiled, plain)


@pytest.mark.slow
def test_a_compiled_model_drops_out_reproducibly(glue: Path, model: Path) -> None:
    first, second = (run("rte", glue, model, compile=True, batch_size=40, epochs=3) for _ in range(2))
    assert [step.loss for step in first.steps] == [step.loss for step in second.steps]
