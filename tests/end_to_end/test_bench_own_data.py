"""`isinglass bench --train-file`: a bench of the user's own tables, from the plan to the report page."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from isinglass.bench.own_data import check_same, describe, settle
from isinglass.errors import ConfigError, DataError
from isinglass.metrics import Metric, scores
from isinglass.report.answers import tasks_of
from isinglass.results import read_records
from isinglass.statistics import score_of_counts
from isinglass.tasks import TASKS
from tests.end_to_end.test_cli import Finished, isinglass
from tests.memory import memory_data
from tests.sample_bench import sample_result
from tests.tiny import WORDS, save_tiny

QUICK = ("--set", "epochs=1", "--set", "batch_size=16", "--set", "max_length=24")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


def write_reviews(directory: Path, rows: int = 60, seed: int = 1) -> Path:
    rng = random.Random(seed)
    lines = ["text,label"]
    for i in range(rows):
        words = [rng.choice(WORDS[:30]) for _ in range(rng.randint(3, 12))]
        lines.append(f'"{" ".join(words)}, {i}",{"yes" if i % 2 else "no"}')
    (directory / "reviews.csv").write_text("\n".join(lines) + "\n")
    return directory / "reviews.csv"


def bench(*arguments: object, model: Path, cwd: Path) -> Finished:
    return isinglass("bench", *arguments, "--models", model, *QUICK, cwd=cwd)


@pytest.mark.slow
def test_a_bench_of_own_files_goes_on_from_anywhere_and_refuses_other_rows(model: Path, tmp_path: Path) -> None:
    """Guards against comparing scores on different examples, and against repeating runs because a path changed."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    file = write_reviews(tmp_path / "here")
    first = bench("--train-file", "reviews.csv", "--output", "out", model=model, cwd=file.parent)
    assert first.status == 0, first.err
    assert "Columns: text 'text', label 'label' (guessed)." in first.err and "Rows: train 54, dev 6." in first.err
    row = next(line.split() for line in first.out.splitlines() if line.startswith("reviews"))
    assert row[:2] == ["reviews", "Accuracy"]
    sound = file.read_text()
    file.write_text(sound.replace("\n", "\r\n"))  # the same rows with other line endings
    second = bench("--train-file", file, "--output", "../here/out", "--seeds", 2, model=model, cwd=tmp_path / "there")
    assert second.status == 0, second.err
    assert "[1/1] reviews" in second.err and "1 of 2 runs to do" in second.err
    found = read_records(file.parent / "out").results
    assert [(one.task, one.seed, one.split) for one in found] == [("reviews", 42, "dev"), ("reviews", 43, "dev")]
    file.write_text(sound.replace(",yes", ",no", 1))
    refused = bench("--train-file", "reviews.csv", "--output", "out", model=model, cwd=file.parent)
    assert refused.status == 2, "though there is nothing left to run"
    (line,) = refused.err.splitlines()
    assert "train" in line and "rows of reviews are not those of earlier runs of this bench" in line


def test_rows_that_train_and_labels_that_count_are_held_to_once_a_run_is_finished(tmp_path: Path) -> None:
    """Guards against a training set that grows between two runs of a bench while its dev set stays the same."""

    def described(*more: str, **options: object) -> dict[str, object]:
        texts = ["good", "bad", "better", "worse", *more]
        dev = ((["fine", "poor"],), ["yes", "no"])
        labels = ["yes", "no"] * (len(texts) // 2)
        return describe(memory_data(name="mine", texts=(texts,), labels=labels, dev=dev, **options))

    finished = [dataclasses.replace(sample_result(), task="mine")]
    settle(described(), tmp_path, [])
    settle(described("a", "b"), tmp_path, [])  # no run is finished, so the rows may still change
    settle(described("a", "b"), tmp_path, finished)
    with pytest.raises(DataError, match="The train rows of mine are not those of earlier runs of this bench"):
        settle(described(), tmp_path, finished)
    with pytest.raises(DataError, match="positive_label of mine is 'no', and in earlier runs of this bench 'yes'"):
        check_same(described("a", "b", positive_label="no"), tmp_path)
    settle(described(), tmp_path, [sample_result()])  # a finished run of another task


def test_the_report_takes_no_description_under_another_name(tmp_path: Path) -> None:
    texts = ["good", "bad"] * 10
    settle(describe(memory_data(name="mine", texts=(texts,), labels=["yes", "no"] * 10)), tmp_path, [])
    assert tasks_of(tmp_path, ["mine", "rte"]).keys() - TASKS.keys() == {"mine"}
    for unknown in ("gone", "../mine"):
        with pytest.raises(ConfigError, match="There is no task"):
            tasks_of(tmp_path, [unknown])
    (tmp_path / "tasks" / "mine.json").rename(tmp_path / "tasks" / "yours.json")
    with pytest.raises(DataError, match=r"yours\.json: name is 'mine'; 'yours' was expected"):
        tasks_of(tmp_path, ["yours"])


def test_a_bench_whose_runs_all_failed_is_not_bound_to_its_rows(model: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path)
    failed = bench("--train-file", file.name, "--output", "out", "--precisions", "fp16", model=model, cwd=tmp_path)
    assert failed.status == 2 and "fp16 does not run on a CPU" in failed.err
    assert "reviews" in failed.out and "failed" in failed.out
    write_reviews(tmp_path, seed=2)
    assert bench("--train-file", file.name, "--output", "out", model=model, cwd=tmp_path).status == 0


@pytest.mark.slow
def test_numbers_several_labels_and_a_test_file_have_their_page(model: Path, tmp_path: Path) -> None:
    """RMSE is in the unit of the labels and lower is better. Multilabel tasks have no matrix. Test scores have own rows."""
    rng = random.Random(3)
    texts = [" ".join(rng.choice(WORDS[:30]) for _ in range(6)) for _ in range(60)]
    with open(tmp_path / "scores.tsv", "w") as tsv:
        tsv.write("text\tscore\n")
        tsv.writelines(f"{text}\t{len(text) / 10}\n" for text in texts)
    for name, part in (("tags", texts[:40]), ("more", texts[40:])):
        with open(tmp_path / f"{name}.jsonl", "w") as lines:
            tags = [[word for word in ("dog", "cat", "man") if word in text.split()] for text in part]
            lines.writelines(json.dumps({"text": t, "labels": some}) + "\n" for t, some in zip(part, tags, strict=True))
    for command in (["scores.tsv"], ["tags.jsonl", "--test-file", "more.jsonl"]):
        done = bench("--train-file", *command, "--output", "out", "--precisions", "fp32,bf16", model=model, cwd=tmp_path)
        assert done.status == 0, done.err
    scores, tags = read_records(tmp_path / "out").results[0], read_records(tmp_path / "out").results[2]
    assert tags.split == "dev+test" and {*scores.metrics} == {"pearson", "spearman", "rmse"}
    made = isinglass("report", "out", cwd=tmp_path)
    assert made.status == 0, made.err
    page = (tmp_path / "out" / "report.md").read_text()
    assert "# Fine-tuning results on scores and tags" in page and "cannot be read" not in page
    assert "isinglass train tags --train-file TRAIN_FILE --test-file TEST_FILE --backend torch" in page
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    rmse = next(row for row in rows if row[:2] == ["scores", "RMSE"] and row[4] == "fp32")
    assert rmse[5] == f"{scores.metrics['rmse']:.4g}"
    low, high = map(float, rmse[6].split(" to "))
    assert low <= scores.metrics["rmse"] <= high
    assert any(row[:2] == ["tags", "Test Micro F1"] for row in rows)
    assert "| predicted | both |" in " ".join(page.split())


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.F1])
def test_resampled_scores_of_one_label_are_those_of_repeated_examples(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    truth, answers, counts = rng.integers(0, 4, 12), rng.integers(0, 4, 12), rng.integers(0, 3, (12, 5))
    found = score_of_counts(metric, truth, answers, counts.astype(np.float64), 1)
    for column, score in zip(counts.T, found, strict=True):
        repeated = np.repeat(np.arange(12), column)
        assert score == pytest.approx(scores([metric], truth[repeated], answers[repeated], 1)[metric])


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.MICRO_F1])
def test_resampled_scores_of_several_labels_are_those_of_repeated_examples(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    truth, answers = (rng.integers(0, 2, (12, 3)).astype(np.float32) for _ in range(2))
    answers[:6] = truth[:6]
    counts = rng.integers(0, 3, (12, 5))
    found = score_of_counts(metric, truth, answers, counts.astype(np.float64), 1)
    for column, score in zip(counts.T, found, strict=True):
        repeated = np.repeat(np.arange(12), column)
        assert score == pytest.approx(scores([metric], truth[repeated] > 0, answers[repeated] > 0)[metric])


def test_resampled_errors_are_those_of_repeated_examples() -> None:
    rng = np.random.default_rng(2)
    truth, answers, counts = rng.normal(size=12), rng.normal(size=12), rng.integers(0, 3, (12, 5))
    found = score_of_counts(Metric.RMSE, truth, answers, counts.astype(np.float64), 1)
    for column, score in zip(counts.T, found, strict=True):
        repeated = np.repeat(np.arange(12), column)
        expected = scores([Metric.RMSE], truth[repeated].astype(np.float32), answers[repeated].astype(np.float32))
        assert score == pytest.approx(expected["rmse"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--train-file", "reviews.csv", "--preset", "glue"],
            "--preset is for GLUE's tasks, --train-file and --dataset are for others",
        ),
        (
            ["--train-file", "reviews.csv", "--tasks", "rte"],
            "--tasks is for GLUE's tasks, --train-file and --dataset are for others",
        ),
        (
            ["--train-file", "reviews.csv", "--published"],
            "--published is for GLUE's tasks, --train-file and --dataset are for others",
        ),
        (["--train-file", "reviews.csv", "--start-from", "mnli"], "--start-from is for GLUE's tasks"),
        (["--train-file", "reviews.csv", "--data-dir", "x"], "leave one of them out"),
        (["--train-file", "reviews.csv", "--predict-test"], "name it with --test-file"),
        (["--train-file", "reviews.csv", "--label-column", "lable"], "did you mean 'label'"),
        (["--train-file", "nowhere.csv"], "nowhere.csv"),
        (
            ["--tasks", "rte", "--text-column", "text"],
            "--text-column is for your own data: name them with --train-file or --dataset",
        ),
        (["--test-file", "reviews.csv"], "--test-file is for your own data"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    write_reviews(tmp_path)
    done = isinglass("bench", *arguments, "--output", "out", cwd=tmp_path)
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()
