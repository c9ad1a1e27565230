"""The zip for GLUE: what it contains, and how tampered ones are validated."""

import dataclasses
import io
import os
import random
import resource
import stat
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.data.glue import read_tsv
from isinglass.errors import ConfigError, DataError, OutputExistsError
from isinglass.results import RESULTS, append_record, read_records
from isinglass.submission.check import LARGEST_FILE, LARGEST_ZIP, MOST_PROBLEMS, check_submission
from isinglass.submission.write import write_submission
from isinglass.tasks import TASKS
from tests.sample_bench import sample_result, with_scores, write_sample_run

PUBLISHED = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
}
FEW = dict.fromkeys(PUBLISHED, 6)
WORDS = {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv", "QNLI.tsv", "RTE.tsv"}


def answers(labels: list[str]) -> bytes:
    return "".join(["index\tprediction\n", *(f"{i}\t{label}\n" for i, label in enumerate(labels))]).encode()


def good_files() -> dict[str, bytes]:
    """Return eleven valid files of six rows."""
    labels = {name: "entailment" if name in WORDS else "1" for name in FEW} | {"STS-B.tsv": "2.125"}
    return {name: answers([labels[name]] * 6) for name in FEW}


def zipped(path: Path, files: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def judge(tmp_path: Path, changes: dict[str, bytes]) -> list[str]:
    """Return the problems of the eleven valid files with some of them replaced."""
    return [str(problem) for problem in check_submission(zipped(tmp_path / "s.zip", good_files() | changes), rows=FEW)]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def read(path: Path) -> dict[str, list[list[str]]]:
    with zipfile.ZipFile(path) as archive:
        return {name: [line.split("\t") for line in archive.read(name).decode().splitlines()] for name in archive.namelist()}


def write_mnli(directory: Path, *, ax: bool = True, **changes: object) -> None:
    """Write a run of MNLI, with or without predictions for the diagnostic set."""
    result = write_sample_run(directory, "mnli", rows=6, **changes)
    predictions = {key: path for key, path in result.predictions.items() if key != "ax"}
    if ax:
        predictions["ax"] = predictions["test_matched"].replace("test_matched", "ax")
        (directory / predictions["ax"]).write_bytes((directory / predictions["test_matched"]).read_bytes())
    append_record(directory, dataclasses.replace(result, predictions=predictions))


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Return a directory with one run of each task, and test sets of six rows."""
    directory = tmp_path / "bench"
    for task in ("cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "rte", "wnli"):
        write_sample_run(directory, task, rows=6)
    write_mnli(directory)
    return directory


# ---- writing ------------------------------------------------------------


def test_all_nine_tasks_become_eleven_files_that_the_judge_takes(bench: Path, tmp_path: Path) -> None:
    """AX comes from MNLI's run. Without it, or without one of MNLI's two sets, the server refuses the zip."""
    files = write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    assert check_submission(tmp_path / "glue.zip", rows=FEW) == []
    assert [file.name for file in files] == list(PUBLISHED)
    assert all(file.run and file.candidates == 1 and file.filled is None for file in files)
    assert files[-1].run.task == "mnli"
    for file, lines in zip(files, read(tmp_path / "glue.zip").values(), strict=True):
        assert lines[0] == ["index", "prediction"]
        assert [index for index, _ in lines[1:]] == [str(i) for i in range(6)]
        key = {"MNLI-m.tsv": "test_matched", "MNLI-mm.tsv": "test_mismatched", "AX.tsv": "ax"}.get(file.name, "test")
        if file.name != "STS-B.tsv":
            source = (bench / file.run.predictions[key]).read_text().splitlines()[1:]
            assert [label for _, label in lines[1:]] == [line.split("\t")[1] for line in source]


def test_values_of_stsb_are_clipped_and_have_three_decimals(bench: Path, tmp_path: Path) -> None:
    """A regression head sometimes predicts 5.2, -0.1 or 1e-05, but GLUE requires 0 to 5."""
    result = next(result for result in read_records(bench).results if result.task == "stsb")
    (bench / result.predictions["test"]).write_bytes(answers(["5.2", "-0.1", "1e-05", "2.34567", "-0", "5"]))
    write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    assert [
        value for _, value in read(tmp_path / "glue.zip")["STS-B.tsv"][1:]
    ] == "5.000 0.000 0.000 2.346 0.000 5.000".split()


def test_the_best_run_on_dev_is_chosen(tmp_path: Path) -> None:
    """The last run, or the best on another metric, is not the best run. The worst possible score is better than no score."""
    first_metrics = {"mrpc": "f1", "cola": "matthews"}
    for task, metric in first_metrics.items():
        for seed, score in enumerate([None, -0.2, 0.0, 0.7, 0.7, 0.1]):
            write_sample_run(tmp_path, task, rows=6, seed=seed)
            result = read_records(tmp_path).results[-1]
            metrics = dict.fromkeys(TASKS[task].metrics, 0.9 - 0.1 * seed) | {metric: score}
            append_record(tmp_path, with_scores(result, metrics=metrics))
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert [(file.run.seed, file.dev_score, file.candidates) for file in files if file.run] == [(3, 0.7, 6)] * 2


@pytest.mark.parametrize(("scores", "best"), [([None, -0.2], 1), ([0.0, None], 0), ([-0.1, 0.0], 1), ([None, None], 0)])
def test_zero_is_a_score_and_none_is_not(tmp_path: Path, scores: list[float | None], best: int) -> None:
    """`score or -inf` would rank Matthews' 0.0, an ordinary score of a collapsed run, below a negative one."""
    for seed, score in enumerate(scores):
        result = write_sample_run(tmp_path, "cola", rows=6, seed=seed)
        append_record(tmp_path, with_scores(result, metrics={"matthews": score}))
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert (files[0].run.seed, files[0].dev_score) == (best, scores[best])


def test_mnli_is_chosen_by_the_mean_of_both_dev_sets_and_gives_all_three_files(tmp_path: Path) -> None:
    """Choosing the run of each file separately would mix models within one entry of the leaderboard."""
    for seed, (matched, mismatched) in enumerate([(0.9, 0.5), (0.8, 0.8), (0.5, 0.9)]):
        write_mnli(tmp_path, seed=seed)
        result = read_records(tmp_path).results[-1]
        metrics = {"dev_matched": {"accuracy": matched}, "dev_mismatched": {"accuracy": mismatched}}
        append_record(tmp_path, with_scores(result, metrics=metrics))
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert [(file.name, file.run.seed) for file in files if file.run] == [
        ("MNLI-m.tsv", 1),
        ("MNLI-mm.tsv", 1),
        ("AX.tsv", 1),
    ]
    assert files[-1].dev_score == pytest.approx(0.8)


def test_a_run_of_mnli_with_the_diagnostic_set_goes_before_one_without(tmp_path: Path) -> None:
    """Otherwise AX would be missing although a run predicts it."""
    for seed, (ax, score) in enumerate([(True, 0.6), (False, 0.9)]):
        write_mnli(tmp_path, seed=seed, ax=ax)
        metrics = {split.name: {"accuracy": score} for split in TASKS["mnli"].dev}
        append_record(tmp_path, with_scores(read_records(tmp_path).results[-1], metrics=metrics))
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert [file.run.seed for file in files if file.run] == [0, 0, 0]


def test_runs_can_be_selected(tmp_path: Path) -> None:
    """A submission of one precision must not take the best run of another."""
    for seed, precision in enumerate(["fp32", "bf16", "fp32", "bf16"]):
        write_sample_run(tmp_path, "rte", rows=6, seed=seed, precision=precision, skill=0.9 if precision == "bf16" else 0.1)
    for select, seeds, candidates in [
        ({"precision": "fp32", "seed": None}, {0, 2}, 2),
        ({"seed": 2}, {2}, 1),
        ({"precision": "bf16", "seed": 3, "backend": "torch", "model": "demo"}, {3}, 1),
    ]:
        files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", select=select, rows=FEW, overwrite=True)
        assert [(file.run.seed in seeds, file.candidates) for file in files if file.run] == [(True, candidates)]
    with pytest.raises(ConfigError, match=r"no run with precision bf6 \(did you mean 'bf16'\?\); it has bf16, fp32\."):
        write_submission(tmp_path, tmp_path / "no.zip", select={"precision": "bf6"}, rows=FEW)
    with pytest.raises(ConfigError, match="'sed' is none of them"):
        write_submission(tmp_path, tmp_path / "no.zip", select={"sed": 1}, rows=FEW)
    with pytest.raises(DataError, match=r"no test predictions \(precision fp32, seed 1\) for CoLA.tsv, .*RTE.tsv"):
        write_submission(tmp_path, tmp_path / "no.zip", select={"precision": "fp32", "seed": 1}, rows=FEW)
    assert not (tmp_path / "no.zip").exists()


def test_missing_files_are_all_named_in_one_sentence(tmp_path: Path) -> None:
    """If they were named one at a time, the user would need ten attempts."""
    write_sample_run(tmp_path, "rte", rows=6)
    with pytest.raises(DataError) as refused:
        write_submission(tmp_path, tmp_path / "glue.zip", rows=FEW)
    assert all((name in str(refused.value)) == (name != "RTE.tsv") for name in FEW)
    assert "--partial absent|majority" in str(refused.value)
    assert str(refused.value).count(". ") == 0
    assert names_in(tmp_path) == ["examples", RESULTS, "runs"]


def test_majority_fills_the_published_number_of_rows(tmp_path: Path) -> None:
    """The server requires all files to be complete, including those of tasks that the user is not interested in."""
    write_sample_run(tmp_path, "wnli", rows=146)
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="majority")
    assert check_submission(tmp_path / "glue.zip") == []
    found = {name: lines[1:] for name, lines in read(tmp_path / "glue.zip").items()}
    assert {name: len(lines) for name, lines in found.items()} == PUBLISHED
    filled = {file.name: file.filled for file in files}
    assert filled.pop("WNLI.tsv") is None
    assert all({label for _, label in found[name]} == {label} for name, label in filled.items())
    assert (filled["STS-B.tsv"], filled["AX.tsv"]) == ("2.500", filled["MNLI-m.tsv"])


def test_majority_labels_are_those_of_the_dev_sets(glue_dir: Path, tmp_path: Path) -> None:
    """A mistyped constant would submit the minority label."""
    (tmp_path / RESULTS).touch()
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="majority", rows=FEW)
    filled = {file.name.removesuffix(".tsv"): file.filled for file in files}
    for task in (TASKS[name] for name in ("cola", "mrpc", "rte", "wnli")):
        counts = Counter(read_tsv(task, task.dev[0], glue_dir).labels)
        assert filled[task.title] == counts.most_common(1)[0][0]


def test_absent_files_are_left_out_and_reported(tmp_path: Path) -> None:
    write_mnli(tmp_path, ax=False)
    files = write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert list(read(tmp_path / "glue.zip")) == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    assert [file.name for file in files if file.run is None] == [name for name in FEW if "MNLI" not in name]
    problems = check_submission(tmp_path / "glue.zip", rows=FEW)
    assert [problem.found for problem in problems] == [f"no {name}" for name in FEW if "MNLI" not in name]


def test_an_empty_zip_is_not_written(tmp_path: Path) -> None:
    append_record(tmp_path, sample_result("rte"))  # without predictions
    with pytest.raises(DataError, match="no test predictions"):
        write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (answers(["entailment"] * 5), "5 rows; RTE.tsv takes 6"),
        (answers(["entailment"] * 7), "7 rows; RTE.tsv takes 6"),
        (answers(["entailment"] * 5 + ["neutral"]), "line 7: the prediction 'neutral'; RTE.tsv takes entailment or not_ent"),
        (answers(["entailment"] * 6).replace(b"\n3\t", b"\n4\t"), "line 5: the index '4'; RTE.tsv takes '3'"),
        (answers(["entailment"] * 6).replace(b"index", b"id"), "line 1: the header 'id.tprediction'; RTE.tsv takes 'index"),
        (answers(["entailment"] * 6).replace(b"\n3\t", b"\n3 "), "line 5: the index '3 entailment'"),
        (b"index\tprediction\n0\tentail\xffment\n", "line 2, byte 9: 0xff is not UTF-8"),
        (b"", "is empty"),
    ],
)
def test_damaged_predictions_are_named_with_their_line(tmp_path: Path, content: bytes, message: str) -> None:
    """A truncated or reordered file would be scored as if the model had predicted it."""
    result = write_sample_run(tmp_path, "rte", rows=6)
    (tmp_path / result.predictions["test"]).write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)
    assert result.predictions["test"] in str(refused.value)
    assert names_in(tmp_path) == ["examples", RESULTS, "runs"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "x", "", "1_0", "\u0663"])
def test_what_is_no_finite_number_is_refused_and_not_clipped(tmp_path: Path, value: str) -> None:
    """`min` and `max` turn infinity into 5, and NaN into anything."""
    result = write_sample_run(tmp_path, "stsb", rows=6)
    (tmp_path / result.predictions["test"]).write_bytes(answers(["1.5"] * 5 + [value]))
    with pytest.raises(DataError, match=r"line 7: the prediction .*STS-B\.tsv takes a number from 0 to 5"):
        write_submission(tmp_path, tmp_path / "glue.zip", partial="absent", rows=FEW)


def test_predictions_outside_of_the_directory_are_refused(bench: Path, tmp_path: Path) -> None:
    """A results.jsonl from an untrusted source must not make users submit other files of theirs."""
    outside = tmp_path / "secret.tsv"
    outside.write_bytes(answers(["entailment"] * 6))
    (bench / "link.tsv").symlink_to(outside)
    (bench / "folder").symlink_to(tmp_path)
    (bench / "loop.tsv").symlink_to("loop.tsv")
    result = next(result for result in read_records(bench).results if result.task == "rte")
    inside = str((bench / result.predictions["test"]).resolve())
    for named in ("../secret.tsv", str(outside), inside, "link.tsv", "folder/secret.tsv", "runs/../../secret.tsv", "a\0b"):
        append_record(bench, dataclasses.replace(result, predictions={"test": named}))
        with pytest.raises(DataError, match="no other file is read"):
            write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    for named in ("missing.tsv", "runs", "", "loop.tsv"):
        append_record(bench, dataclasses.replace(result, predictions={"test": named}))
        with pytest.raises(DataError, match="is not a file"):
            write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    assert not (tmp_path / "glue.zip").exists()


def test_the_same_answers_give_the_same_bytes(bench: Path, tmp_path: Path) -> None:
    """Otherwise time and path would make two zips of one bench look like two submissions."""
    for name in ("a.zip", "b.zip"):
        write_submission(bench, tmp_path / name, rows=FEW)
    os.utime(bench / RESULTS, (0, 0))
    bench.rename(tmp_path / "elsewhere")
    write_submission(tmp_path / "elsewhere", tmp_path / "c.zip", rows=FEW)
    assert len({(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip", "c.zip")}) == 1
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert all(
            entry.date_time[0] == 1980 and entry.compress_type == zipfile.ZIP_DEFLATED for entry in archive.infolist()
        )


def test_an_existing_output_is_replaced_only_if_asked_and_only_if_a_zip(bench: Path, tmp_path: Path) -> None:
    """`--overwrite` with the wrong path would destroy the results themselves."""
    output = tmp_path / "glue.zip"
    write_submission(bench, output, rows=FEW)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_submission(bench, output, rows=FEW)
    before = output.read_bytes()
    with pytest.raises(DataError):
        write_submission(bench, output, rows=FEW | {"RTE.tsv": 7}, overwrite=True)
    assert output.read_bytes() == before
    write_submission(bench, output, rows=FEW, overwrite=True)
    for other in (bench / RESULTS, bench):
        with pytest.raises(OutputExistsError, match="is not a zip"):
            write_submission(bench, other, rows=FEW, overwrite=True)
    assert names_in(tmp_path) == ["bench", "glue.zip"]


def test_what_cannot_be_written_leaves_nothing(bench: Path, tmp_path: Path) -> None:
    """Guards against half a zip, or a hidden file beside it, after the disk is full."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        write_submission(bench, tmp_path / "file" / "glue.zip", rows=FEW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == ["bench", "file"]


def test_the_folders_above_the_output_are_made(bench: Path, tmp_path: Path) -> None:
    write_submission(bench, tmp_path / "new" / "folder" / "glue.zip", rows=FEW)
    assert names_in(tmp_path / "new" / "folder") == ["glue.zip"]


def test_a_damaged_line_of_the_results_is_said(bench: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The best run may be in that line."""
    with open(bench / RESULTS, "a") as lines:
        lines.write('{"task": "rte"\n')
    write_submission(bench, tmp_path / "glue.zip", rows=FEW)
    assert "results.jsonl, line 11 is no record" in caplog.text


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        write_submission(tmp_path, tmp_path / "glue.zip")


# ---- validation ---------------------------------------------------------


def test_a_faultless_zip_has_no_problems(tmp_path: Path) -> None:
    assert judge(tmp_path, {}) == []


def test_line_ends_of_windows_and_blank_lines_break_nothing(tmp_path: Path) -> None:
    """If validation refused what the server accepts, users could not find out what to fix."""
    content = good_files()["RTE.tsv"]
    for harmless in (
        content.replace(b"\n", b"\r\n"),
        content.rstrip(b"\n"),
        content + b"\n\n",
        content.replace(b"\n3", b"\n\n3"),
    ):
        assert judge(tmp_path, {"RTE.tsv": harmless}) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"index\t", b"\xef\xbb\xbfindex\t", "line 1: a byte order mark; expected the header without one."),
        (b"index\t", b"Index\t", "line 1: the header 'Index\\tprediction'; expected 'index\\tprediction'."),
        (b"\n", b"\r", "0 rows; expected 6, as many as the test set has."),
        (b"\n2\t", b"\n2\t1\t", "line 4: 3 tab-separated fields; expected 2."),
        (b"\n2\t", b"\n", "line 4: the index 'entailment'; expected '2'."),
        (b"\n2\t", b"\n02\t", "line 4: the index '02'; expected '2'."),
        (b"\n2\t", b"\n2.0\t", "line 4: the index '2.0'; expected '2'."),
        (b"\n2\tentailment", b"", "line 4: the index '3'; expected '2'."),
        (b"\n2\t", b"\n1\tentailment\n2\t", "line 4: the index '1'; expected '2'."),
        (b"\n5\tentailment\n", b"\n", "5 rows; expected 6, as many as the test set has."),
        (b"\n5\t", b"\n5\tentailment\n6\t", "7 rows; expected 6, as many as the test set has."),
        (b"\n2\tentailment", b"\n2\tneutral", "line 4: the prediction 'neutral'; expected entailment or not_entailment."),
        (b"\n2\tentailment", b"\n2\t0", "line 4: the prediction '0'; expected entailment or not_entailment."),
        (
            b"\n2\tentailment",
            b"\n2\tentailment ",
            "line 4: the prediction 'entailment '; expected entailment or not_entailment.",
        ),
        (b"\n2\tentail", b"\n2\t\xff\x1b", "line 4: the prediction b'\\xff\\x1bment', which is not UTF-8; expected"),
        (b"\n2\tentailment", b"\n2\t\x1b[31m", "line 4: the prediction '\\x1b[31m'; expected"),
        (b"\n2\tentailment", b"\n2\t" + b"x" * 99, f"line 4: the prediction '{'x' * 60}...'; expected"),
    ],
)
def test_a_tampered_row_is_named_with_its_line(tmp_path: Path, old: bytes, new: bytes, problem: str) -> None:
    content = good_files()["RTE.tsv"].replace(old, new, 1 if len(old) > 1 else -1)
    problems = judge(tmp_path, {"RTE.tsv": content})
    assert any(
        line.startswith(f"RTE.tsv, {problem}" if problem.startswith("line") else f"RTE.tsv: {problem}") for line in problems
    )
    assert len(problems) <= 3


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-0.001", "5.001", "five", "", "1_0", "1e999", "\u0663", "1" * 500, "0x1", " 1"]
)
def test_only_numbers_from_0_to_5_are_taken_for_stsb(tmp_path: Path, value: str) -> None:
    """Python's float accepts `nan`, `1_0` and Arabic digits. A table reader would turn the whole column into text or NaN."""
    (problem,) = judge(tmp_path, {"STS-B.tsv": answers(["0", "5", "5.0", "+1.", ".5", value])})
    assert "STS-B.tsv, line 7" in problem and "expected a number from 0 to 5." in problem


@pytest.mark.parametrize("name", ["CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "QQP.tsv", "WNLI.tsv"])
def test_words_are_refused_where_digits_stand(tmp_path: Path, name: str) -> None:
    (problem,) = judge(tmp_path, {name: answers(["0", "1", "0", "1", "0", "entailment"])})
    assert problem == f"{name}, line 7: the prediction 'entailment'; expected 0 or 1."


def test_one_row_left_out_is_not_a_problem_of_every_row_behind_it(tmp_path: Path) -> None:
    labels = ["entailment"] * 3000
    content = answers(labels).replace(b"\n7\tentailment", b"")
    archive = zipped(tmp_path / "s.zip", good_files() | {"RTE.tsv": content})
    assert len(check_submission(archive, rows=FEW | {"RTE.tsv": 3000})) == 2


def test_of_many_problems_twenty_are_told_and_the_rest_is_counted(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "s.zip", good_files() | {"AX.tsv": answers(["maybe"] * 1000)})
    problems = check_submission(archive, rows=FEW | {"AX.tsv": 1000})
    assert len(problems) == MOST_PROBLEMS + 1
    assert str(problems[-1]) == "AX.tsv: 980 more problems; expected none."


def test_missing_and_additional_entries_are_named(tmp_path: Path) -> None:
    """macOS adds `__MACOSX/`, and `STSB.tsv` is an easy mistake."""
    files = good_files()
    files["STSB.tsv"] = files.pop("STS-B.tsv")
    files |= {
        "__MACOSX/._CoLA.tsv": b"",
        "folder/": b"",
        "../evil": b"",
        "/etc/evil": b"",
        "bad\x1bname": b"",
        "x" * 999: b"",
    }
    problems = [str(problem) for problem in check_submission(zipped(tmp_path / "s.zip", files), rows=FEW)]
    shown = ["STSB.tsv", "__MACOSX/._CoLA.tsv", "folder/", "../evil", "/etc/evil", "bad\\x1bname", f"{'x' * 60}..."]
    assert problems == [
        *(f"s.zip: the entry '{name}'; expected only the eleven files, at the root of the zip." for name in shown),
        "s.zip: no STS-B.tsv; expected all eleven files.",
    ]


@pytest.mark.parametrize("folder", ["submission/", "submission\\", "../", "/", "C:\\", "a/../"])
def test_files_below_a_folder_are_named_once_each(tmp_path: Path, folder: str) -> None:
    """Zipping the folder instead of its files is the most common mistake. Reporting `missing` as well would confuse."""
    archive = zipped(tmp_path / "s.zip", {f"{folder}{name}": content for name, content in good_files().items()})
    problems = check_submission(archive, rows=FEW)
    assert len(problems) == 11
    assert all("at the root of the zip" in str(problem) for problem in problems)


def test_a_name_that_hides_more_behind_a_nul_is_no_good_name(tmp_path: Path) -> None:
    """Python's zipfile shows such a name only up to the NUL."""
    archive = zipped(tmp_path / "s.zip", good_files())
    archive.write_bytes(archive.read_bytes().replace(b"WNLI.tsv", b"WNLI\0tsv"))
    problems = [str(problem) for problem in check_submission(archive, rows=FEW)]
    assert "s.zip: no WNLI.tsv; expected all eleven files." in problems


def test_a_file_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """One reader uses the first file, and another the last."""
    archive = zipped(tmp_path / "s.zip", good_files())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as more:
        more.writestr("RTE.tsv", good_files()["RTE.tsv"])
    assert list(map(str, check_submission(archive, rows=FEW))) == ["s.zip: RTE.tsv 2 times; expected each file once."]


def test_symbolic_links_are_named_and_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("RTE.tsv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    files = good_files()
    del files["RTE.tsv"]
    (problem,) = check_submission(zipped(tmp_path / "s.zip", files | {link: b"/etc/passwd"}), rows=FEW)
    assert "RTE.tsv: it is a symbolic link" in str(problem)


@pytest.mark.parametrize(
    ("offset", "value", "found"),
    [
        (8, 1, "it is encrypted"),
        (8, 64, "it cannot be unpacked"),  # strong encryption
        (10, 99, "it is compressed by method 99"),
        (16, 12345, "it cannot be unpacked (Bad CRC-32"),
        (24, 3, "it cannot be unpacked (Bad CRC-32"),  # the declared size is wrong
        (42, 65535, "it cannot be unpacked"),  # the content is elsewhere
    ],
)
def test_an_entry_that_cannot_be_unpacked_is_named(tmp_path: Path, offset: int, value: int, found: str) -> None:
    """Offsets are those of the zip's central directory."""
    archive = zipped(tmp_path / "s.zip", good_files())
    data = bytearray(archive.read_bytes())
    start = data.rfind(b"PK\1\2", 0, data.rfind(b"RTE.tsv"))
    data[start + offset : start + offset + 2] = value.to_bytes(2, "little")
    archive.write_bytes(data)
    (problem,) = check_submission(archive, rows=FEW)
    assert str(problem).startswith(f"RTE.tsv: {found}")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_not_tried(tmp_path: Path, method: int) -> None:
    """Python's zipfile unpacks these methods block by block, however large the output of a block."""
    archive = zipped(tmp_path / "s.zip", {name: content for name, content in good_files().items() if name != "RTE.tsv"})
    with zipfile.ZipFile(archive, "a", method) as more:
        more.writestr("RTE.tsv", bytes(LARGEST_FILE))
    (problem,) = check_submission(archive, rows=FEW)
    assert f"compressed by method {method}" in str(problem)


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """The first zip declares more than the limit for all files. The second has one file that is too large by itself."""
    archive = zipped(tmp_path / "s.zip", good_files() | {"RTE.tsv": bytes(LARGEST_ZIP)})
    (problem,) = check_submission(archive, rows=FEW)
    assert str(problem) == "s.zip: more than 32 MiB, packed or unpacked; expected less than 5."
    archive = zipped(tmp_path / "s.zip", good_files() | {"RTE.tsv": bytes(LARGEST_FILE + 1)})
    (problem,) = check_submission(archive, rows=FEW)
    assert str(problem) == "RTE.tsv: it has more than 16 MiB; expected a plain file of 6 short rows."
    with open(tmp_path / "s.zip", "wb") as sparse:
        sparse.truncate(1 << 40)
    (problem,) = check_submission(archive, rows=FEW)
    assert "more than 32 MiB" in str(problem)


def test_a_long_line_of_digits_is_judged_like_any_other(tmp_path: Path) -> None:
    """A pattern that tries every way to split the digits would take years."""
    content = answers(["1"] * 5) + b"5\t" + b"1" * (1 << 20) + b"x\n"
    (problem,) = judge(tmp_path, {"STS-B.tsv": content})
    assert len(problem) < 150


@pytest.mark.parametrize("content", [b"", b"PK", b"index\tprediction\n", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_zip_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.zip").write_bytes(content)
    (problem,) = check_submission(tmp_path / "s.zip")
    assert "no zip, or a damaged one" in str(problem)


def test_an_empty_zip_misses_all_eleven(tmp_path: Path) -> None:
    assert len(check_submission(zipped(tmp_path / "s.zip", {}))) == 11


def test_a_zip_that_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.zip"):
        with pytest.raises(DataError, match="cannot be read"):
            check_submission(path)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=400), prefix=st.sampled_from([b"", b"PK\3\4", b"PK\5\6"]))
def test_random_bytes_give_problems_and_no_exception(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.zip"
    path.write_bytes(prefix + content)
    assert check_submission(path)


@settings(deadline=None, max_examples=200)
@given(content=st.one_of(st.binary(max_size=200), st.text(alphabet="01\t\n\r.-e nan", max_size=60).map(str.encode)))
def test_random_files_give_problems_and_no_exception(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random-files.zip"
    files = good_files() | {"STS-B.tsv": content, "AX.tsv": b"index\tprediction\n" + content}
    found = {problem.file for problem in check_submission(zipped(path, files), rows=FEW)}
    assert found == {"STS-B.tsv", "AX.tsv"}


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 8), around=st.sampled_from([b"PK\1\2", b"PK\3\4", b"PK\5\6", b""]))
def test_a_zip_with_changed_bytes_gives_problems_and_no_exception(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int, around: bytes
) -> None:
    """Sizes, offsets, flags, versions and names are all changed; most changes are in the zip's own records."""
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in good_files().items():
            archive.writestr(name, content)
    data = bytearray(buffer.getvalue())
    starts = [i for i in range(len(data)) if around and data.startswith(around, i)] or [*range(len(data))]
    for _ in range(changes):
        place = min(chance.choice(starts) + chance.randrange(60), len(data) - 1)
        data[place] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    path.write_bytes(data)
    assert all(str(problem) for problem in check_submission(path, rows=FEW))
