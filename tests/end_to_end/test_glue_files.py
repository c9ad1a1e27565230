"""GLUE's own files, where `ISINGLASS_GLUE_DIR` names them: sizes, labels and majorities are those that `tasks` states."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from isinglass.data import load_split
from isinglass.data.examples import encode_labels
from isinglass.metrics import majority_scores
from isinglass.tasks import TASKS

REAL = ("cola", "mrpc", "rte", "stsb", "wnli")  # the tasks that anyone may download without a form


@pytest.mark.parametrize("name", REAL)
def test_the_published_files_have_the_stated_sizes_labels_and_majority(name: str, glue_dir: Path) -> None:
    """Guards against quotes that swallow lines, byte order marks in column names and lost last lines."""
    task = TASKS[name]
    for split in task.splits:
        examples = load_split(task, split, glue_dir)
        assert len(examples) == split.rows
        assert not any(text.startswith("\ufeff") or "\n" in text for column in examples.texts for text in column)
        if examples.labels is None:
            continue
        labels = encode_labels(examples, task, task.labels)
        if task.labels is None:
            assert 0 <= labels.min() < labels.max() <= 5
        else:
            assert set(Counter(examples.labels)) == set(task.labels)
    if task.labels is not None:
        labels = encode_labels(load_split(task, task.dev[0], glue_dir), task, task.labels).astype(np.int64)
        positive = task.labels.index(task.positive_label) if task.positive_label in task.labels else 0
        found = majority_scores(task.metrics, labels, positive)
        assert tuple(found.values()) == pytest.approx(task.dev_majority[0])


@pytest.mark.slow
def test_wnli_trains_on_the_demo_model_from_the_command_line(glue_dir: Path, tmp_path: Path) -> None:
    """The smallest real task, end to end, with the default recipe's five epochs cut to one."""
    command = [sys.executable, "-m", "isinglass", "train", "wnli", "--data-dir", str(glue_dir), "--epochs", "1", "--json"]
    finished = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "run")], capture_output=True, text=True, check=True, env={**os.environ}
    )
    result = json.loads(finished.stdout)
    assert result["examples"] == {"train": 635, "dev": 71}
    assert result["majority"]["accuracy"] == pytest.approx(40 / 71)
    assert round(result["metrics"]["accuracy"] * 71) == pytest.approx(result["metrics"]["accuracy"] * 71)
    assert any("adversarial" in note for note in result["notes"])
