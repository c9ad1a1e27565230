"""Messages between executors and workers, and the sharing of a cluster among runs."""

import math
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import as_dict, resolve
from isinglass.errors import ConfigError, DataError
from isinglass.executors.messages import (
    Calibration,
    CalibrationRequest,
    EpochScored,
    Failed,
    Message,
    Progressed,
    RunFinished,
    RunInputs,
    RunRequest,
    Started,
    TrialFinished,
    TrialRequest,
    from_line,
    to_line,
)
from isinglass.executors.ray.executor import Shares, share_nodes
from isinglass.executors.ray.task import Bundle, FileStore, put_in_place, write_missing
from isinglass.training.observers import Progress
from tests.sample_bench import sample_result

INPUTS = RunInputs(
    config=as_dict(resolve(task="rte", flags={"data_dir": "glue \udcff"})),
    relocated={"data_dir": "/node/glue"},
    first_weights="/bench/runs/mnli/model",
)
PROGRESS = Progress(stage="train", epoch=1, epochs=3, done=40, total=120, loss=0.25, tokens_per_second=1234.5)
MESSAGES = [
    RunRequest(runs=(INPUTS,), name="rte-x", start_from="mnli", keep_model=True, predict_test=False),
    TrialRequest(runs=(INPUTS,), checkpoints="s3://bucket/x", checkpoint_every="20steps"),
    CalibrationRequest(runs=(INPUTS, INPUTS)),
    Started(),
    Progressed(progress=PROGRESS),
    EpochScored(scores=(0.5, 0.75)),
    TrialFinished(scores=(0.5,), error=None),
    TrialFinished(scores=(), error="The loss is nan."),
    RunFinished(result=sample_result("rte")),
    Calibration(tokens_per_second=1e4, compile_seconds=0.0, train_tokens={"rte": 10}, dev_tokens={"rte": 2}),
    Failed(error="a path \udcff", signal=9),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_one_ascii_line_and_comes_back_as_it_was(message: Message) -> None:
    """Guards against a path that is not UTF-8, a list instead of a tuple, and a line feed within a message."""
    line = to_line(message)
    assert line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_line(line) == message


def test_scores_that_are_nan_come_back_as_nan() -> None:
    back = from_line(to_line(EpochScored(scores=(math.nan,))))
    assert isinstance(back, EpochScored) and math.isnan(back.scores[0])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"Unknown": {}}', "there is no message 'Unknown'"),
        (b'{"EpochScored": {}}', "required"),
        (b'{"EpochScored": {"scores": ["high"]}}', "valid number"),
        (b'{"Started": {"more": 1}}', "more"),
        (b"{", "Expecting"),
    ],
)
def test_what_is_no_message_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_line(line)


def test_the_files_of_a_run_are_relocated_and_its_settings_stay() -> None:
    assert INPUTS.config["data_dir"] == "glue \udcff"
    assert INPUTS.resolve().data_dir == "/node/glue"


def test_files_are_packed_by_content_and_unpacked_once(tmp_path: Path) -> None:
    """Guards against a bundle that is stored for each run anew, and against one that stays after its file has changed."""
    (tmp_path / "train.csv").write_text("text,label\n")
    config = as_dict(resolve(task="own", flags={"train_file": str(tmp_path / "train.csv"), "class_weights": '{"a": 1}'}))
    put: list[dict[str, np.ndarray]] = []
    store = FileStore(lambda contents: put.append(contents) or len(put) - 1)
    bundles: dict[str, Bundle] = {}
    packed, again = (store.pack(RunInputs(config=config), bundles) for _ in range(2))
    assert packed == again and len(put) == len(bundles) == 2, "the table and the demo model"
    bundle = next(bundle for bundle in bundles.values() if bundle.origin == str(tmp_path / "train.csv"))
    assert packed.relocated == {"train_file": [f"{bundle.mark}/000000/train.csv"]}
    for _ in range(2):
        write_missing(tmp_path / "node", put[store.references[bundle.digest]])
    assert (tmp_path / "node" / "000000" / "train.csv").read_text() == "text,label\n"
    (tmp_path / "train.csv").write_text("text,label\nmore,a\n")
    assert store.pack(RunInputs(config=config), bundles).relocated != packed.relocated


CPUS, GPUS = {"CPU": 16.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "expected"),
    [
        ([CPUS], None, None, Shares(16, 0.0, 1)),
        ([CPUS, {"CPU": 8.0}], None, None, Shares(8, 0.0, 3)),  # as many CPUs as the smallest node has
        ([CPUS], 4, None, Shares(4, 0.0, 4)),
        ([GPUS], None, None, Shares(4, 1.0, 4)),
        ([GPUS], None, 0.5, Shares(2, 0.5, 8)),
        ([GPUS], 8, None, Shares(8, 1.0, 2)),  # CPUs are scarce
        ([GPUS, CPUS], None, None, Shares(4, 1.0, 4)),  # a node without GPUs is left out
        ([GPUS, CPUS], None, 0, Shares(16, 0.0, 2)),
        ([{"CPU": 2.0, "GPU": 8.0}], None, None, Shares(1, 1.0, 2)),
        ([{"CPU": 0.0}, CPUS], None, None, Shares(16, 0.0, 1)),  # a head without CPUs
        ([{"CPU": 10.0, "GPU": 1.0}], None, 0.1, Shares(1, 0.1, 10)),  # 1 / 0.1 is not quite 10
    ],
)
def test_nodes_are_shared_by_what_is_scarce(nodes, cpus, gpus, expected) -> None:
    assert share_nodes(nodes, cpus, gpus) == expected


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "said"),
    [
        ([CPUS], 99, None, "A run needs 99 CPU(s) and 0 GPU(s), which no node has (there are: 16 CPUs and 0 GPUs)"),
        ([CPUS], None, 1, "A run needs 1 CPU(s) and 1 GPU(s)"),
        ([], None, None, "there are: nothing"),
        ([GPUS], None, 1.5, "a share of one, or a whole number"),
        ([GPUS], None, math.nan, "a share of one, or a whole number"),
        ([GPUS], None, -1, "a share of one, or a whole number"),
    ],
)
def test_a_share_that_no_node_has_is_one_sentence(nodes, cpus, gpus, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        share_nodes(nodes, cpus, gpus)
    assert said in str(error.value)


def test_files_of_a_failed_run_are_its_log_only(tmp_path: Path) -> None:
    files = {"logs/a.log": b"log", "runs/a/result.json": b"{}", "examples/rte-dev.jsonl": b"x"}
    put_in_place(tmp_path, files, failed=True)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == ["logs/a.log"]
    put_in_place(tmp_path, files, failed=False)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {*files}
    with pytest.raises(DataError, match="use a new --output"):
        put_in_place(tmp_path, files | {"examples/rte-dev.jsonl": b"other", "runs/b/result.json": b"{}"}, failed=False)
    assert not (tmp_path / "runs" / "b").exists()
