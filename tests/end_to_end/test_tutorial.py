"""The tutorial and the examples, run as they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(arguments: list[str], cwd: Path) -> str:
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(arguments, cwd=cwd, env=os.environ | {"PATH": paths}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "own-data.md").read_text())
    assert len(blocks) >= 8
    for language, text in blocks:
        run(["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text], tmp_path)
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert answers[0] == "index,prediction,id,top1,probability1,top2,probability2" and len(answers) == 41
    assert {path.name for path in (tmp_path / "runs" / "desk-onnx").iterdir()} >= {"model.onnx", "model-int8.onnx"}
    assert (tmp_path / "bench" / "desk" / "report.html").is_file()
    assert (tmp_path / "runs" / "tuned" / "model" / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_each_example_runs(example: Path, tmp_path: Path) -> None:
    assert run([sys.executable, str(example)], tmp_path).strip()
