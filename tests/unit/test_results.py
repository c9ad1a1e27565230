"""results.jsonl: written records are read back, damaged ones are named, and each finished run counts once."""

import dataclasses
import json
from pathlib import Path

import pytest

from isinglass.config import as_dict, resolve
from isinglass.errors import DataError
from isinglass.results import FailedRun, RunResult, append_record, read_records, source_commit
from tests.fuzzing import version_1
from tests.sample_bench import sample_result


def failure(task: str, error: str = "no") -> FailedRun:
    return FailedRun(config=as_dict(resolve(task=task, flags={"seed": 1})), start_from=None, error=error)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    written = [sample_result("rte", seed=1), sample_result("mnli", seed=2), failure("mrpc")]
    for record in written:
        append_record(tmp_path, record)
    found = read_records(tmp_path)
    assert found.results == written[:2]
    assert found.failed == written[2:]
    assert found.damaged == []


def test_a_run_that_was_made_again_counts_once_and_wipes_out_its_failure(tmp_path: Path) -> None:
    """Guards against a gap in the table after a run was repeated successfully, and against one run counting twice."""
    for record in (
        failure("rte"),
        sample_result("rte", seed=1),
        sample_result("rte", seed=1, train_seconds=9.0),
        failure("rte"),
    ):
        append_record(tmp_path, record)
    found = read_records(tmp_path)
    assert [one.train_seconds for one in found.results] == [9.0]
    assert found.failed == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"task": "rte", "spl', "Unterminated string"),
        (b"[]", "it is JSON, but no object"),
        (b'{"task": "rte"}', "missing"),
        (b"\xff\xfe", "decode"),
        (b'{"failed": {"config": [], "start_from": null, "error": "x"}}', "config is list"),
        (b'{"failed": 3}', "mapping"),
    ],
)
def test_a_damaged_line_is_named_and_the_rest_stays(line: bytes, reason: str, tmp_path: Path) -> None:
    append_record(tmp_path, sample_result("rte", seed=1))
    with open(tmp_path / "results.jsonl", "ab") as lines:
        lines.write(line + b"\n")
    append_record(tmp_path, sample_result("rte", seed=2))
    found = read_records(tmp_path)
    assert [one.seed for one in found.results] == [1, 2]
    (damage,) = found.damaged
    assert damage.number == 2
    assert reason in damage.reason


@pytest.mark.parametrize(
    ("field", "value"), [("predictions", None), ("predictions", {"dev": 3}), ("seed", "1"), ("epoch_seconds", 3)]
)
def test_a_field_of_another_kind_is_damage(field: str, value: object, tmp_path: Path) -> None:
    """A file from an untrusted source must not crash the report."""
    values = json.loads(sample_result("rte").to_json()) | {field: value}
    (tmp_path / "results.jsonl").write_text(json.dumps(values) + "\n")
    found = read_records(tmp_path)
    assert found.results == []
    assert field in found.damaged[0].reason


@pytest.mark.parametrize(("name", "commit"), [("google/bert", "abc123"), ("google/other", None)])
def test_the_commit_of_the_model_is_taken_from_the_notes_of_version_1(name: str, commit: str | None, tmp_path: Path) -> None:
    """The card of an older run must still name its base model. Notes about another model must be ignored."""
    result = sample_result(model="google/bert", notes=[f"The model {name} is the hub's at commit abc123."])
    (tmp_path / "result.json").write_text(json.dumps(version_1(json.loads(result.to_json()))))
    assert RunResult.read(tmp_path / "result.json") == dataclasses.replace(result, model_commit=commit)


def test_scripts_find_the_keys_of_version_1(tmp_path: Path) -> None:
    values = json.loads(sample_result("mnli").to_json())
    assert values["schema_version"] == 2
    assert values["split"] == "dev_matched+dev_mismatched"
    assert values["metrics"] == {"dev_matched": {"accuracy": 0.6}, "dev_mismatched": {"accuracy": 0.6}}
    assert set(values["majority"]) == set(values["metrics"])


def test_a_directory_without_results_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.jsonl does not exist: `isinglass bench --output .*` writes one"):
        read_records(tmp_path)


def test_the_commit_is_that_of_this_source_tree() -> None:
    commit = source_commit()
    assert commit is None or len(commit.removesuffix("+")) == 40
