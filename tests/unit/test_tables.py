"""The tables of a report as exact text, and the predictions from which their intervals are computed."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from isinglass.errors import ConfigError, DataError
from isinglass.report.answers import Reader
from isinglass.report.bench import check_same_version, groups_of
from isinglass.report.tables import (
    differences_table,
    pytorch_table,
    scores_table,
    speed_table,
    tensorflow_table,
)
from isinglass.results import CLOCK, FailedRun, RunResult
from isinglass.statistics import score
from isinglass.tables import Table
from isinglass.tasks import TASKS
from tests.sample_bench import sample_result, write_sample_run

MATCHED, MISMATCHED = "dev_matched", "dev_mismatched"


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def failed(result: RunResult, error: str = "It broke.") -> FailedRun:
    return FailedRun(config=result.config, start_from=result.start_from, error=error)


def accuracies(*values: float | None, **changes: object) -> list[RunResult]:
    """Return runs of RTE, or of another task whose only metric is accuracy, with the seeds 1, 2, ..."""
    return [sample_result(seed=seed, metrics={"accuracy": value}, **changes) for seed, value in enumerate(values, start=1)]


def published_runs() -> list[RunResult]:
    """Return runs with the published scores and times."""
    figures = {
        ("fp32", "mnli"): ((0.8391, 0.8410), 9323.0),
        ("fp32", "qnli"): ((0.9066,), 2457.0),
        ("fp32", "rte"): ((0.6570,), 57.0),
        ("fp32", "wnli"): ((0.5634,), 24.0),
        ("fp16", "mnli"): ((0.8404, 0.8406), 4626.0),
        ("fp16", "qnli"): ((0.9096,), 1216.0),
        ("fp16", "rte"): ((0.6534,), 29.0),
        ("fp16", "wnli"): ((0.5634,), 12.0),
    }
    results = []
    for (precision, task), (scores, seconds) in figures.items():
        each = [{"accuracy": score} for score in scores]
        metrics = dict(zip((MATCHED, MISMATCHED), each, strict=False)) if task == "mnli" else each[0]
        results.append(sample_result(task, precision=precision, metrics=metrics, train_seconds=seconds))
    return results


def test_the_published_pytorch_table_comes_out_of_its_figures() -> None:
    """The published figures must give the published table.

    Rows are in GLUE's order, MNLI's two results share a cell, hours are shown only if there are any, and notes say what ran
    in each column.
    """
    table = pytorch_table(groups_of(published_runs()))
    assert (
        table.to_markdown()
        == f"""\
### GLUE development sets, PyTorch

| Task | Metric                       | Result      | Training time | Result (FP16) | Training time (FP16) |
| ---- | ---------------------------- | ----------- | ------------- | ------------- | -------------------- |
| MNLI | Matched acc./Mismatched acc. | 83.91/84.10 | 2:35:23       | 84.04/84.06   | 1:17:06              |
| QNLI | Accuracy                     | 90.66       | 40:57         | 90.96         | 20:16                |
| RTE  | Accuracy                     | 65.70       | 00:57         | 65.34         | 00:29                |
| WNLI | Accuracy                     | 56.34       | 00:24         | 56.34         | 00:12                |

- Columns without a precision: FP32. FP16: matrix products only; weights, optimizer and loss in FP32.
- {CLOCK}
- Settings: model demo; recipe classic; epochs 3 (WNLI 5); batch_size 32; learning_rate 2e-05; schedule linear; \
max_length 128.
- Device: CPU: a test, 2 threads.
- Versions: isinglass 0.1.0, python 3.11.0, torch 2.13.0, commit 0000000000000000000000000000000000000000.
- Seeds: 1.
- WNLI's dev set is adversarial: its sentences stand in train under the opposite label, so a model that learns train by \
heart scores below the majority; a score near or below the majority says nothing about the model (GLUE FAQ 12).
"""
    )


def test_published_figures_stand_beside_those_of_the_same_task() -> None:
    """These columns do not hold our own runs, so each must say that it is published, and a note must name the source."""
    ours = pytorch_table(groups_of(published_runs()), with_published=True)
    assert ours.columns[6:] == (
        "Published result",
        "Published training time",
        "Published result (FP16)",
        "Published training time (FP16)",
    )
    assert [row[2:6] for row in ours.rows] == [row[6:] for row in ours.rows]
    assert ours.notes[-1] == (
        "Published: the text-classification README of transformers (examples): bert-base-cased, one run of each, on one "
        "Titan RTX, every example padded to 128 tokens; 3 epochs, WNLI 5, in batches of 32 at a learning rate of 2e-5."
    )
    other = pytorch_table(groups_of([sample_result("cola")]), with_published=True)
    assert other.rows == (("CoLA", "Matthews corr.", "60.00", "01:00", "-", "-", "-", "-"),)


def test_each_precision_that_ran_has_columns_of_its_own() -> None:
    """A bf16 run under "FP16" would compare what nobody ran. `amp` is shown as the precision that was used."""
    results = [
        sample_result("rte", precision="amp"),  # ran as bf16
        sample_result("qnli", precision="fp16"),
        *[sample_result("mrpc", seed=seed, precision="bf16") for seed in (1, 2)],
    ]
    table = pytorch_table(groups_of(results))
    assert table.columns[2:] == (
        "Result",
        "Training time",
        "Result (FP16)",
        "Training time (FP16)",
        "Result (BF16)",
        "Training time (BF16)",
    )
    assert table.rows == (
        ("MRPC", "F1/Accuracy", "-", "-", "-", "-", "60.00 ± 0.00/60.00 ± 0.00 (2)", "01:00"),
        ("QNLI", "Accuracy", "-", "-", "60.00", "01:00", "-", "-"),
        ("RTE", "Accuracy", "-", "-", "-", "-", "60.00", "01:00"),
    )
    assert table.notes[0] == (
        "Columns without a precision: FP32. FP16, BF16: matrix products only; weights, optimizer and loss in FP32. "
        "Each precision has its own columns."
    )


def test_failed_and_missing_runs_show_as_such() -> None:
    """Guards against a failure that looks like a run that was not started, and against a mean that hides a missing run."""
    seeds = accuracies(0.6, 0.7, 0.8)
    never = sample_result("qnli", precision="bf16")
    table = pytorch_table(groups_of(seeds[:2], [failed(seeds[2], "No memory."), failed(never)]))
    assert table.rows == (
        ("QNLI", "Accuracy", "-", "-", "failed", "-"),
        ("RTE", "Accuracy", "65.00 ± 7.07 (2)", "01:00", "-", "-"),
    )
    assert "Failed: RTE, torch fp32, seed 3: No memory." in table.notes
    assert "Failed: QNLI, torch bf16, seed 1: It broke." in table.notes


def test_a_failed_amp_run_stands_where_those_that_ran_do() -> None:
    """The precision of a failed `amp` run is taken from runs of the same backend, and otherwise left open."""
    done, broken = sample_result("rte", precision="amp"), sample_result("qnli", precision="amp")
    assert pytorch_table(groups_of([done], [failed(broken)])).columns[4] == "Result (BF16)"
    assert pytorch_table(groups_of([], [failed(broken)])).columns[4] == "Result (AMP)"


def test_collapsed_runs_and_first_weights_are_said() -> None:
    """56.34 on WNLI is the score of the majority class, but the figure alone looks like a result."""
    results = [
        *accuracies(0.6, 0.7),
        sample_result(seed=3, metrics={"accuracy": 0.5271}, collapsed=True),
        sample_result("qnli", precision="bf16", start_from="mnli"),
        sample_result("mrpc", precision="bf16", start_from="mnli"),
    ]
    table = pytorch_table(groups_of(results))
    assert table.rows[2][2] == "60.90 ± 8.68 (3)†"
    assert "† Runs that gave every example of a split the same label: RTE, torch fp32: 1 of 3." in table.notes
    assert "MRPC, QNLI start from MNLI's weights." in table.notes
    assert "±: sample standard deviation over runs with different seeds; the number of runs is in brackets." in table.notes


def test_a_score_that_is_not_a_number_is_shown_as_nan() -> None:
    """The mean of the other seeds must not be reported as the mean of all."""
    correlations = {"pearson": None, "spearman": 0.5}
    assert pytorch_table(groups_of([sample_result("stsb", metrics=correlations)])).rows[0][1:3] == (
        "Pearson/Spearman",
        "NaN/50.00",
    )
    assert pytorch_table(groups_of(accuracies(0.5, None))).rows[0][2] == "NaN (2)"


def test_two_settings_of_a_task_are_two_rows() -> None:
    """A mean over two models, or over compiled and plain runs, has no meaning."""
    results = [
        sample_result("rte"),
        sample_result("rte", compile=True),
        sample_result("rte", model="/home/someone/models/tiny"),
    ]
    table = pytorch_table(groups_of(results))
    assert column(table, "Task") == ["RTE (demo)", "RTE (demo, compiled)", "RTE (tiny)"]


def test_of_two_results_of_a_seed_the_last_counts() -> None:
    """The same seed with `amp` and with `bf16` is one run made twice, not two seeds."""
    results = [*accuracies(0.5, precision="amp"), *accuracies(0.75, precision="bf16")]
    assert pytorch_table(groups_of(results)).rows == (("RTE", "Accuracy", "-", "-", "75.00", "01:00"),)


def test_the_runs_own_notes_are_kept() -> None:
    """Nobody can explain a slow figure if the note about a slower path is lost."""
    note = "bf16 has no hardware support on CPU: it runs, slowly."
    results = [sample_result("rte", notes=[note]), sample_result("qnli", notes=[note])]
    for table in (pytorch_table(groups_of(results)), speed_table(groups_of(results))):
        assert table.notes.count(note) == 1


def tensorflow_runs() -> list[RunResult]:
    def runs(accuracies: list[float], seconds: float, **changes: object) -> list[RunResult]:
        return [
            sample_result(
                "mrpc",
                backend="tensorflow",
                seed=seed,
                metrics={"f1": 0.9, "accuracy": accuracy},
                epoch_seconds=[90.0, seconds, 30.0],
                examples={"train": 3668, "dev": 408},
                **changes,
            )
            for seed, accuracy in reversed(list(enumerate(accuracies, start=1)))
        ]

    return [
        *runs([0.8438, 0.8281, 0.8333], 41.2),
        *runs([0.8281, 0.8568, 0.8411], 9.96, precision="amp", compile_seconds=2.0),
        *runs([0.8281, 0.8568, 0.8411], 8.449, precision="amp", xla=True, compile_seconds=30.04),
        *runs([0.8281, 0.8568, 0.8411], 20.5, xla=True, compile_seconds=31.0),
    ]


def test_the_tensorflow_table_names_what_ran_in_each_mode() -> None:
    """Runs are in the order of their seeds. The first epoch is not the time, because the program is traced in it."""
    others = [sample_result("rte", backend="tensorflow"), sample_result("mrpc")]
    assert (
        tensorflow_table(groups_of([*tensorflow_runs(), *others])).to_markdown()
        == """\
### MRPC, TensorFlow

| Device                 | Mode             | Time (2nd epoch) | Val acc (3 runs)     | Compile time |
| ---------------------- | ---------------- | ---------------- | -------------------- | ------------ |
| CPU: a test, 2 threads | FP32             | 41s              | 0.8438/0.8281/0.8333 | 0.0s         |
| CPU: a test, 2 threads | AMP (bf16)       | 10s              | 0.8281/0.8568/0.8411 | 2.0s         |
| CPU: a test, 2 threads | XLA + AMP (bf16) | 8.4s             | 0.8281/0.8568/0.8411 | 30.0s        |
| CPU: a test, 2 threads | XLA              | 20s              | 0.8281/0.8568/0.8411 | 31.0s        |

- Time: training steps with their input, mean over the runs; tracing and compiling happen in the first epoch. Compile \
time: the first step of each shape, mean over the runs.
- Val acc: accuracy of each run, in the order of the seeds, on all 408 validation examples (the published script \
dropped the last 24).
- Settings: model demo; recipe classic; epochs 3; batch_size 32; learning_rate 2e-05; schedule linear; \
max_length 128.
- Device: CPU: a test, 2 threads.
- Versions: isinglass 0.1.0, python 3.11.0, commit 0000000000000000000000000000000000000000.
- Seeds: 1, 2, 3.
"""
    )


def test_published_rows_of_tensorflow_are_marked() -> None:
    """They are from other devices, so they have rows of their own."""
    runs = tensorflow_runs()
    table = tensorflow_table(groups_of(runs[:1], [failed(runs[-1])]), with_published=True)
    assert table.columns[3] == "Val acc (1 run)"
    assert table.rows == (
        ("CPU: a test, 2 threads", "FP32", "41s", "0.8333", "0.0s"),
        ("-", "XLA", "-", "failed", "-"),
        ("Titan V (published)", "FP32", "41s", "0.8438/0.8281/0.8333", "-"),
        ("Titan V (published)", "AMP", "26s", "0.8281/0.8568/0.8411", "-"),
        ("V100 (published)", "FP32", "35s", "0.8646/0.8359/0.8464", "-"),
        ("V100 (published)", "AMP", "22s", "0.8646/0.8385/0.8411", "-"),
        ("1080 Ti (published)", "FP32", "55s", "-", "-"),
    )
    assert "Failed: MRPC, tensorflow fp32, XLA, seed 1: It broke." in table.notes
    assert table.notes[-1].startswith(
        "Published: the text-classification README of transformers (examples): bert-base-cased"
    )


def test_every_published_accuracy_of_tensorflow_is_a_share_of_384() -> None:
    """Guards against a wrongly copied digit. The different number of examples is why our scores, on 408, can differ."""
    for row in tensorflow_table(groups_of([]), with_published=True).rows:
        for value in row[3].split("/"):
            assert value == "-" or f"{round(float(value) * 384) / 384:.4f}" == value


def bench(directory: Path) -> list[RunResult]:
    return [
        *[write_sample_run(directory, "mrpc", skill=0.6, seed=seed) for seed in (1, 2)],
        write_sample_run(directory, "mrpc", skill=0.9, seed=1, precision="bf16", compile=True),
        write_sample_run(directory, "mnli", skill=0.6),
        write_sample_run(directory, "stsb", skill=0.9),
    ]


def test_scores_have_a_row_for_each_metric_of_each_split(tmp_path: Path) -> None:
    """MNLI has two results, MRPC has two metrics, and a regression has no majority score."""
    table = scores_table(groups_of(bench(tmp_path)), Reader(tmp_path))
    assert table.columns[:6] == ("Task", "Metric", "Model", "Backend", "Precision", "Settings")
    assert table.columns[6:] == ("Result", "95 % interval", "Majority", "Collapsed")
    assert table.rows[:2] == (
        ("MRPC", "F1", "demo", "torch", "fp32", "-", "79.45 ± 3.08 (2)", "69.41 to 87.17", "73.02", "no"),
        ("MRPC", "Accuracy", "demo", "torch", "fp32", "-", "76.25 ± 1.77 (2)", "61.14 to 86.75", "57.50", "no"),
    )
    assert column(table, "Task") == ["MRPC"] * 4 + ["STS-B"] * 2 + ["MNLI"] * 2
    assert column(table, "Metric")[4:] == ["Pearson", "Spearman", "Matched acc.", "Mismatched acc."]
    assert column(table, "Settings") == ["-", "-", "compiled", "compiled", "-", "-", "-", "-"]
    assert column(table, "Majority")[4:] == ["-", "-", "35.00", "40.00"]


def test_differences_are_of_settings_that_differ_in_one_respect(tmp_path: Path) -> None:
    """Comparing fp32 with compiled bf16 would not show which of the two made the difference."""
    results = bench(tmp_path)
    answers = Reader(tmp_path)
    assert differences_table(groups_of(results), answers).notes == (
        "No two configurations of one task differ in one respect only.",
    )
    results.append(write_sample_run(tmp_path, "mrpc", skill=0.1, seed=2, precision="bf16"))
    table = differences_table(groups_of(results), answers)
    assert {(first, second) for _, _, first, second, *_ in table.rows} == {
        ("torch fp32", "torch bf16"),
        ("torch bf16, compiled", "torch bf16"),
    }
    assert [row[:2] for row in table.rows] == [("MRPC", "F1"), ("MRPC", "Accuracy")] * 2
    assert column(table, "Runs") == ["2, 1", "2, 1", "1, 1", "1, 1"]
    assert column(table, "Verdict")[-1] == "difference" and column(table, "Difference")[-1].startswith("-")
    single = "Where one side is a single run, two trained models are compared, not their configurations"
    assert table.notes[-1].startswith(single)
    several = [*results[:2], *[write_sample_run(tmp_path, "mrpc", seed=seed, precision="tf32") for seed in (3, 4)]]
    assert not any(note.startswith(single) for note in differences_table(groups_of(several), answers).notes)


def test_a_recipe_is_one_respect_whatever_it_sets(tmp_path: Path) -> None:
    """`small` has another learning rate than `classic`, but it is a single choice."""
    first = write_sample_run(tmp_path, "rte", seed=1)
    second = write_sample_run(tmp_path, "rte", seed=2)
    small = dataclasses.replace(second, recipe="small", config=second.config | {"recipe": "small", "learning_rate": 1e-4})
    table = differences_table(groups_of([first, small]), Reader(tmp_path))
    assert table.rows[0][2:4] == (
        "torch fp32, recipe classic, learning_rate 2e-05",
        "torch fp32, recipe small, learning_rate 0.0001",
    )


def test_the_speed_table_has_the_means_over_the_runs() -> None:
    fast = {"train_seconds": 3605.0, "examples_per_second": 260.04, "tokens_per_second": 12345.6}
    results = [
        *[sample_result("rte", seed=seed, train_seconds=seconds) for seed, seconds in ((1, 60.0), (2, 64.0))],
        sample_result("rte", precision="bf16", compile=True, compile_seconds=12.25, peak_memory_bytes=3 * 2**30, **fast),
    ]
    assert (
        speed_table(groups_of(results)).to_text()
        == f"""\
Speed

Task  Configuration         examples/s  real tokens/s  Training time  Compile  Evaluation  \
Padding not computed  Peak memory (MiB)
----  --------------------  ----------  -------------  -------------  -------  ----------  \
--------------------  -----------------
RTE   torch fp32            30.0        1,600          01:02          0.0 s    2.0 s       55%                   1,024
RTE   torch bf16, compiled  260.0       12,346         1:00:05        12.2 s   2.0 s       55%                   3,072
Note: {CLOCK} Means over the runs of a row.
Note: Real tokens exclude padding. Padding not computed: share of the tokens that there would be if every training \
example were padded to the maximum length.
Note: Settings: model demo; recipe classic; epochs 3; batch_size 32; learning_rate 2e-05; schedule linear; max_length 128.
Note: Device: CPU: a test, 2 threads.
Note: Versions: isinglass 0.1.0, python 3.11.0, torch 2.13.0, commit 0000000000000000000000000000000000000000.
Note: Seeds: 1, 2.
"""
    )


def test_cells_cannot_break_out_of_the_table() -> None:
    """A model's name may contain a pipe, a tag, a line end or an escape sequence."""
    table = Table(title="a|b", columns=("name",), rows=(("x|y\\|<b>",), ("line\nend\x1b[31m",)), notes=("n|\no",))
    assert table.to_markdown() == (
        "### a&#124;b\n"
        "\n"
        "| name                           |\n"
        "| ------------------------------ |\n"
        "| x&#124;y&#92;&#124;&#60;b&#62; |\n"
        "| line&#92;nend&#92;x1b&#91;31m  |\n"
        "\n"
        "- n&#124;&#92;no\n"
    )
    assert table.to_text() == "a|b\n\nname\n-----------------\nx|y\\|<b>\nline\\nend\\x1b[31m\nNote: n|\\no\n"


def test_results_of_two_versions_share_no_table() -> None:
    """A later version may score or time differently, and the difference would be attributed to the settings."""
    old, other = sample_result("rte"), sample_result("mrpc")
    new = sample_result("wnli", versions={"isinglass": "0.2.0"})
    check_same_version([old, other])
    with pytest.raises(DataError) as caught:
        speed_table(groups_of([old, other, new]))
    assert str(caught.value) == (
        "One table cannot hold results of isinglass 0.1.0 (RTE, MRPC) and 0.2.0 (WNLI): run all of them again with one "
        "version, or report each version from a directory of its own."
    )


@pytest.mark.parametrize("task", ["mrpc", "mnli", "stsb"])
def test_answers_score_as_the_result_says(task: str, tmp_path: Path) -> None:
    """Labels are read by name: they are in the task's order, whatever the order of the model's outputs."""
    result = write_sample_run(tmp_path, task)
    split = result.split.split("+")[-1]
    found = Reader(tmp_path)(result, split)
    metrics = result.metrics[split] if "+" in result.split else result.metrics
    assert {name: score(name, found) for name in TASKS[task].metrics} == pytest.approx(metrics, abs=1e-3)
    assert found.labels == TASKS[task].labels and len(found.texts) == 40 and len(found.texts[0]) == 2
    if found.labels is not None:
        assert (found.probabilities.argmax(1) == found.predicted).all()


def test_a_models_own_order_of_labels_does_not_matter(tmp_path: Path) -> None:
    """The columns of the probabilities are named, so the first need not be the task's first label."""
    result = write_sample_run(tmp_path, "mrpc")
    before = Reader(tmp_path)(result, "dev")
    path = tmp_path / result.predictions["dev"]
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join("\t".join([*row[:2], row[3], row[2]]) + "\n" for row in rows))
    after = Reader(tmp_path)(result, "dev")
    assert np.array_equal(before.probabilities, after.probabilities) and np.array_equal(before.predicted, after.predicted)


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_predictions_with_texts_are_read_as_those_without(task: str, tmp_path: Path) -> None:
    """A text may hold tabs, quotes and line ends. 0.1.0 wrote no texts, and quoted nothing."""
    result = write_sample_run(tmp_path, task)
    before = Reader(tmp_path)(result, "dev")
    path = tmp_path / result.predictions["dev"]
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, "excel-tab", lineterminator="\n")
        writer.writerow([*header[:2], "label", "row", "text", *header[2:]])
        writer.writerows([*row[:2], "0", i, '"a\tb"\r\n\nc', *row[2:]] for i, row in enumerate(rows))
    after = Reader(tmp_path)(result, "dev")
    np.testing.assert_array_equal(before.predicted, after.predicted)
    if task == "mrpc":
        np.testing.assert_array_equal(before.probabilities, after.probabilities)


@pytest.mark.parametrize(
    ("task", "line", "text", "message"),
    [
        (
            "rte",
            1,
            "index\tprediction",
            "line 1: the columns are index, prediction; index, prediction, probability:entailment",
        ),
        ("rte", 3, "1\tentailmnt\t0.5\t0.5", "line 3: the label is 'entailmnt' (did you mean 'entailment'?)"),
        ("rte", 3, "2\tentailment\t0.5\t0.5", "line 3: 4 fields, the first of them 1, were expected."),
        ("rte", 3, "1\tentailment\t0.5", "line 3: 4 fields, the first of them 1, were expected."),
        ("rte", 3, "1\tentailment\thalf\t0.5", "line 3: 'half' is not a number."),
        ("rte", 41, None, "answers 39 examples; "),
        ("stsb", 3, "1\thigh", "line 3: 'high' is not a number."),
    ],
)
def test_damaged_predictions_get_one_sentence_with_file_and_line(task, line, text, message, tmp_path: Path) -> None:
    result = write_sample_run(tmp_path, task)
    path = tmp_path / result.predictions["dev"]
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        Reader(tmp_path)(result, "dev")
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("rte", b"[]\n", 'line 1: {"texts": [...], "label": "..."} was expected.'),
        ("rte", b"\xff\n", "line 1: it is not UTF-8."),
        ("rte", None, "cannot be read: No such file or directory."),
        ("rte", json.dumps({"texts": ["a", "b"], "label": "?"}).encode() + b"\n", "line 1: the label is '?'"),
        ("stsb", json.dumps({"texts": ["a", "b"], "label": "9"}).encode() + b"\n", "line 1: the score is '9'"),
    ],
)
def test_damaged_examples_get_one_sentence_with_file_and_line(task, content, message, tmp_path: Path) -> None:
    result = write_sample_run(tmp_path, task, rows=1)
    path = tmp_path / "examples" / f"{task}-dev.jsonl"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Reader(tmp_path)(result, "dev")
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


def test_a_result_reaches_no_file_outside_its_directory(tmp_path: Path) -> None:
    """A directory from an untrusted source may name any file of the reader, who would then publish it in a report."""
    result = write_sample_run(tmp_path / "bench", "rte")
    inside = tmp_path / "bench" / result.predictions["dev"]
    outside = inside.rename(tmp_path / "predictions.tsv")
    inside.symlink_to(outside)
    for named in ("../predictions.tsv", str(outside), result.predictions["dev"]):
        with pytest.raises(DataError, match="no other file is read"):
            Reader(tmp_path / "bench")(dataclasses.replace(result, predictions={"dev": named}), "dev")
    with pytest.raises(DataError, match="names no predictions of dev"):
        Reader(tmp_path / "bench")(dataclasses.replace(result, predictions={}), "dev")
    with pytest.raises(ConfigError, match=r"RTE has no split '\.\./dev'"):
        Reader(tmp_path / "bench")(result, "../dev")
