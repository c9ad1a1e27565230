"""This version reads, uses and resumes runs and benches saved by an earlier version (see tests/saved_before/make.py)."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from isinglass.cli import app
from isinglass.config import as_dict
from isinglass.results import RunResult, read_records
from isinglass.runs.directory import load_run
from isinglass.submission.write import write_submission
from tests.saved_before.make import GLUE, HERE, KEEP_BEST, SHORT, UNFINISHED, cpu

RUNS = {"glue": "pairs.txt", "regression": "pairs.txt", "own": "texts.txt", "multilabel": "texts.txt"}
BENCHES = {"bench": (4, 2), "bench-own": (2, 0)}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the saved files as the working directory, because their settings name the data by relative paths."""
    shutil.copytree(HERE, tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "saved")
    return tmp_path / "saved"


def isinglass(*arguments: str) -> Result:
    """Run the command in this process."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    return done


ADDED = {
    "dataset": None,
    "subset": None,
    "encoding": "utf-8",
    "chosen": [],
    "head_start": "random",
    "tune_threshold": False,
    "baselines": None,
}
"""Settings that did not exist when the runs were saved."""


def data_of(run: str) -> tuple[str, ...]:
    return GLUE if run in ("glue", "regression") else ()


@pytest.mark.parametrize("run", RUNS)
def test_a_saved_run_loads_with_its_settings_and_scores(run: str, saved: Path) -> None:
    loaded = load_run(saved / "runs" / run)
    result = RunResult.read(saved / "runs" / run / "result.json")
    stored = json.loads((saved / "runs" / run / "result.json").read_text())
    assert as_dict(loaded.config) == stored["config"] | ADDED
    assert result.metrics == stored["metrics"]
    assert result.majority == stored["majority"]
    assert result.notes == stored["notes"]


@pytest.mark.parametrize("run", RUNS)
def test_a_saved_run_is_evaluated_with_the_same_scores(run: str, saved: Path) -> None:
    was = json.loads((saved / "expected" / f"{run}.json").read_text())
    now = json.loads(isinglass("evaluate", f"runs/{run}", *data_of(run), "--json").stdout)
    for name in ("split", "examples", "collapsed", "notes"):
        assert now[name] == was[name]
    for name in ("metrics", "majority"):
        assert now[name] == pytest.approx(was[name], nan_ok=True)


@pytest.mark.parametrize(("run", "texts"), RUNS.items())
def test_a_saved_run_predicts_the_same_lines(run: str, texts: str, saved: Path) -> None:
    was = (saved / "expected" / f"{run}.tsv").read_text()
    now = isinglass("predict", f"runs/{run}", "--input", f"expected/{texts}").stdout
    assert_same_predictions(now, was)


@pytest.mark.parametrize("name", ["unfinished-torch", pytest.param("unfinished-tensorflow", marks=pytest.mark.slow)])
def test_a_saved_checkpoint_is_resumed_bit_for_bit(name: str, saved: Path) -> None:
    """The weights must be those of an uninterrupted run."""
    command = ("train", "mrpc", *GLUE, *SHORT, *KEEP_BEST, *UNFINISHED[name], "--output-dir")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def weights(output: str, *options: str) -> str:
        whole = (sys.executable, "-m", "isinglass", *command, output, *options)
        done = subprocess.run(whole, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return hashlib.sha256((saved / output / "model" / "model.safetensors").read_bytes()).hexdigest()

    resumed, uninterrupted = weights(f"runs/{name}", "--resume"), weights("runs/uninterrupted")
    assert resumed == uninterrupted
    assert json.loads((saved / "runs" / name / "result.json").read_text())["epoch_scores"]
    before = json.loads((saved / "sums.json").read_text())
    if before["cpu"] == cpu():
        assert uninterrupted == before["model.safetensors"][name], "the same program gives the same weights on this CPU"


@pytest.mark.parametrize(("bench", "counts"), BENCHES.items())
def test_a_saved_bench_is_read_and_reported(bench: str, counts: tuple[int, int], saved: Path) -> None:
    records = read_records(saved / bench)
    assert (len(records.results), len(records.failed), records.damaged) == (*counts, [])
    isinglass("report", bench)
    page = (saved / bench / "report.md").read_text()
    assert ("Failed runs" in page) == bool(records.failed)
    for result in records.results:
        for score in result.metrics.values():
            assert isinstance(score, float)
        assert f"| {result.seed}" in page


def test_a_saved_bench_is_submitted(saved: Path) -> None:
    rows = {"MRPC.tsv": 12, "STS-B.tsv": 12}
    written = write_submission(Path("bench"), Path("glue.zip"), partial="majority", rows=rows)
    assert {file.name for file in written if file.run is not None} == {*rows}
    with zipfile.ZipFile("glue.zip") as archive:
        assert len(archive.namelist()) == 11


def assert_same_predictions(now: str, was: str) -> None:
    """Compare columns and labels exactly. Figures may differ in their last digits on another CPU."""
    rows, before = ([line.split("\t") for line in text.splitlines()] for text in (now, was))
    assert rows[0] == before[0]
    assert len(rows) == len(before)
    for row, old in zip(rows[1:], before[1:], strict=True):
        assert row[0] == old[0]
        if len(row) > 2:
            assert row[1] == old[1]
        figures, old_figures = ([float(cell) for cell in cells[1 + (len(row) > 2) :]] for cells in (row, old))
        np.testing.assert_allclose(figures, old_figures, atol=2e-5, rtol=0)
