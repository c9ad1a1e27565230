"""The search: what it writes, where it resumes, and what it must not read."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import as_dict, resolve
from isinglass.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    OutputExistsError,
    RunFailedError,
    TrainingDivergedError,
)
from isinglass.storage import held
from isinglass.tasks import get_task
from isinglass.training.interruption import Interrupted
from isinglass.training.observers import Observer, RunState
from isinglass.training.trainer import train
from isinglass.tuning import SearchSpace, TuningObserver, tune, tuning_data
from tests.tiny import save_tiny, sentence, write_glue

SMALL = SearchSpace(learning_rate=(1e-4, 1e-2), epochs=(1, 3), batch_size=(8, 16))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "train.tsv"
    rng = np.random.default_rng(0)
    texts = [sentence(rng, 5) for _ in range(120)]
    path.write_text("text\tlabel\n" + "".join(f"{one}\t{'short' if len(one) < 22 else 'long'}\n" for one in texts))
    return path


@pytest.fixture
def config(model, table):
    return resolve(task="own", flags={"model": str(model), "train_file": str(table), "max_length": 32})


SECOND_TRIAL_STOPS = """
import json, sys, time
from pathlib import Path
from isinglass.config import resolve
from isinglass.tuning import SearchSpace, TuningObserver, tune

class StopInSecondTrial(TuningObserver):
    finished = 0

    def on_trial_begin(self, trial):
        self.settings = trial.settings

    def on_progress(self, number, progress):
        if self.finished == 1:
            print(json.dumps(dict(self.settings)), flush=True)
            time.sleep(60)

    def on_trial_end(self, trial):
        self.finished += 1

flags, space, directory = json.loads(sys.argv[1])
config = resolve(task="own", flags=flags)
tune(config, trials=3, directory=Path(directory), space=SearchSpace.parse(space), observer=StopInSecondTrial())
"""


class Told(TuningObserver):
    """An observer that keeps the trials that it is told of."""

    def __init__(self) -> None:
        self.trials = []

    def on_trial_begin(self, trial):
        self.trials.append(trial)

    on_trial_end = on_trial_begin


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "trials.tsv", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_so_many_trials_give_so_many_rows_and_a_recipe_that_repeats_the_best_score(config, tmp_path):
    told = Told()
    tuned = tune(config, trials=3, directory=tmp_path / "a", space=SMALL, observer=told)
    assert [one["state"] for one in rows(tmp_path / "a")] == ["complete"] * 3
    assert [trial.state for trial in told.trials] == ["running", "complete"] * 3
    assert len({one["seed"] for one in rows(tmp_path / "a")}) == 3
    assert tuned.best.score == max(one.score for one in tuned.trials)
    assert any("validation split" in note for note in tuned.notes)

    flags = {name: value for name, value in as_dict(config).items() if name == "train_file"}
    again = resolve(task="own", config_file=tuned.recipe, flags=flags)
    assert again == dataclasses.replace(config, **tuned.best.settings), "model and length come from the recipe"
    assert train(again).result.metrics[tuned.metric] == tuned.best.score

    more = tune(config, trials=4, directory=tmp_path / "a", space=SMALL)
    other = tune(config, trials=4, directory=tmp_path / "b", space=SMALL)
    assert more.trials[:3] == tuned.trials
    assert [one.settings for one in more.trials] == [one.settings for one in other.trials]
    assert [one.score for one in more.trials] == [one.score for one in other.trials]


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trial_that_was_cut_off(config, tmp_path):
    """Guards against a trial that stays `running` forever, or one that is trained and counted twice."""
    directory = tmp_path / "killed"
    flags = {name: value for name, value in as_dict(config).items() if name in ("model", "train_file", "max_length")}
    space = "learning_rate=1e-4:1e-2,epochs=1:3,batch_size=8:16,seed"
    assert SearchSpace.parse(space) == SMALL
    arguments = [sys.executable, "-c", SECOND_TRIAL_STOPS, json.dumps([flags, space, str(directory)])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        cut_off = json.loads(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(rows(directory)) == 1
    assert (directory / "recipe.toml").exists(), "what is known so far is of use"

    tuned = tune(config, trials=3, directory=directory, space=SMALL)
    found = rows(directory)
    assert len(found) == len(tuned.trials) == 3
    assert len({(one["learning_rate"], one["seed"]) for one in found}) == 3
    assert tuned.trials[1].settings == cut_off, "tried again with the same parameters"
    whole = tune(config, trials=3, directory=tmp_path / "whole", space=SMALL)
    assert [one.settings for one in tuned.trials] == [one.settings for one in whole.trials]


def test_other_settings_or_data_are_refused_by_name(config, table, tmp_path):
    directory = tmp_path / "a"
    tune(config, trials=1, directory=directory, space=SMALL)
    with pytest.raises(ConfigError, match=r"weight_decay 0\.0, and now it is 0\.1.*--output"):
        tune(dataclasses.replace(config, weight_decay=0.1), trials=2, directory=directory, space=SMALL)
    with pytest.raises(ConfigError, match="search"):
        tune(config, trials=2, directory=directory)
    changed = tmp_path / "changed.tsv"
    changed.write_text(table.read_text() + "one more\tshort\n")
    with pytest.raises(ConfigError, match="data"):
        tune(dataclasses.replace(config, train_file=(str(changed),)), trials=2, directory=directory, space=SMALL)
    moved = tmp_path / "moved.tsv"
    moved.write_text(table.read_text())
    assert (
        len(tune(dataclasses.replace(config, train_file=(str(moved),)), trials=1, directory=directory, space=SMALL).trials)
        == 1
    )
    with held(directory / ".lock", "it"), pytest.raises(OutputExistsError, match="held by process"):
        tune(config, trials=2, directory=directory, space=SMALL)
    with pytest.raises(OutputExistsError, match="something other"):
        tune(config, trials=1, directory=tmp_path, space=SMALL)
    (directory / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match="not a database"):
        tune(config, trials=1, directory=directory, space=SMALL)


def scripted(monkeypatch, script):
    """Let trials report the scores of `script(number of the call)` instead of training."""
    calls = []

    def fake(_request, config, _data, _send, *observers: Observer, **_: object):
        calls.append(config)
        scores = script(len(calls) - 1, config)
        for epoch in range(config.epochs):
            told = tuple(scores[: epoch + 1])
            for observer in observers:
                observer.on_evaluate(
                    RunState(
                        step=0, total_steps=0, epochs_done=epoch + 1, epochs=config.epochs, metric="f1", epoch_scores=told,
                        checkpoint=None,
                    )
                )  # fmt: skip

    monkeypatch.setattr("isinglass.tuning.harness.train_requested", fake)
    return calls


def test_a_trial_worse_than_most_is_pruned_and_recorded(config, tmp_path, monkeypatch):
    space = dataclasses.replace(SMALL, epochs=None)
    scripted(monkeypatch, lambda number, _: [0.8, 0.8, 0.8] if number != 6 else [0.2, 0.9, 0.9])
    tuned = tune(config, trials=8, directory=tmp_path / "a", space=space)
    assert [one["state"] for one in rows(tmp_path / "a")] == [*["complete"] * 6, "pruned", "complete"]
    assert tuned.trials[6].score == 0.2
    assert tuned.best.number == 0, "a pruned trial is never the best, and of equal ones the first is"


def test_a_trial_that_diverges_or_has_no_score_does_not_end_the_search(config, tmp_path, monkeypatch):
    def script(number, config):
        if number == 1:
            raise TrainingDivergedError("The loss is nan.")
        return [float("nan")] * config.epochs if number == 0 else [0.5] * config.epochs

    scripted(monkeypatch, script)
    with pytest.raises(RunFailedError, match="No trial has a score"):
        tune(config, trials=2, directory=tmp_path / "a", space=SMALL)
    assert not (tmp_path / "a" / "recipe.toml").exists()
    tuned = tune(config, trials=3, directory=tmp_path / "a", space=SMALL)
    found = [(one["state"], one[tuned.metric]) for one in rows(tmp_path / "a")]
    assert found == [("complete", "NaN"), ("failed", ""), ("complete", "0.5")]
    assert tuned.best.number == 2


def test_a_search_that_is_asked_to_end_says_what_is_kept(config, tmp_path, monkeypatch):
    def script(number, config):
        if number == 1:
            raise Interrupted(signal.SIGTERM)
        return [0.5] * config.epochs

    scripted(monkeypatch, script)
    with pytest.raises(Interrupted, match="1 of 3 trials are kept") as ended:
        tune(config, trials=3, directory=tmp_path / "a", space=SMALL)
    assert ended.value.number == signal.SIGTERM
    assert len(tune(config, trials=3, directory=tmp_path / "a", space=SMALL).trials) == 3


def test_a_mistake_before_the_first_trial_has_ended_can_be_mended_in_the_same_directory(config, tmp_path, monkeypatch):
    directory = tmp_path / "a"
    with pytest.raises(CheckpointError):
        tune(dataclasses.replace(config, model=str(tmp_path)), trials=1, directory=directory, space=SMALL)
    scripted(monkeypatch, lambda _, config: [0.5] * config.epochs)
    assert len(tune(config, trials=2, directory=directory).trials) == 2


def test_an_error_is_the_better_the_lower_and_the_last_epoch_counts(config, tmp_path, monkeypatch):
    """A recipe without `keep_best` gives the last epoch's weights, so an earlier, better epoch must not set the score."""
    path = tmp_path / "scores.tsv"
    path.write_text("text\tlabel\n" + "".join(f"a dog {i}\t{i / 7:.3f}\n" for i in range(60)))
    config = dataclasses.replace(config, train_file=(str(path),), best_metric="rmse")
    space = dataclasses.replace(SMALL, epochs=None)
    script = [[3.0, 0.1, 2.0], [3.0, 2.0, 1.0], [3.0, 1.0, 4.0]]
    scripted(monkeypatch, lambda number, _: script[number])
    assert tune(config, trials=3, directory=tmp_path / "last", space=space).best.score == 1.0
    scripted(monkeypatch, lambda number, _: script[number])
    best = dataclasses.replace(config, keep_best=True)
    assert tune(best, trials=3, directory=tmp_path / "best", space=space).best.score == 0.1


def test_the_dev_set_of_a_published_task_is_never_read(model, tmp_path):
    task = get_task("sst-2")
    data = write_glue(task, tmp_path / "glue", 120)
    for split in (*task.dev, *task.test):
        (data / task.folder / split.file).write_bytes(b"\xff poisoned")
    config = resolve(task="sst-2", flags={"model": str(model), "data_dir": str(data), "max_length": 32})
    tuned = tune(config, trials=1, directory=tmp_path / "a", space=SMALL)
    assert any("the published dev set was not read" in note for note in tuned.notes)
    assert "not read" in tuned.recipe.read_text()

    parts, _ = tuning_data(config)
    train_part, dev_part = (parts.read(split) for split in (parts.task.train, *parts.task.dev))
    assert len(dev_part) == 12
    assert sorted([*train_part.line_numbers, *dev_part.line_numbers]) == [*range(2, 122)]


def test_the_test_file_of_the_user_is_never_read(config, tmp_path):
    config = dataclasses.replace(config, test_file=(str(tmp_path / "absent.tsv"),))
    assert tune(config, trials=1, directory=tmp_path / "a", space=SMALL).trials


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat", "did you mean 'learning_rate'"),
        ("epochs=1:two", "numbers with"),
        ("epochs=3:1", "a lower and a higher"),
        ("epochs=1", "a lower and a higher"),
        ("learning_rate=0:1", "above 0"),
        ("learning_rate=1e-5:inf", "finite"),
        ("batch_size=8:8", "rising"),
        ("seed=1:2", "no values"),
        ("seed", "nothing to search"),
    ],
)
def test_a_wrong_search_space_is_told_in_a_sentence(text, said):
    with pytest.raises(ConfigError, match=said):
        SearchSpace.parse(text)


def test_only_what_is_named_is_searched(config, tmp_path, monkeypatch):
    calls = scripted(monkeypatch, lambda *_: [0.5] * 3)
    tune(config, trials=4, directory=tmp_path / "a", space=SearchSpace.parse("learning_rate"))
    assert {(one.epochs, one.batch_size, one.seed) for one in calls} == {(config.epochs, config.batch_size, config.seed)}
    assert len({one.learning_rate for one in calls}) == 4


def test_without_optuna_the_extra_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"isinglass\[tune\]"):
        tune(config, trials=1, directory=tmp_path / "a")
