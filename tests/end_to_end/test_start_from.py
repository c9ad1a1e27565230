"""`isinglass train --start-from RUN_DIR`: the weights of a finished run, and a new head."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from isinglass.tasks import TASKS
from tests.end_to_end.test_cli import QUICK, ROWS, Finished, isinglass
from tests.tiny import save_tiny, write_glue

LAYER = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a directory with GLUE files, a tiny model, and a finished run of MNLI."""
    directory = tmp_path_factory.mktemp("start")
    for name in ("mnli", "wnli"):
        write_glue(TASKS[name], directory / "glue", rows={split.name: ROWS[split.name] for split in TASKS[name].splits})
    save_tiny(directory / "tiny")
    done = train(directory, "mnli", "--model", "tiny", "--output-dir", "mnli")
    assert done.status == 0, done.err
    return directory


def train(place: Path, task: str, *options: object) -> Finished:
    return isinglass("train", task, "--data-dir", "glue", *QUICK, *options, cwd=place)


def layer_of(model: Path) -> np.ndarray:
    """Return a weight of the first layer; a model without a head has no prefix."""
    (weight,) = (array for name, array in load_file(model / "model.safetensors").items() if name.endswith(LAYER))
    return weight


def test_a_run_starts_from_the_weights_of_another_and_says_so(place: Path) -> None:
    # steps of no size: what is written is what the run began with
    options = ("--start-from", "mnli", "--output-dir", "wnli", "--learning-rate", "1e-30", "--json")
    done = train(place, "wnli", *options)
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["start_from"] == "mnli" and result["model"] == "tiny"
    assert (layer_of(place / "wnli" / "model") == layer_of(place / "mnli" / "model")).all()
    assert (layer_of(place / "wnli" / "model") != layer_of(place / "tiny")).any()
    assert "Its weights had been fine-tuned on MNLI before." in (place / "wnli" / "model" / "README.md").read_text()
    assert any("has a head for other labels" in note for note in result["notes"])

    again = train(place, "wnli", *options, "--resume")
    assert again.status == 0 and "is finished already" in again.err
    other = train(place, "wnli", "--model", "tiny", "--output-dir", "wnli", "--learning-rate", "1e-30", "--resume")
    assert other.status != 0 and 'start_from "mnli", and now it is null' in other.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--start-from", "tiny"),
            "tiny is not a run directory with a model (result.json and model/), as --start-from needs",
        ),
        (("--start-from", "nowhere"), "nowhere is not a run directory with a model"),
        (
            ("--start-from", "mnli", "--model", "glue"),
            "--start-from mnli starts from tiny, fine-tuned on mnli, and --model is",
        ),
    ],
)
def test_what_cannot_be_started_from_is_refused(options: tuple[str, ...], expected: str, place: Path) -> None:
    done = train(place, "wnli", *options)
    assert done.status != 0 and done.out == ""
    assert expected in done.err and len(done.err.splitlines()) == 1
    assert not (place / "runs").exists()
