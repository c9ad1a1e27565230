"""No data is lost when processes are killed, disks are full or files are damaged."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from isinglass.config import TrainConfig, resolve
from isinglass.errors import ConfigError, DataError, TrainingDivergedError
from isinglass.results import RunResult
from isinglass.runs.directory import locked_run
from isinglass.tasks import TASKS
from isinglass.training.checkpoints import Checkpoints, Interval, TrainingState
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.trainer import TrainedRun, train
from tests.backends.variants import KERAS
from tests.tiny import save_tiny, write_glue

QUICK = ("--max-length", "40", "--batch-size", "16", "--epochs", "8", "--learning-rate", "1e-3")


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    return write_glue(TASKS["mrpc"], tmp_path_factory.mktemp("glue"), rows=100)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def command(glue: Path, model: Path, output: Path, *options: object) -> list[str]:
    given = ("train", "mrpc", "--data-dir", glue, "--model", model, *QUICK, "--output-dir", output, *options)
    return [sys.executable, "-m", "isinglass", *map(str, given)]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("isinglass: ")]


def what_counts(directory: Path) -> dict[str, bytes]:
    """Return what must not depend on how often a run was interrupted: weights, losses and predictions."""
    names = ("model/model.safetensors", "steps.jsonl", "predictions-dev.tsv")
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_that_was_not(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    """Other tests below interrupt the other framework and precision, and soak/kills.py kills them."""
    whole = run(command(glue, model, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    rng = np.random.default_rng(0)
    often = command(glue, model, tmp_path / "killed", "--checkpoint-every", "2steps", "--resume")
    for _ in range(3):  # each time it gets past another checkpoint
        before = newest(tmp_path / "killed")
        process = subprocess.Popen(often, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with process:
            while process.poll() is None and newest(tmp_path / "killed") == before:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
    last = run(often)
    assert last.returncode == 0, last.stderr
    assert what_counts(tmp_path / "killed") == what_counts(tmp_path / "whole")
    result, reference = (RunResult.read(tmp_path / name / "result.json") for name in ("killed", "whole"))
    assert result.metrics == reference.metrics
    assert len(result.epoch_seconds) == len(reference.epoch_seconds) == 8
    assert "Resumed after step" in last.stdout
    assert not (tmp_path / "killed" / "checkpoints").exists(), "a finished run needs none"
    assert {p.name for p in tmp_path.iterdir()} == {"whole", "killed"}


def newest(directory: Path) -> str:
    return max((path.name for path in (directory / "checkpoints").glob("step-*")), default="")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_says_how_to_resume_and_exits_with_the_usual_status(
    number: signal.Signals, glue: Path, model: Path, tmp_path: Path
) -> None:
    options = ("--epochs", "100000", "--checkpoint-every", "never")
    process = subprocess.Popen(command(glue, model, tmp_path / "run", *options), stdout=-1, stderr=-1, text=True)
    with process:
        assert process.stderr.readline().startswith("train ")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    said = [line for line in err.splitlines() if line.startswith("isinglass: ")]
    assert said[0] == f"isinglass: {number.name}: ending after what is under way; once more ends at once."
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    step = int(re.search(r"\d+", checkpoint.name)[0])
    assert said[1] == (
        f"isinglass: stopped after step {step} of 700000, saved in {checkpoint}; the same command with --output-dir "
        f"{tmp_path / 'run'} --resume continues from it."
    )
    assert len(said) == 2
    assert errors(run(command(glue, model, tmp_path / "run"))) == [
        f"isinglass: {tmp_path / 'run'} holds an unfinished run: continue it with --resume, or start again with --overwrite."
    ]


STUCK = """
import os
from isinglass.training.interruption import Interruption
with Interruption(lambda message: os.write(2, f"{message}\\n".encode())) as interruption, interruption.deferred():
    print("step", flush=True)
    while True: pass
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_what_the_first_is_waiting_for(second: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=-1, stderr=-1, text=True)
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert "once more ends at once" in process.stderr.readline()
        process.send_signal(second)
        process.communicate(timeout=60)
    assert process.returncode == -second


# --- checkpoints, in one process ---


def config(glue: Path, model: Path, **changes: object) -> TrainConfig:
    values = {"data_dir": str(glue), "model": str(model), "epochs": 2, "batch_size": 16, "max_length": 40}
    return resolve(task="mrpc", flags={**values, **changes})


def stopped(settings: TrainConfig, directory: Path, after: int, **changes: object) -> None:
    """Train, and stop as by a signal after step `after`, with a checkpoint after each step and three kept."""
    interruption = Interruption()

    checkpoints = dataclasses.replace(store(directory), **changes)
    saved = checkpoints.save

    def save(state: TrainingState, identity: dict) -> Path:
        path = saved(state, identity)
        if state.step == after:
            interruption._arrived(signal.SIGTERM, None)
        return path

    object.__setattr__(checkpoints, "save", save)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(Interrupted):
            train(settings, checkpoints=checkpoints, interruption=interruption)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)


def store(directory: Path, *, resume: bool = False) -> Checkpoints:
    return Checkpoints(directory=directory / "checkpoints", every=Interval(1, "steps"), keep=3, resume=resume)


def resumed(settings: TrainConfig, directory: Path) -> TrainedRun:
    return train(settings, checkpoints=store(directory, resume=True))


def assert_same(one: TrainedRun, other: TrainedRun) -> None:
    assert [step.loss for step in one.steps] == [step.loss for step in other.steps]
    assert one.model.weights.keys() == other.model.weights.keys()
    for name, array in one.model.weights.items():
        np.testing.assert_array_equal(array, other.model.weights[name])
    np.testing.assert_array_equal(one.scored[0].outputs, other.scored[0].outputs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("after", [1, 7, 8, 14], ids=["early", "end of epoch 1", "epoch 2", "before evaluation"])
def test_resuming_at_any_step_gives_the_same_run(
    after: int, precision: str, glue: Path, model: Path, tmp_path: Path
) -> None:
    settings = config(glue, model, precision=precision)
    stopped(settings, tmp_path, after)
    assert_same(resumed(settings, tmp_path), train(settings))


def test_what_a_kill_left_of_a_checkpoint_or_a_result_is_cleared_away(tmp_path: Path) -> None:
    """Otherwise each kill in the middle of writing would leave another model on the disk."""
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (tmp_path / ".run.partial").mkdir()
    whole, partial = checkpoints / "step-000000002.safetensors", checkpoints / ".step-000000004.safetensors-x1"
    for path in (whole, partial):
        path.write_bytes(b"-")
    with locked_run(tmp_path / "run", overwrite=False, resume=True):
        assert [*checkpoints.iterdir()] == [whole]
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]


@pytest.mark.slow
def test_keras_resumes_to_the_same_run_too(glue: Path, model: Path, tmp_path: Path) -> None:
    settings = config(glue, model, backend=KERAS, batch_size=100, epochs=3)
    stopped(settings, tmp_path, 2)
    assert_same(resumed(settings, tmp_path), train(settings))


def test_the_newest_checkpoints_stay_and_a_damaged_one_is_reported_and_passed_over(
    glue: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(glue, model)
    stopped(settings, tmp_path, 9)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-00000000{step}.safetensors" for step in (7, 8, 9)]
    broken = tmp_path / "checkpoints" / names[-1]
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    run = resumed(settings, tmp_path)
    assert f"{broken} is damaged (its checksum is another): going back to the checkpoint before it." in caplog.text
    assert "Resumed after step 8" in run.result.notes[-1]
    assert_same(run, train(settings))


def test_another_number_of_threads_is_told(glue: Path, model: Path, tmp_path: Path) -> None:
    """The run continues, but not bit for bit."""
    settings, given = config(glue, model), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stopped(settings, tmp_path, 3)
        torch.set_num_threads(1)
        notes = resumed(settings, tmp_path).result.notes
    finally:
        torch.set_num_threads(given)
    (note,) = [note for note in notes if "not bit for bit" in note]
    assert "2 threads up to step 3" in note and "1 threads from there on" in note


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = {"weights.a": np.arange(12, dtype=np.float32).reshape(3, 4), "adamw.0.step": np.array(3, np.float32)}
    state = TrainingState(
        step=3, losses=[1.0, 0.5, 0.25], tokens=9, epoch_seconds=[1.5], compile_seconds=0.0, parts=1, notes=[],
        resumed_at=[], device="CPU", arrays=arrays,
    )  # fmt: skip
    identity = {"seed": 1}
    path = store(tmp_path).save(state, identity)
    whole = path.read_bytes()
    found = store(tmp_path, resume=True).load(identity)
    assert found is not None
    assert (found.losses, found.epoch_seconds) == (state.losses, state.epoch_seconds)
    np.testing.assert_array_equal(found.arrays["weights.a"], arrays["weights.a"])
    rng = np.random.default_rng(0)
    damages = [whole[: int(cut)] for cut in rng.integers(0, len(whole), 100)]
    for position, bit in zip(rng.integers(0, len(whole), 400), rng.integers(0, 8, 400), strict=True):
        content = bytearray(whole)
        content[position] ^= 1 << bit
        damages.append(bytes(content))
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"All 1 checkpoints in .* are damaged: start again with --overwrite"):
            store(tmp_path, resume=True).load(identity)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 3e-4}, "learning_rate 2e-05, and now it is 0.0003"),
        ({"seed": 43}, "seed 42, and now it is 43"),
        ({"precision": "bf16"}, 'precision "fp32", and now it is "bf16"'),
        ({"max_length": 12}, "max_length 40, and now it is 12"),
    ],
)
def test_resuming_under_another_setting_is_refused_by_its_name(
    changes: dict, said: str, glue: Path, model: Path, tmp_path: Path
) -> None:
    stopped(config(glue, model), tmp_path, 2)
    with pytest.raises(ConfigError, match=re.escape(said)):
        resumed(config(glue, model, **changes), tmp_path)


def test_resuming_on_other_data_is_refused_and_the_same_data_elsewhere_are_not(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    settings = config(glue, model)
    stopped(settings, tmp_path, 2)
    other = write_glue(TASKS["mrpc"], tmp_path / "other", rows=100, seed=9)
    with pytest.raises(ConfigError, match=r"training data \(digest\)"):
        resumed(config(other, model), tmp_path)
    shutil.copytree(glue, tmp_path / "moved")
    assert_same(resumed(config(tmp_path / "moved", model), tmp_path), train(settings))


def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_names_the_batch(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    done = run(command(glue, model, tmp_path / "run", "--learning-rate", "1e38", "--checkpoint-every", "1steps"))
    assert done.returncode == TrainingDivergedError.exit_status == 4
    (said,) = errors(done)
    assert re.match(
        r"isinglass: (The loss is nan at step \d+, at a learning rate of .* lines \d+, |After step \d+ the array )", said
    )
    for path in (tmp_path / "run").glob("checkpoints/*.safetensors"):
        from safetensors.numpy import load_file

        assert all(np.isfinite(array).all() for array in load_file(path).values())


# --- disks, locks, memory ---


def test_a_disk_too_full_for_checkpoints_warns_and_one_too_full_for_the_run_shows_its_scores(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh"]  # 20 or 40 KiB a file: a tiny model is larger
    options = ("--checkpoint-every", "1epoch", "--json")
    done = run([*limited, *command(glue, model, tmp_path / "run", *options)])
    said = errors(done)
    assert done.returncode == 3, done.stderr
    assert len(said) == 9
    for line in said[:-1]:
        assert re.search(
            r"could not be written \(.*too large.*\); earlier checkpoints that stay: none\. Training continues", line
        )
    assert re.search(r"The run could not be written to .* \(.*too large.*\), and nothing is left of it\.", said[-1])
    assert json.loads(done.stdout)["metrics"]["accuracy"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_was_saved_before_the_disk_was_full_stays_usable(glue: Path, model: Path, tmp_path: Path) -> None:
    settings = config(glue, model)
    stopped(settings, tmp_path / "run", 9)
    limited = ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh"]
    arguments = command(glue, model, tmp_path / "run", "--resume", "--epochs", "2", "--learning-rate", "2e-5")
    done = run([*limited, *arguments])
    assert done.returncode == 3, done.stderr
    assert "its checkpoints stay: free some space and continue with --resume" in errors(done)[-1]
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    assert "Resumed after step 9" in done.stdout


@pytest.mark.slow
def test_of_two_runs_in_one_directory_the_second_is_told_who_holds_it_and_a_dead_holder_holds_nothing(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    first = subprocess.Popen(command(glue, model, tmp_path / "run", "--epochs", "100000"), stdout=-1, stderr=-1, text=True)
    with first:
        first.stderr.readline()
        second = run(command(glue, model, tmp_path / "run"))
        assert second.returncode == 2
        (said,) = errors(second)
        assert said.startswith(f"isinglass: {tmp_path / 'run'} is held by process {first.pid} on ")
        first.kill()
    third = run(command(glue, model, tmp_path / "run"))
    assert third.returncode == 0, third.stderr


def test_resuming_what_is_finished_shows_its_result(glue: Path, model: Path, tmp_path: Path) -> None:
    arguments = command(glue, model, tmp_path / "run", "--resume", "--json")
    first, second = run(arguments), run(arguments)
    assert (first.returncode, second.returncode) == (0, 0)
    assert any("There is no checkpoint in " in line for line in errors(first))
    assert second.stdout == first.stdout
    assert "is finished already; this is its result." in second.stderr
    other = run([*arguments, "--seed", "7"])
    assert (other.returncode, errors(other)[0].count("seed 42, and now it is 7")) == (2, 1)


MEMORY = """
import resource, sys
from pathlib import Path
import sklearn.metrics  # libraries loaded later would need address space too
from isinglass.backends.torch.backend import TorchBackend
from isinglass.config import resolve
from isinglass.training.trainer import train

megabytes = int(sys.argv[3])
step = TorchBackend.train_step

def step_in_little_memory(*arguments, **named):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    if megabytes:
        resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), unlimited[1]))
    try:
        step(*arguments, **named)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)

TorchBackend.train_step = step_in_little_memory
flags = {"data_dir": sys.argv[1], "model": sys.argv[2], "batch_size": 6000, "max_length": 40, "epochs": 2, "dropout": 0.0}
run = train(resolve(task="mrpc", flags=flags | {"learning_rate": 1e-3, "eval_tokens": 1000}))
print(run.result.notes)
print([step.loss for step in run.steps])
"""


@pytest.mark.slow
def test_a_step_that_does_not_fit_into_memory_is_cut_into_parts_with_the_same_result(model: Path, tmp_path: Path) -> None:
    """Both the limit on the address space and the allocator's refusal are real."""
    data = write_glue(TASKS["mrpc"], tmp_path / "glue", rows={"train": 6000, "dev": 20, "test": 1})
    whole, limited = (run([sys.executable, "-c", MEMORY, str(data), str(model), megabytes]) for megabytes in ("0", "150"))
    assert limited.returncode == whole.returncode == 0, limited.stderr
    assert whole.stdout.startswith("[]\n")
    note = r"Step 0: 6000 examples do not fit into the memory of CPU: .*\. Steps are cut into 2 micro-batches"
    assert re.search(note, limited.stdout)
    losses = [json.loads(done.stdout.splitlines()[1]) for done in (whole, limited)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-5)


TOKENIZE = """
import sys
from pathlib import Path
from isinglass.data.examples import Examples
from isinglass.data.tokenization import tokenize

texts = [f"the cat number {i} sleeps" for i in range(20_000)]
examples = Examples(texts=(texts,), labels=None, origin="-", line_numbers=range(1, 20_001))
found = tokenize(examples, Path(sys.argv[1]).read_text(), 16)
print(int(found.input_ids.sum()), len(found))
"""


def test_ten_processes_that_tokenize_the_same_end_with_one_good_entry(model: Path, tmp_path: Path) -> None:
    env = os.environ | {"ISINGLASS_CACHE": str(tmp_path)}
    arguments = [sys.executable, "-c", TOKENIZE, str(model / "tokenizer.json")]
    processes = [subprocess.Popen(arguments, env=env, stdout=-1, text=True) for _ in range(10)]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert len(answers) == 1
    assert {process.returncode for process in processes} == {0}
    (entry,) = (tmp_path / "tokens").iterdir()
    assert not entry.name.startswith(".")


@pytest.mark.parametrize("text", ["", "5", "steps", "0steps", "-3steps", "5 days", "1.5h", "9" * 12 + "s"])
def test_an_interval_without_number_or_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="200steps, 1epoch, 90s"):
        Interval.parse(text)


def test_intervals() -> None:
    assert Interval.parse("200steps") == Interval(200, "steps")
    assert Interval.parse("2h") == Interval(7200, "seconds")
    assert Interval.parse("1epoch").is_due(step=14, steps_per_epoch=7, seconds=0)
    assert not Interval.parse("2epochs").is_due(step=7, steps_per_epoch=7, seconds=1e9)
    assert not Interval.parse("never").is_due(step=7, steps_per_epoch=7, seconds=1e9)
