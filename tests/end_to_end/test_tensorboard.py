"""`--log-to tensorboard`: TensorBoard's own reader finds the data of the run."""

import subprocess
import sys
from pathlib import Path

import pytest

from isinglass.results import RunResult
from isinglass.tasks import TASKS
from tests.tiny import save_tiny, write_glue


def test_tensorboard_shows_every_step_and_the_scores(tmp_path: Path) -> None:
    """A run that is repeated with --overwrite must leave one curve, not two on top of each other."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    glue = write_glue(TASKS["mnli"], tmp_path / "glue", rows=40)
    model = save_tiny(tmp_path / "model", "bert")
    command = [sys.executable, "-m", "isinglass", "train", "mnli", "--data-dir", str(glue), "--model", str(model)]
    command += [
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--max-length",
        "40",
        "--learning-rate",
        "1e-3",
        "--log-to",
        "tensorboard",
    ]
    for _ in range(2):
        subprocess.run(
            [*command, "--output-dir", str(tmp_path / "runs" / "one"), "--overwrite"], check=True, capture_output=True
        )
    shown = EventAccumulator(str(tmp_path / "runs" / "tensorboard" / "one"))
    shown.Reload()
    assert set(shown.Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "train/tokens_per_second",
        "dev_matched/accuracy",
        "dev_mismatched/accuracy",
    }
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(10))
    rates = [event.value for event in shown.Scalars("train/learning_rate")]
    assert rates == pytest.approx([1e-3 * (10 - i) / 10 for i in range(10)])
    result = RunResult.read(tmp_path / "runs" / "one" / "result.json")
    (matched,) = shown.Scalars("dev_matched/accuracy")
    assert (matched.step, matched.value) == (10, pytest.approx(result.metrics["dev_matched"]["accuracy"]))
