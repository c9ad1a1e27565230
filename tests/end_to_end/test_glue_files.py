"""GLUE's own files, if `ISINGLASS_GLUE_DIR` names them: sizes, labels and majority scores are those stated in `tasks`."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import resolve
from isinglass.data.examples import encode_labels
from isinglass.data.glue import PublishedFiles
from isinglass.metrics import scores
from isinglass.runs.directory import load_run, write_run
from isinglass.tasks import TASKS
from isinglass.training.trainer import TrainedRun, train
from tests.backends.variants import KERAS
from tests.tiny import input_rows

REAL = ("cola", "mrpc", "rte", "stsb", "wnli")  # tasks that anyone can download without filling in a form


@pytest.mark.parametrize("name", REAL)
def test_the_published_files_have_the_stated_sizes_labels_and_majority(name: str, glue_dir: Path) -> None:
    """Guards against quotes that swallow lines, byte order marks in column names, and lost last lines."""
    task = TASKS[name]
    for split in task.splits:
        examples = PublishedFiles(task=task, data_dir=glue_dir).read(split)
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
        labels = encode_labels(PublishedFiles(task=task, data_dir=glue_dir).read(task.dev[0]), task, task.labels).astype(
            np.int64
        )
        positive = task.labels.index(task.positive_label) if task.positive_label in task.labels else 0
        found = scores(task.metrics, labels, task.kind.constant(labels), positive)
        assert tuple(found.values()) == pytest.approx(task.dev_majority[0])


@pytest.mark.slow
def test_wnli_trains_on_the_demo_model_from_the_command_line(glue_dir: Path, tmp_path: Path) -> None:
    """Trains the smallest real task end to end, with one epoch instead of the default recipe's five."""
    command = [sys.executable, "-m", "isinglass", "train", "wnli", "--data-dir", str(glue_dir), "--epochs", "1", "--json"]
    finished = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "run")], capture_output=True, text=True, check=True, env={**os.environ}
    )
    result = json.loads(finished.stdout)
    assert result["examples"] == {"train": 635, "dev": 71}
    assert result["majority"]["accuracy"] == pytest.approx(40 / 71)
    assert round(result["metrics"]["accuracy"] * 71) == pytest.approx(result["metrics"]["accuracy"] * 71)
    assert any("adversarial" in note for note in result["notes"])


def first_rows(source: Path, directory: Path, task: str, **rows: int) -> Path:
    """Write the first rows of a task's train and dev files to `directory`, and return it."""
    folder = directory / TASKS[task].folder
    folder.mkdir(parents=True)
    for split, count in rows.items():
        lines = (source / folder.name / f"{split}.tsv").read_bytes().split(b"\n")
        (folder / f"{split}.tsv").write_bytes(b"\n".join(lines[: count + 1]) + b"\n")
    return directory


def trained(backend: str, task: str, data_dir: Path) -> TrainedRun:
    flags = {"data_dir": str(data_dir), "backend": backend, "epochs": 1, "dropout": 0.0, "learning_rate": 1e-4}
    return train(resolve(task=task, flags=flags))


@pytest.mark.slow
@pytest.mark.parametrize(("task", "rows"), [("wnli", {"train": 96, "dev": 71}), ("mrpc", {"train": 96, "dev": 100})])
def test_both_frameworks_train_to_the_same_answers(task: str, rows: dict[str, int], glue_dir: Path, tmp_path: Path) -> None:
    """Training of the embedded model on real batches, without dropout, must not drift apart between the two frameworks."""
    data_dir = first_rows(glue_dir, tmp_path, task, **rows)
    one, other = trained("torch", task, data_dir), trained(KERAS, task, data_dir)
    assert len(one.scored[0].outputs) == rows["dev"]
    np.testing.assert_allclose(other.scored[0].outputs, one.scored[0].outputs, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(other.scored[0].outputs.argmax(1), one.scored[0].outputs.argmax(1))
    assert other.result.metrics == one.result.metrics
    np.testing.assert_allclose([s.loss for s in other.steps], [s.loss for s in one.steps], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("trained_on", "asked_on"), [(KERAS, "torch"), ("torch", KERAS)])
def test_the_quick_tour_goes_round(trained_on: str, asked_on: str, glue_dir: Path, tmp_path: Path) -> None:
    """A model fine-tuned on MRPC must give the same predictions for two pairs in either framework and in `transformers`."""
    from transformers import pipeline

    data_dir = first_rows(glue_dir, tmp_path / "glue", "mrpc", train=96, dev=32)
    write_run(trained(trained_on, "mrpc", data_dir), tmp_path / "run", overwrite=False)
    sentence = "This research was consistent with his findings."
    others = ("His findings were compatible with this research.", "His findings were not compatible with this research.")
    (tmp_path / "questions.tsv").write_text("".join(f"{sentence}\t{other}\n" for other in others))
    answers = {}
    for backend in (trained_on, asked_on):
        finished = load_run(tmp_path / "run")
        asked = dataclasses.replace(finished, config=dataclasses.replace(finished.config, backend=backend))
        _, *rows = input_rows(asked, tmp_path / "questions.tsv")
        answers[backend] = np.array([[float(chance) for chance in row[2:]] for row in rows])
    np.testing.assert_allclose(answers[asked_on], answers[trained_on], atol=1e-5)
    classify = pipeline("text-classification", model=str(tmp_path / "run" / "model"), top_k=None)
    found = classify([{"text": sentence, "text_pair": other} for other in others])
    chances = [{one["label"]: one["score"] for one in scores} for scores in found]
    expected = [[scores[name] for name in ("0", "1")] for scores in chances]
    np.testing.assert_allclose(answers[asked_on], expected, atol=1e-5)
