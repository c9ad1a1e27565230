"""`isinglass.perform`, which does the command's run in one call, and the observers of its progress."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import isinglass
from isinglass.config import TrainConfig, resolve
from isinglass.errors import ConfigError, OutputExistsError
from isinglass.runs.directory import RunNotWrittenError, repetitions
from isinglass.runs.perform import Saving, perform
from isinglass.storage import held
from isinglass.tasks import TASKS
from isinglass.training.interruption import Interrupted
from isinglass.training.observers import Observer
from isinglass.training.trainer import train
from tests.tiny import save_tiny, write_glue

METHODS = [name for name in vars(Observer) if name.startswith("on_")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return settings for two epochs of seven steps each."""
    glue = write_glue(TASKS["mrpc"], tmp_path_factory.mktemp("glue"), rows=100)
    model = save_tiny(tmp_path_factory.mktemp("model"))
    flags = {"data_dir": str(glue), "model": str(model), "epochs": 2, "batch_size": 16, "max_length": 40}
    return resolve(task="mrpc", flags=flags)


class Recorder(Observer):
    """An observer that records the name and the arguments of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []

    def __getattribute__(self, name: str) -> object:
        if name in METHODS:
            return lambda *arguments: self.calls.append((name, arguments))
        return super().__getattribute__(name)

    def of(self, name: str) -> list[object]:
        """Return the last argument of each call with this name."""
        return [arguments[-1] for called, arguments in self.calls if called == name]


class Stop(Observer):
    """An observer that sends this process a signal once, after the checkpoint of a step is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, state) -> None:
        if state.step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGTERM)


class Broken(Observer):
    """An observer that fails after the first epoch."""

    def on_epoch_end(self, state) -> None:
        raise ZeroDivisionError("an observer's own mistake")


def test_a_run_in_one_call_leaves_what_the_command_leaves(config: TrainConfig, tmp_path: Path) -> None:
    run = isinglass.perform(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "result.json", "steps.jsonl", "predictions-dev.tsv", "model",
    }  # fmt: skip
    assert run.directory == tmp_path / "run"
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(run.result.to_json())
    finished = isinglass.load_run(tmp_path / "run")
    for name, array in finished.checkpoint.weights.items():
        np.testing.assert_array_equal(array, run.trained.model.weights[name])
    with pytest.raises(OutputExistsError, match="not empty"):
        perform(config, tmp_path / "run")
    perform(config, tmp_path / "run", saving=Saving(overwrite=True))


def test_a_run_without_a_directory_writes_nothing(config: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = perform(config)
    assert run.directory is None and run.result == run.trained.result
    assert not list(tmp_path.iterdir())


def test_a_signal_leaves_a_checkpoint_and_resuming_gives_the_same_run(config: TrainConfig, tmp_path: Path) -> None:
    """Fails if signal handlers stay installed, or if a run does not resume at the step where it stopped."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    saving = Saving(checkpoint_every="2steps", keep_checkpoints=1)
    with pytest.raises(Interrupted, match=r"stopped after step 4 of 14, saved in .*step-000000004"):
        perform(config, tmp_path / "run", [Stop(4)], saving=saving)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    recorder = Recorder()
    resumed = perform(config, tmp_path / "run", [recorder], saving=Saving(resume=True))
    (begin,) = recorder.of("on_train_begin")
    assert (begin.step, begin.total_steps) == (4, 14)
    whole = train(config)
    assert resumed.trained.steps == whole.steps
    for name, array in whole.model.weights.items():
        np.testing.assert_array_equal(resumed.trained.model.weights[name], array)
    again = perform(config, tmp_path / "run", saving=Saving(resume=True))
    assert again.trained is None and again.result == resumed.result


def test_observers_are_told_each_step_and_epoch_once_and_in_order(config: TrainConfig, tmp_path: Path) -> None:
    recorder, second = Recorder(), Recorder()
    chosen = resolve(task="mrpc", flags=vars(config) | {"keep_best": True, "task": None})
    run = perform(chosen, tmp_path / "run", [recorder, second], saving=Saving(checkpoint_every="1epoch"))
    names = [name for name, _ in recorder.calls]
    assert set(names) == set(METHODS)
    assert names[0] == "on_train_begin" and names[-1] == "on_train_end"
    assert recorder.of("on_train_end") == [run.trained.result]
    assert [step for steps in recorder.of("on_step_end") for step in steps] == run.trained.steps
    assert [(state.epochs_done, state.step) for state in recorder.of("on_epoch_end")] == [(1, 7), (2, 14)]
    assert [int(state.checkpoint.stem[5:]) for state in recorder.of("on_save")] == [7, 14]
    scores = [state.epoch_scores for state in recorder.of("on_evaluate")]
    assert [len(so_far) for so_far in scores] == [1, 2]
    assert list(scores[-1]) == run.result.epoch_scores
    order = [name for name in names if name in ("on_epoch_end", "on_evaluate", "on_save")]
    assert order == ["on_epoch_end", "on_evaluate", "on_save"] * 2
    last = recorder.of("on_prediction_step")[-1]
    assert last.stage == "evaluate dev" and last.done == last.total
    assert [name for name, _ in second.calls] == names


def test_an_observer_that_fails_ends_the_run_and_frees_its_directory(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        perform(config, tmp_path / "run", [Broken()])
    assert not (tmp_path / "run").exists()
    perform(config, tmp_path / "run")


def test_a_directory_that_another_process_holds_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run" / ".lock", "it"), pytest.raises(OutputExistsError, match="is held by process"):
        perform(config, tmp_path / "run")


def test_what_cannot_be_written_is_not_lost(config: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    """If hours of training end with a full disk, the error must hold the scores."""

    def full(*_: object, **__: object) -> None:
        raise OSError("The disk is full.")

    monkeypatch.setattr("isinglass.runs.directory.take_place", full)
    with pytest.raises(RunNotWrittenError, match="The disk is full") as caught:
        perform(config, tmp_path / "run")
    assert caught.value.result.metrics["accuracy"] > 0
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resume": True, "overwrite": True}, "leave one of them out"),
        ({"checkpoint_every": "often"}, "200steps, 1epoch"),
        ({"keep_checkpoints": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Saving(**options)


def test_repetitions_differ_in_their_seed_alone(config: TrainConfig, tmp_path: Path) -> None:
    planned = repetitions(config, tmp_path, 3)
    assert [(settings.seed, directory.name) for settings, directory in planned] == [
        (42, "seed42"),
        (43, "seed43"),
        (44, "seed44"),
    ]
    assert repetitions(config, tmp_path, 1) == [(config, tmp_path)]
