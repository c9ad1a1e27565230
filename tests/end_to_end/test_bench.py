"""`isinglass bench` as a real process over small random data: resuming, kills, damaged records, failed runs, locks."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isinglass.bench import worker
from isinglass.bench.plan import PRESETS, PlannedRun, Selection, left_to_do, make_plan, select
from isinglass.config import as_dict, resolve
from isinglass.data import open_data
from isinglass.errors import ConfigError, IsinglassError
from isinglass.results import RunResult, read_records
from isinglass.submission.check import check_submission
from isinglass.submission.write import write_submission
from isinglass.tasks import TASKS
from isinglass.training.preparation import prepare_run
from tests.sample_bench import sample_result
from tests.tiny import save_tiny, write_glue

BENCH = [sys.executable, "-m", "isinglass", "bench"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("glue")
    for seed, name in enumerate(("rte", "wnli", "mnli", "stsb", "ax")):
        write_glue(TASKS[name], directory, rows=24, seed=seed)
    return directory


def arguments(glue: Path, model: Path, output: Path, tasks: str = "rte,wnli", *more: str) -> list[str]:
    settings = ["--set", "epochs=1", "--set", "max_length=40"]
    return ["--tasks", tasks, "--data-dir", str(glue), "--models", str(model), "--output", str(output), *settings, *more]


def bench(*command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run([*BENCH, *command], capture_output=True, text=True, check=False, env=environment())
    assert finished.returncode == status, finished.stderr
    return finished


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def runs(output: Path) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    return [(line["task"], line["seed"]) for line in lines]


@pytest.mark.slow
def test_a_second_call_runs_only_what_is_missing(glue: Path, model: Path, tmp_path: Path) -> None:
    """The output is the plan, each run, and the table. A lost record means a lost run, and only that run is repeated."""
    output = tmp_path / "bench"
    command = arguments(glue, model, output, "rte,wnli", "--seeds", "2")
    dry = bench(*command, "--dry-run")
    assert "4 of 4 runs to do, about 0" in dry.stderr
    assert not (output / "results.jsonl").exists()
    first = bench(*command)
    assert runs(output) == [("rte", 42), ("rte", 43), ("wnli", 42), ("wnli", 43)]
    assert "[4/4] WNLI" in first.stderr
    assert "95 % interval" in first.stdout
    assert "real tokens/s" in first.stdout
    record = read_records(output).results[0]
    assert (output / record.predictions["dev"]).is_file()
    assert not (output / "runs" / Path(record.predictions["dev"]).parent.name / "model").exists()
    assert sum(record.train_lengths) == 24
    examples = [json.loads(line) for line in (output / "examples" / "rte-dev.jsonl").read_text().splitlines()]
    assert len(examples) == 24
    assert len(examples[0]["texts"]) == 2
    again = bench(*command)
    assert runs(output) == [("rte", 42), ("rte", 43), ("wnli", 42), ("wnli", 43)]
    assert "[1/" not in again.stderr
    assert again.stdout == first.stdout
    lines = (output / "results.jsonl").read_bytes().splitlines(keepends=True)
    (output / "results.jsonl").write_bytes(b"".join([lines[0], lines[1][:100] + b"\n", *lines[2:-1], lines[-1][:50]]))
    mended = bench(*command)
    assert "line 2 is no record" in mended.stderr
    assert "line 4 is no record" in mended.stderr
    assert runs(output) == [("rte", 42), ("wnli", 42), ("rte", 43), ("wnli", 43)]
    assert len((output / "results.damaged.jsonl").read_bytes().splitlines()) == 2
    assert scores(mended.stdout) == scores(first.stdout), "the same seed gives the same numbers"


def test_other_examples_under_the_same_name_are_no_rival_scores(glue: Path, model: Path, tmp_path: Path) -> None:
    """Guards against a paired test over examples that are not pairs, because the dev set was changed between two runs."""
    data, output = write_glue(TASKS["rte"], tmp_path / "glue", rows=24), tmp_path / "bench"
    bench(*arguments(data, model, output, "rte"))
    write_glue(TASKS["rte"], data, rows=24, seed=7)
    finished = bench(*arguments(data, model, output, "rte", "--set", "seed=43"), status=2)
    assert "dev.tsv has changed since earlier runs of this bench were scored on it: use a new --output." in finished.stderr


def scores(table: str) -> list[str]:
    return [line for line in table.split("Speed")[0].splitlines() if line.startswith(("RTE", "WNLI"))]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_the_run_in_flight_only(glue: Path, model: Path, tmp_path: Path) -> None:
    """After twenty kills at random moments, all records written before a kill are kept and none is duplicated."""
    output, dice = tmp_path / "bench", random.Random(0)
    command = arguments(glue, model, output, "rte,wnli", "--seeds", "2")
    recorded: list[bytes] = []
    for _ in range(20):
        process = subprocess.Popen(
            [*BENCH, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        time.sleep(dice.uniform(0.0, 7.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        path = output / "results.jsonl"
        now = path.read_bytes().splitlines() if path.exists() else []
        assert now[: len(recorded)] == recorded
        recorded = [line for line in now if complete(line)]
    bench(*command)
    assert sorted(runs(output)) == [(task, seed) for task in ("rte", "wnli") for seed in (42, 43)]
    for result in read_records(output).results:
        for file in result.predictions.values():
            assert len((output / file).read_text().splitlines()) == 25
    assert not [path.name for path in (output / "examples").iterdir() if not path.name.endswith("-dev.jsonl")]


def complete(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_a_failed_run_is_recorded_and_stops_nothing(glue: Path, model: Path, tmp_path: Path) -> None:
    """A run fails on a label that the task lacks. The table names the reason, and is complete once the data are fixed."""
    data, output = tmp_path / "glue", tmp_path / "bench"
    for name in ("rte", "wnli"):
        write_glue(TASKS[name], data, rows=24)
    file = data / "RTE" / "dev.tsv"
    sound = file.read_text()
    file.write_text(sound.replace("not_entailment", "perhaps", 1))
    command = arguments(data, model, output)
    finished = bench(*command, status=2)
    assert "failed: " in finished.stderr
    assert "the label is 'perhaps'" in finished.stderr
    assert finished.stderr.endswith("1 of 2 runs failed, each with its reason above; the same command tries them again.\n")
    row = next(line.split() for line in finished.stdout.splitlines() if line.startswith("RTE "))
    assert row[-4:] == ["failed", "-", "-", "-"]
    assert "Note: Failed: RTE" in finished.stdout
    assert [one.task for one in read_records(output).results] == ["wnli"]
    (failure,) = read_records(output).failed
    assert "the label is 'perhaps'" in failure.error
    file.write_text(sound)
    bench(*command)
    records = read_records(output)
    assert sorted(one.task for one in records.results) == ["rte", "wnli"]
    assert records.failed == []


def until_training(process: subprocess.Popen[str]) -> int:
    """Wait until the first run trains; return the process id of its worker."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train "):
            break
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BENCH, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    )


def test_a_run_whose_process_is_killed_is_a_failed_run(glue: Path, model: Path, tmp_path: Path) -> None:
    """The kernel kills a process when memory runs out. The next run must still be done."""
    output = tmp_path / "bench"
    with started(*arguments(glue, model, output, "rte,wnli", "--set", "epochs=400")) as process:
        os.kill(until_training(process), signal.SIGKILL)
        rest = process.stderr.read() if process.stderr else ""
    assert process.returncode == 2
    assert "failed: the run's process was ended by SIGKILL (out of memory?)" in rest
    assert [one.task for one in read_records(output).results] == ["wnli"]


def test_ctrl_c_keeps_what_is_finished_and_ends_the_worker(glue: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "bench"
    with started(*arguments(glue, model, output, "rte", "--set", "epochs=3000")) as process:
        worker = until_training(process)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read() if process.stderr else ""
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "isinglass: interrupted; nothing was written of what was under way."
    assert not Path(f"/proc/{worker}").exists()
    assert not (output / "results.jsonl").exists()


def test_of_two_benches_in_one_directory_one_is_refused_and_its_workers_end_with_it(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    """Guards against two writers, and against a worker that keeps computing after its bench was killed."""
    output = tmp_path / "bench"
    command = arguments(glue, model, output, "rte", "--set", "epochs=3000")
    with started(*command) as first:
        worker = until_training(first)
        second = bench(*command, status=2)
        assert f"The bench in {output} is held by process {first.pid} on " in second.stderr
        first.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_small_sets_start_from_mnli_and_the_submission_is_whole_where_data_are(
    glue: Path, model: Path, tmp_path: Path
) -> None:
    """MNLI runs first and its model is kept. RTE and STS-B start from it, and WNLI does not. MNLI's model predicts AX."""
    output = tmp_path / "bench"
    more = ["--start-from", "mnli", "--predict-test", "--published"]
    finished = bench(*arguments(glue, model, output, "rte,mnli,stsb,wnli", *more))
    found = {result.task: result for result in read_records(output).results}
    assert [*found] == ["mnli", "rte", "stsb", "wnli"]
    assert {task: one.start_from for task, one in found.items()} == {
        "mnli": None,
        "rte": "mnli",
        "stsb": "mnli",
        "wnli": None,
    }
    assert [path.parent.name.split("-")[0] for path in output.glob("runs/*/model")] == ["mnli"]
    assert set(found["mnli"].predictions) == {"dev_matched", "dev_mismatched", "test_matched", "test_mismatched", "ax"}
    assert any("head for other labels" in note for note in found["rte"].notes)
    assert "Published result" in finished.stdout
    assert "start from MNLI" in finished.stdout
    files = ("STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv")
    rows = dict.fromkeys(files, 24)
    write_submission(output, tmp_path / "glue.zip", partial="majority", rows=rows)
    assert check_submission(tmp_path / "glue.zip", rows=rows) == []


def test_presets_are_the_published_tables_and_say_what_they_leave_out(glue: Path) -> None:
    one = make_plan(select("seed-pytorch", models=("demo",)), str(glue))
    assert [(run.config.task, run.config.precision, run.config.epochs) for run in one.runs] == [
        (task, precision, 5 if task == "wnli" else 3) for task in ("mnli", "rte", "wnli") for precision in ("fp32", "amp")
    ]
    assert [note.partition(" is left out")[0] for note in one.skipped] == ["QNLI"]
    other = make_plan(select("seed-tensorflow"), None)
    assert {(run.config.learning_rate, run.config.schedule, run.config.model) for run in other.runs} == {
        (3e-5, "constant", "bert-base-cased")
    }
    modes = {(run.config.precision, run.config.xla) for run in other.runs}
    assert modes == {("fp32", False), ("fp32", True), ("amp", False), ("amp", True)}
    assert len(other.runs) == len({run.name for run in other.runs}) == 12
    assert {task for task in TASKS if task not in ("ax", "demo")} == set(PRESETS["glue"].tasks)


def finished(run: PlannedRun, **changes: object) -> RunResult:
    result = sample_result(run.config.task, **changes)
    return dataclasses.replace(result, config=as_dict(run.config), start_from=run.start_from and run.start_from.config.task)


def test_a_run_that_is_started_from_is_made_again_if_its_model_is_gone(tmp_path: Path) -> None:
    plan = make_plan(Selection(tasks=("rte", "mnli"), start_from="mnli"), None)
    mnli, rte = plan.runs
    assert rte.start_from is mnli
    assert left_to_do(plan, [finished(mnli)], tmp_path) == [mnli, rte]
    (tmp_path / "runs" / mnli.name / "model").mkdir(parents=True)
    (tmp_path / "runs" / mnli.name / "model" / "config.json").touch()
    assert left_to_do(plan, [finished(mnli)], tmp_path) == [rte]
    shutil.rmtree(tmp_path / "runs")
    assert left_to_do(plan, [finished(mnli), finished(rte)], tmp_path) == [], "nobody starts from it any more"


def test_a_run_without_what_is_asked_for_now_is_made_again(glue: Path, tmp_path: Path) -> None:
    """Guards against `--predict-test` or `--keep-models` having no effect because the runs are finished."""
    asked = make_plan(Selection(tasks=("rte", "mnli"), predict_test=True), str(glue))
    rte, mnli = asked.runs
    some = {"test_matched": "a.tsv", "test_mismatched": "b.tsv"}
    bare = [finished(rte), finished(mnli, predictions=some)]
    assert left_to_do(asked, bare, tmp_path) == [rte, mnli], "AX is missing"
    whole = [finished(rte, predictions={"test": "c.tsv"}), finished(mnli, predictions=some | {"ax": "d.tsv"})]
    assert left_to_do(asked, whole, tmp_path) == []
    assert left_to_do(make_plan(Selection(tasks=("rte",), keep_models=True), str(glue)), whole, tmp_path) != []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--preset", "seed-pytorhc"], "There is no preset 'seed-pytorhc' (did you mean 'seed-pytorch'?)"),
        ([], "Name a --preset (seed-pytorch, seed-tensorflow, glue), --tasks, a --train-file of your own, or a --dataset."),
        (["--tasks", "rte,mrpd"], "There is no task 'mrpd' (did you mean 'mrpc'?)"),
        (["--tasks", "rte", "--data-dir", "/nowhere"], "RTE: /nowhere/RTE/train.tsv is not there"),
        (["--tasks", "rte", "--start-from", "mnli"], "start-from is mnli, but mnli is not among the tasks"),
        (["--tasks", "rte", "--precisions", "fp8"], "precision is 'fp8'"),
        (["--tasks", "ax"], "AX has no training set"),
    ],
)
def test_a_mistake_is_one_sentence(command: list[str], message: str, tmp_path: Path) -> None:
    finished = bench(*command, "--output", str(tmp_path / "bench"), status=2)
    (line,) = finished.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "bench").exists()


def test_a_directory_that_is_no_bench_is_refused(glue: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    finished = bench(*arguments(glue, model, tmp_path), status=2)
    assert "holds something other than a bench" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_plan_names_what_it_cannot_start_from() -> None:
    with pytest.raises(ConfigError, match="add it to --tasks"):
        make_plan(Selection(tasks=("rte",), start_from="mnli"), None)


def test_an_estimate_without_a_step_at_full_speed_is_refused(
    model: Path, glue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a division by zero where every timed step warms up or compiles, as the first always does."""
    config = resolve(task="rte", flags={"data_dir": str(glue), "model": str(model), "max_length": 40})
    prepared = prepare_run(config, open_data(config), None)
    assert worker.time_steps(config, prepared)[0] > 0
    monkeypatch.setattr(worker, "MOST_STEPS", 1)
    with pytest.raises(IsinglassError, match="All of the first 1 training steps warmed up or compiled"):
        worker.time_steps(config, prepared)
