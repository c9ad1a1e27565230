"""Processes that share a run, started by the real torchrun over Gloo or by TF_CONFIG over gRPC, and really killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from isinglass.backends.process_group import joined
from isinglass.errors import ConfigError
from isinglass.results import RunResult
from isinglass.tasks import TASKS
from tests.tiny import save_tiny, write_glue

SETTINGS = ("--max-length", "40", "--batch-size", "16", "--learning-rate", "1e-3")


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    """Return data with 97 training examples: the last step of an epoch has one, too few for all processes."""
    return write_glue(TASKS["mrpc"], tmp_path_factory.mktemp("glue"), rows=97)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def train(glue: Path, model: Path, output: Path, *options: object, processes: int = 1, launcher: tuple[str, ...] = ()):
    given = ("train", "mrpc", "--data-dir", glue, "--model", model, *SETTINGS, "--output-dir", output, *options)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, *launcher)
    return subprocess.Popen(
        [*map(str, (sys.executable, *(torchrun if processes > 1 else ()), "-m", "isinglass", *given))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def train_tensorflow(glue: Path, model: Path, output: Path, *options: object, processes: int) -> list[subprocess.Popen[str]]:
    """Start each process as a user does on its host, with TF_CONFIG."""
    given = ("train", "mrpc", "--backend", "tensorflow", "--data-dir", glue, "--model", model, *SETTINGS)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(processes)]
    workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        subprocess.Popen(
            [*map(str, (sys.executable, "-m", "isinglass", *given, "--output-dir", output, *options))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"OMP_NUM_THREADS": "1"}
            | (
                {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})}
                if processes > 1
                else {}
            ),
        )
        for index in range(processes)
    ]


def finish(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = started.communicate(timeout=400)
    return started.returncode, out, err


def said(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("isinglass: ")]


def newest(directory: Path) -> str:
    return max((path.name for path in (directory / "checkpoints").glob("step-*")), default="")


def children(process: int) -> dict[int, int]:
    """Return rank -> process id of the processes that torchrun started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process:
                variables = (stat.parent / "environ").read_bytes().split(b"\0")
                found |= {int(v[5:]): int(stat.parent.name) for v in variables if v.startswith(b"RANK=")}
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def kill_one(started: subprocess.Popen[str], directory: Path, rank: int) -> None:
    """Kill the process of a rank as soon as a checkpoint exists."""
    while not newest(directory):
        assert started.poll() is None, started.communicate()
        time.sleep(0.01)
    os.kill(children(started.pid)[rank], signal.SIGKILL)


def same_run(one: Path, other: Path, *, atol: float = 5e-6) -> None:
    """Compare two runs up to rounding, without key biases: their gradient is only rounding, which AdamW follows anywhere."""
    ours, theirs = (load_file(run / "model/model.safetensors") for run in (one, other))
    for name, weights in ours.items():
        if not name.endswith("attention.self.key.bias"):
            np.testing.assert_allclose(weights, theirs[name], atol=atol, err_msg=name)
    rows = [
        [line.split("\t") for line in (run / "predictions-dev.tsv").read_text().splitlines()[1:]] for run in (one, other)
    ]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]


@pytest.mark.slow
def test_one_two_and_three_processes_train_the_same_model(glue: Path, model: Path, tmp_path: Path) -> None:
    for processes in (1, 2, 3):
        options = ("--epochs", 2, "--set", "dropout=0", "--json")
        status, out, err = finish(train(glue, model, tmp_path / str(processes), *options, processes=processes))
        assert status == 0, err
        assert out.count("\n") == 1  # one of them prints
        assert not said(err)
    same_run(tmp_path / "1", tmp_path / "2")
    same_run(tmp_path / "1", tmp_path / "3")
    alone, two = (RunResult.read(tmp_path / n / "result.json") for n in ("1", "2"))
    assert two.metrics == alone.metrics
    assert two.device == f"2 processes, each on {alone.device}"
    assert any("2 processes shared each step" in note for note in two.notes)
    for name in ("steps.jsonl", "predictions-dev.tsv"):
        lines = [(tmp_path / n / name).read_text().count("\n") for n in ("1", "2", "3")]
        assert len(set(lines)) == 1


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_another_number_goes_on(glue: Path, model: Path, tmp_path: Path) -> None:
    options = ("--epochs", 30, "--set", "dropout=0", "--checkpoint-every", "2steps")
    status, _, err = finish(train(glue, model, tmp_path / "whole", *options))
    assert status == 0, err
    started = train(glue, model, tmp_path / "killed", *options, processes=2)
    kill_one(started, tmp_path / "killed", rank=1)
    status, _, err = finish(started)
    assert status != 0
    (line,) = [line for line in said(err) if "SIGTERM" not in line]  # torchrun asks the others to end, too
    assert "Another process of this run has ended" in line and "--resume" in line
    step = int(newest(tmp_path / "killed")[5:14])
    status, _, err = finish(train(glue, model, tmp_path / "killed", *options, "--resume", processes=3))
    assert status == 0, err
    same_run(tmp_path / "whole", tmp_path / "killed")
    notes = RunResult.read(tmp_path / "killed/result.json").notes
    assert any(f"2 up to step {step}, 3 from there on" in note for note in notes), notes


@pytest.mark.slow
def test_a_restart_by_torchrun_goes_on_from_the_last_checkpoint(glue: Path, model: Path, tmp_path: Path) -> None:
    """With dropout, two processes must end bit for bit as in an uninterrupted run."""
    options = ("--epochs", 30, "--checkpoint-every", "2steps")
    status, _, err = finish(train(glue, model, tmp_path / "whole", *options, processes=2))
    assert status == 0, err
    started = train(glue, model, tmp_path / "killed", *options, processes=2, launcher=("--max-restarts", "1"))
    kill_one(started, tmp_path / "killed", rank=0)
    status, _, err = finish(started)
    assert status == 0, err
    assert any("Resumed" in note for note in RunResult.read(tmp_path / "killed/result.json").notes)
    for name in ("model/model.safetensors", "steps.jsonl", "predictions-dev.tsv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_signal_to_torchrun_saves_one_checkpoint(glue: Path, model: Path, tmp_path: Path) -> None:
    started = train(glue, model, tmp_path / "run", "--epochs", 5000, "--checkpoint-every", "3steps", processes=2)
    while not newest(tmp_path / "run"):
        assert started.poll() is None, started.communicate()
        time.sleep(0.01)
    for process in children(started.pid).values():  # as Slurm does: a signal to all; torchrun sends another
        os.kill(process, signal.SIGTERM)
    started.terminate()
    status, _, err = finish(started)
    assert status != 0
    told, last = said(err)
    assert "ending after what is under way" in told
    assert newest(tmp_path / "run") in last and "--resume continues from it" in last
    assert not list((tmp_path / "run").glob("result.json"))


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({"WORLD_SIZE": "2"}, ("train", "demo"), "need --output-dir"),
        ({"WORLD_SIZE": "2"}, ("train", "demo", "--backend", "jax", "--output-dir", "run"), "those of jax cannot be shared"),
        ({"WORLD_SIZE": "2"}, ("train", "demo", "--backend", "tensorflow", "--output-dir", "run"), "named by TF_CONFIG"),
        ({"TF_CONFIG": "{}"}, ("train", "demo", "--backend", "tensorflow", "--output-dir", "run"), "TF_CONFIG is '{}'"),
        (
            {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'},
            ("train", "demo", "--backend", "tensorflow", "--output-dir", "run"),
            "with an index of its own",
        ),
        ({"WORLD_SIZE": "2"}, ("evaluate", "run"), "this command runs in one of its own"),
        ({"WORLD_SIZE": "two"}, ("train", "demo"), "WORLD_SIZE is 'two'"),
    ],
)
def test_what_cannot_be_shared_is_one_sentence(environment: dict[str, str], arguments, expected: str, tmp_path) -> None:
    command = [sys.executable, "-m", "isinglass", *arguments]
    for rank in ("0", "1"):
        env = os.environ | environment | {"RANK": rank, "LOCAL_RANK": rank}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, cwd=tmp_path)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert len(lines) == (1 if rank == "0" or "TF_CONFIG" in environment else 0), lines  # a launcher's rank 0 reports
        assert all(expected in line for line in lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_of_tensorflow_train_the_same_model(glue: Path, model: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        output = tmp_path / str(processes)
        options = ("--epochs", 2, "--set", "dropout=0", "--json")
        ended = [finish(one) for one in train_tensorflow(glue, model, output, *options, processes=processes)]
        assert [status for status, _, _ in ended] == [0] * processes, ended
        assert [out.count("\n") for _, out, _ in ended] == [1, 0][:processes]
    same_run(tmp_path / "1", tmp_path / "2", atol=5e-5)
    alone, two = (RunResult.read(tmp_path / n / "result.json") for n in ("1", "2"))
    assert two.metrics == alone.metrics
    assert two.device.startswith("2 processes, each on ")


@pytest.mark.slow
def test_a_killed_process_of_tensorflow_ends_the_other_and_one_alone_goes_on(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    options = ("--epochs", 3, "--set", "dropout=0", "--checkpoint-every", "2steps")
    first, second = train_tensorflow(glue, model, tmp_path / "run", *options, processes=2)
    while not newest(tmp_path / "run"):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second.kill()
    second.communicate()
    status, _, err = finish(first)
    assert status == 6
    (line,) = said(err)
    assert "Another process of this run has ended" in line and "--resume" in line
    step = int(newest(tmp_path / "run")[5:14])
    (alone,) = train_tensorflow(glue, model, tmp_path / "run", *options, "--resume", processes=1)
    status, _, err = finish(alone)
    assert status == 0, err
    notes = RunResult.read(tmp_path / "run/result.json").notes
    assert any(f"2 up to step {step}, 1 from there on" in note for note in notes), notes


@pytest.mark.slow
def test_a_mistake_is_told_once(glue: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep")
    status, _, err = finish(train(glue, model, tmp_path / "full", processes=2))
    assert status != 0
    (line,) = said(err)
    assert "full" in line
    assert (tmp_path / "full/mine.txt").read_text() == "keep"


def test_one_process_needs_no_other(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("torch") as group, group.in_turn():
        assert (group.rank, group.size) == (0, 1)
        assert group.largest(3, 0) == (3, 0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="cannot be shared"), joined("jax"):
        pass
