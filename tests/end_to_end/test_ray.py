"""`--on ray` on a real local cluster of two worker nodes, one of which is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from isinglass.results import RunResult, read_records
from isinglass.tasks import TASKS
from tests.tiny import save_tiny, write_glue

ISINGLASS = [sys.executable, "-m", "isinglass"]
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 100_000_000}
head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1]), **small}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps([cluster.address, raylets]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Nodes:
    address: str
    client: str
    raylets: list[int]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("glue")
    for seed, name in enumerate(("rte", "wnli", "mnli")):
        write_glue(TASKS[name], directory, rows=24, seed=seed)
    return directory


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[Nodes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("cluster") / "log"
    with (
        open(log, "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        ) as process,
    ):
        address, raylets = json.loads(next(line for line in process.stdout if line.startswith("[")))
        yield Nodes(address, f"ray://127.0.0.1:{port}", raylets)
        process.stdin.close()


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "", **more}


def isinglass(*command: object, status: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    arguments = [*ISINGLASS, *map(str, command)]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment(**more))
    assert finished.returncode == status, finished.stderr
    return finished


def arguments(glue: Path, model: Path, output: Path, tasks: str, epochs: int, *more: object) -> list[object]:
    settings = ["--set", f"epochs={epochs}", "--set", "max_length=40"]
    return ["bench", "--tasks", tasks, "--data-dir", glue, "--models", model, "--output", output, *settings, *more]


def until_a_checkpoint(storage: Path, process: subprocess.Popen[str]) -> Path:
    """Wait for the first checkpoint of any run, and return its path."""
    while process.poll() is None:
        for path in storage.glob("*/step-*.safetensors"):
            return path
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


def workers(nodes: Nodes) -> dict[str, tuple[int, int]]:
    """Return the runs on these nodes by name: the worker's process id and its node's raylet."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"isinglass.executors.worker" in (path / "cmdline").read_bytes().split(b"\0"):
                raylets = [one for one in above(int(path.name)) if one in nodes.raylets]
                if raylets:
                    found[(path / "fd" / "2").readlink().stem] = int(path.name), raylets[0]
        except OSError:
            continue
    return found


def above(process: int) -> list[int]:
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


def by_key(output: Path) -> dict[tuple[str, int], RunResult]:
    records = read_records(output)
    lines = (output / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(records.results), "no run stands twice, and none failed"
    return {(one.task, one.seed): one for one in records.results}


def notes(run: RunResult, output: Path) -> list[str]:
    return [note.replace(str(output), "OUTPUT") for note in run.notes if not note.startswith("Resumed")]


def assert_same_runs(one: Path, other: Path) -> None:
    """Compare all results that do not depend on time; metrics and predictions must be equal bit for bit."""
    left, right = by_key(one), by_key(other)
    assert left.keys() == right.keys()
    for key, run in left.items():
        twin = right[key]
        assert run.metrics == twin.metrics
        assert run.config == twin.config
        assert run.start_from == twin.start_from
        assert run.predictions == twin.predictions
        assert notes(run, one) == notes(twin, other)
        for file in run.predictions.values():
            assert (one / file).read_bytes() == (other / file).read_bytes()
    for kind in ("examples", "runs/*/model/model.safetensors"):
        found = [
            {path.relative_to(side): path.read_bytes() for path in side.glob(f"{kind}") if path.is_file()}
            for side in (one, other)
        ]
        assert found[0] == found[1]


@pytest.mark.slow
def test_a_bench_on_two_nodes_of_which_one_is_killed_is_the_same_bench(
    nodes: Nodes, glue: Path, model: Path, tmp_path: Path
) -> None:
    """The run on the killed node resumes from its checkpoint on the other. Runs that start from its model wait for it."""
    here, there, storage = tmp_path / "here", tmp_path / "there", tmp_path / "storage"
    common = ("rte,mnli", 160, "--start-from", "mnli", "--seeds")
    on = ("--storage", storage, "--checkpoint-every", "20steps", "--on")
    command = [*ISINGLASS, *map(str, arguments(glue, model, there, *common, 2, *on, "ray"))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(RAY_ADDRESS=nodes.address)
    ) as process:
        name = until_a_checkpoint(storage, process).parent.name.rpartition("-")[0]
        _, raylet = workers(nodes)[name]
        os.kill(raylet, signal.SIGKILL)
        table, said = process.communicate()
    assert process.returncode == 0, said
    assert f"Ray: {nodes.address}, 3 node(s); 2 run(s) at a time, each with 1 CPU(s)." in said
    assert "was lost with its process or node" in said
    assert "attempt 2 of 5" in said
    isinglass(*arguments(glue, model, here, *common, 2))
    assert_same_runs(here, there)
    (run,) = [run for run in by_key(there).values() if f"runs/{name}/" in str(run.predictions)]
    assert any(note.startswith("Resumed after step ") for note in run.notes), said
    assert "95 % interval" in table
    assert not [*storage.iterdir()], "checkpoints go with the run that needed them"
    assert {path.name for path in there.iterdir()} == {path.name for path in here.iterdir()}

    more = isinglass(*arguments(glue, model, there, *common, 3, *on, nodes.client))
    assert "[2/2] RTE from MNLI" in more.stderr
    assert by_key(there).keys() == {(task, seed) for task in ("mnli", "rte") for seed in (42, 43, 44)}

    refused = isinglass(*arguments(glue, model, there, *common, 3, *on, nodes.client, "--cpus-per-run", 99), status=2)
    assert "A run needs 99 CPU(s) and 0 GPU(s), which no node has" in refused.stderr
    no_storage = isinglass(*arguments(glue, model, there, *common, 3, "--on", nodes.client), status=2)
    assert "name a shared directory, or a URL, with --storage" in no_storage.stderr


@pytest.mark.slow
def test_a_bench_that_was_killed_ends_its_runs_and_goes_on_from_their_checkpoints(
    nodes: Nodes, glue: Path, model: Path, tmp_path: Path
) -> None:
    """Checkpoints are behind a URL. First kill -9 ends the driver, then a run's own process."""
    output, storage = tmp_path / "bench", tmp_path / "storage"
    on = ("--storage", f"file://{storage}", "--checkpoint-every", "20steps", "--on", "ray")
    command = arguments(glue, model, output, "wnli", 400, *on)
    whole = [*ISINGLASS, *map(str, command)]
    joined = environment(RAY_ADDRESS=nodes.address)
    with subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=joined) as first:
        until_a_checkpoint(storage, first)
        started = {*workers(nodes).values()}
        first.kill()
    deadline = time.monotonic() + 60
    while started & {*workers(nodes).values()} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not started & {*workers(nodes).values()}
    assert not (output / "results.jsonl").exists()
    left = {*storage.glob("*/step-*.safetensors")}
    with subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=joined) as second:
        for line in second.stderr:
            if line.startswith("[1/1] train "):
                break
        while not {*storage.glob("*/step-*.safetensors")} - left and second.poll() is None:
            time.sleep(0.02)
        for worker, _ in workers(nodes).values():
            os.kill(worker, signal.SIGKILL)
        _, said = second.communicate()
    assert second.returncode == 0, said
    assert "ended by SIGKILL" in said
    (run,) = by_key(output).values()
    (note,) = [note for note in run.notes if note.startswith("Resumed after step ")]
    assert len(note.partition(":")[0].split(",")) == 2, "once for each of the two"


@pytest.mark.slow
def test_trials_are_trained_side_by_side_by_a_local_ray(glue: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "search"
    search = ("--search", "learning_rate=1e-4:1e-2,epochs=1:3", "--set", "max_length=40", "--set", f"model={model}")
    on = ("--on", "ray", "--cpus-per-run", 1)
    found = isinglass("tune", "rte", "--data-dir", glue, "--trials", 4, "--output", output, *search, *on)
    rows = [line.split("\t") for line in (output / "trials.tsv").read_text().splitlines()]
    assert [row[1] for row in rows[1:]] == ["complete"] * 4
    assert "Ray: a local one" in found.stderr
    assert {path.name for path in output.iterdir()} >= {"study.db", "trials.tsv", "recipe.toml"}
    again = isinglass("tune", "rte", "--data-dir", glue, "--trials", 4, "--output", output, *search)
    assert again.stdout == found.stdout, "the study is the same wherever it goes on"
    run = isinglass(
        "train", "rte", "--data-dir", glue, "--config", output / "recipe.toml", "--output-dir", tmp_path / "run", "--json"
    )
    assert json.loads(run.stdout)["task"] == "rte"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--on", "roy"], "--on is 'roy'; `ray` (a local one, or the one that RAY_ADDRESS names) or ray://HOST:PORT"),
        (["--on", "ray://nowhere"], "--on is 'ray://nowhere'"),
        (["--on", "ray://127.0.0.1:1", "--storage", "s"], "There is no Ray at ray://127.0.0.1:1"),
        (["--on", "ray", "--checkpoint-every", "often"], "--checkpoint-every is 'often'"),
        (["--on", "ray", "--storage", "nothing://there"], "The storage nothing://there cannot be used"),
        (["--cpus-per-run", "2"], "--cpus-per-run is for runs on a cluster: name it with --on ray."),
        (["--checkpoint-every", "never"], "--checkpoint-every is for runs on a cluster"),
    ],
)
def test_a_mistake_is_one_sentence(more: list[str], said: str, glue: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench"
    finished = isinglass(*arguments(glue, model, output, "rte", 1, *more), status=2)
    (line,) = finished.stderr.splitlines()
    assert said in line
    assert not output.exists()


def test_without_ray_the_extra_is_named(glue: Path, model: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from isinglass.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments(glue, model, tmp_path / "bench", "rte", 1, "--on", "ray"))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert "--on ray needs Ray, which is not installed: `pip install 'isinglass[ray]'`." in line
