"""benchmarks/gpu.py without a GPU: it refuses to run, or rehearses and writes no result."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
RESULTS = SCRIPT.parent / "results" / "gpu.jsonl"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)


def test_the_rehearsal_measures_each_side_and_writes_no_result():
    before = RESULTS.read_bytes() if RESULTS.exists() else None
    found = run("--rehearse", "--sides", "fp32", "bf16")
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["side"] for row in rows] == ["fp32", "bf16"]
    for row in rows:
        assert row["device"] == "CPU (rehearsal)"
        assert all(math.isfinite(row[key]) and row[key] > 0 for key in ("examples_per_second", "share_of_peak"))
        assert row["mnli_seconds"] == pytest.approx(3 * 392_702 / row["examples_per_second"])
        assert row["mean_tokens"] == pytest.approx(39, abs=1)
    assert (RESULTS.read_bytes() if RESULTS.exists() else None) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_refuses_in_one_sentence():
    found = run("--rounds", "1")
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr.count("\n") == 1 and "--rehearse" in found.stderr
