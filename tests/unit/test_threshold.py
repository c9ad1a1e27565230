"""The threshold of several labels: chosen on the dev set, saved with the model, and used wherever the model decides."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig

from isinglass import perform
from isinglass.config import changed, resolve
from isinglass.errors import CheckpointError
from isinglass.estimators.text import load
from isinglass.metrics import Metric
from isinglass.models.checkpoint import load_checkpoint
from isinglass.runs.directory import load_run
from isinglass.runs.predict import predict_split
from isinglass.tasks import MULTILABEL
from isinglass.training.evaluation import evaluate
from isinglass.training.threshold import LabelledSet, best_threshold
from tests.tiny import save_tiny

WORDS = {"red": "apple cherry", "round": "apple ball moon", "far": "moon star", "rare": "comet"}


def labelled(probabilities: list[list[float]], labels: list[list[int]]) -> LabelledSet:
    return np.array(probabilities), np.array(labels, bool)


def test_the_threshold_separates_right_labels_from_wrong_ones() -> None:
    dev = labelled([[0.32, 0.1], [0.4, 0.28], [0.33, 0.34], [0.02, 0.1]], [[1, 0], [1, 0], [1, 1], [0, 0]])
    threshold = best_threshold([dev], Metric.MICRO_F1)
    assert threshold == 0.3
    logits = np.log(dev[0] / (1 - dev[0])).astype(np.float32)
    assert MULTILABEL.decide(logits, threshold).tolist() == [[True, False], [True, False], [True, True], [False, False]]


def test_the_threshold_stays_in_the_middle_where_others_are_no_better() -> None:
    dev = labelled([[0.9, 0.1], [0.2, 0.8]], [[1, 0], [0, 1]])
    assert best_threshold([dev], Metric.MICRO_F1) == 0.5


def test_two_dev_sets_choose_together() -> None:
    low = labelled([[0.2, 0.05], [0.2, 0.05]], [[1, 0], [1, 0]])
    high = labelled([[0.6, 0.3], [0.6, 0.3], [0.6, 0.3]], [[1, 0], [1, 0], [1, 0]])
    # finds all of both: 1 and 2/3; from 0.2 on none of the first
    assert best_threshold([low, high], Metric.MICRO_F1) == 0.15


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of the recipe auto on texts of several labels, most of which few texts have."""
    folder = tmp_path_factory.mktemp("threshold")
    model = save_tiny(folder / "tiny", "bert")
    rng = np.random.default_rng(0)
    with open(folder / "mine.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for _ in range(120):
            names = [name for name in WORDS if rng.random() < 0.3]
            words = [rng.choice(WORDS[name].split()) for name in names]
            rows.writerow([" ".join(["a", *words]), ";".join(names)])
    flags = {
        "train_file": [str(folder / "mine.csv")],
        "label_delimiter": ";",
        "model": str(model),
        "epochs": 2,
        "baselines": True,
    }
    config = resolve(task="mine", flags=flags)
    return perform(config, folder / "run")


def test_what_is_chosen_is_saved_and_used_everywhere(run) -> None:
    threshold = run.result.threshold
    assert 0 < threshold < 1 and run.result.config["tune_threshold"]
    assert load_checkpoint(run.directory / "model").threshold == threshold
    assert AutoConfig.from_pretrained(run.directory / "model").threshold == threshold
    finished = load_run(run.directory)
    again, _ = evaluate(finished.config, finished.checkpoint)
    assert again.scores == run.result.scores and again.threshold == threshold
    predictions = predict_split(finished, "dev")
    names = finished.checkpoint.label_names
    chosen = np.array([[name in row for name in names] for row in predictions["prediction"]])
    probabilities = np.stack([predictions[f"probability:{name}"] for name in names], 1)
    assert (chosen == (probabilities > threshold)).all()
    estimator = load(run.directory)
    order = [names.index(name) for name in estimator.classes_]
    assert (estimator.predict([*predictions["text"]]) == chosen[:, order]).all()
    assert f"a text has those above {threshold:g}" in (run.directory / "model" / "README.md").read_text()


def test_simple_models_choose_their_threshold_too(run) -> None:
    settings = [baseline.settings for baseline in run.result.baselines.values()]
    assert len(settings) == 2
    assert all(0 < one["threshold"] < 1 for one in settings)


def test_classes_have_no_threshold(run, tmp_path: Path) -> None:
    rows = [("moon ball", "far"), ("star moon", "far"), ("red apple", "near"), ("cherry", "near")] * 5
    with open(tmp_path / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    model = run.trained.config.model
    flags = {
        "train_file": [str(tmp_path / "classes.csv")],
        "model": model,
        "epochs": 1,
        "tune_threshold": True,
        "baselines": True,
    }
    result = perform(resolve(task="mine", flags=flags)).result
    assert result.threshold is None
    assert not any("threshold" in baseline.settings for baseline in result.baselines.values())


def test_a_model_that_is_trained_on_has_the_threshold_of_its_new_task(run, tmp_path: Path) -> None:
    config = changed(run.trained.config, model=str(run.directory / "model"), tune_threshold=False, baselines=False)
    again = perform(config, tmp_path / "again")
    assert again.result.threshold == 0.5
    assert json.loads((tmp_path / "again" / "model" / "config.json").read_text())["threshold"] == 0.5


@pytest.mark.parametrize("value", ["high", 0, 1, True, None, [0.5]])
def test_a_threshold_that_is_no_probability_is_refused(value: object, tmp_path: Path) -> None:
    directory = save_tiny(tmp_path / "tiny", "bert")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"threshold": value}))
    with pytest.raises(CheckpointError, match=r"threshold is .*; a number between 0 and 1 was expected"):
        load_checkpoint(directory)
