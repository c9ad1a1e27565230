"""Facts about the data: correct counts, the rows that they concern, and readable messages."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isinglass.config import TrainConfig
from isinglass.data.checks import Finding, inspect_data
from isinglass.data.custom import read_custom
from isinglass.data.examples import Examples
from isinglass.errors import DataError
from isinglass.tasks import TASKS
from tests.memory import memory_data


def facts_of(train, dev=None, **options: object):
    """Return the facts about (text, label) or (text, text, label) rows in memory."""

    def parts(rows):
        *texts, labels = zip(*rows)
        return tuple(map(list, texts)), list(labels)

    texts, labels = parts(train)
    data = memory_data(name="mine", texts=texts, labels=labels, dev=parts(dev) if dev else None, **options)
    return inspect_data({split.name: data.read(split) for split in data.task.splits}, data.task)


TRAIN = [("same", "a"), ("other", "b"), ("same", "a"), ("same", "b"), ("more", "a"), ("no", "b")]
DEV = [("new", "a"), ("other", "b"), ("no", "a"), ("x", "b")]


def test_doubles_conflicts_leaks_and_short_texts_are_named_by_row() -> None:
    facts = facts_of(TRAIN, DEV)
    assert facts.rows == {"train": 6, "dev": 4}
    train, dev = "training data, index", "validation data, index"
    assert facts.duplicates == Finding(rows=2, first=(f"{train} 2 = {train} 0", f"{train} 3 = {train} 0"))
    assert facts.conflicts == Finding(rows=1, first=(f"{train} 3 = {train} 0",))
    assert facts.leaks == {"dev": Finding(rows=2, first=(f"{dev} 1 = {train} 1", f"{dev} 2 = {train} 5"))}
    assert facts.short == {
        "train": Finding(rows=1, first=(f"{train} 5",)),
        "dev": Finding(rows=2, first=(f"{dev} 2", f"{dev} 3")),
    }
    assert facts.labels == {"train": {"a": 3, "b": 3}, "dev": {"a": 2, "b": 2}}
    assert facts.characters["train"] == {"min": 2, "median": 4, "p95": 5, "max": 5}
    assert [*facts.lines()] == [
        "Rows: train 6, dev 4.",
        "Labels of train: 'a' 3 (50.0%), 'b' 3 (50.0%).",
        "Labels of dev: 'a' 2 (50.0%), 'b' 2 (50.0%).",
        "Characters of train: from 2 to 5, half have 4 or fewer, 95 % have 5 or fewer.",
        "Characters of dev: from 1 to 5, half have 3 or fewer, 95 % have 5 or fewer.",
        f"2 (33.3%) rows of train have the texts of an earlier row: {train} 2 = {train} 0; {train} 3 = {train} 0.",
        f"1 (16.7%) rows of train have the texts of an earlier row, but another label: {train} 3 = {train} 0.",
        f"2 (50.0%) rows of dev are in train too, so that scores on it are too good: {dev} 1 = {train} 1; "
        f"{dev} 2 = {train} 5.",
        f"1 (16.7%) rows of train have a text of at most 2 characters: {train} 5.",
        f"2 (50.0%) rows of dev have a text of at most 2 characters: {dev} 2; {dev} 3.",
    ]


def test_clean_data_have_no_findings() -> None:
    facts = facts_of([(f"text {i}", "ab"[i % 2]) for i in range(40)])
    assert facts.duplicates == facts.conflicts == facts.leaks["dev"] == Finding()
    assert len([*facts.lines()]) == 5


def test_a_pair_is_the_same_only_if_both_texts_are() -> None:
    rows = [("ab", "c", 0), ("a", "bc", 1), ("c", "ab", 0), ("ab", "c", 1)]
    facts = facts_of(rows, [("a", "bc", 0), ("bc", "a", 0)])
    assert (facts.duplicates.rows, facts.conflicts.rows, facts.leaks["dev"].rows) == (1, 1, 1)
    assert facts.characters["train"]["max"] == 3 and facts.short["train"].rows == 4


def test_the_order_of_several_labels_makes_no_conflict() -> None:
    rows = [("one", ["a", "b"]), ("one", ["b", "a"]), ("two", []), ("two", ["a"])]
    facts = facts_of(rows, rows[:1])
    assert (facts.duplicates.rows, facts.conflicts.rows) == (2, 1)
    assert facts.labels["train"] == {"a": 3, "b": 2} and facts.unlabelled == {"train": 1, "dev": 0}
    assert [*facts.lines()][1] == "Labels of train: 'a' 3 (75.0%), 'b' 2 (50.0%). 1 (25.0%) without any label."


def test_scores_have_a_range_instead_of_labels() -> None:
    facts = facts_of([(f"text {i}", i / 2) for i in range(30)], [("new", 1.0), ("newer", 2.5)])
    assert facts.labels == {} and facts.scores["dev"] == {"min": 1.0, "mean": 1.75, "max": 2.5}
    assert "Scores of train: from 0 to 14.5, 7.25 on average." in [*facts.lines()]
    wrong = Examples(texts=(["a"],), labels=["x"], origin="here", line_numbers=[7])
    with pytest.raises(DataError, match="here, line 7: the score is 'x'"):
        inspect_data({"dev": wrong}, TASKS["stsb"])


def test_many_labels_are_counted_and_a_few_are_listed() -> None:
    rows = [(f"text {i} {j}", f"label {i:02}") for i in range(30) for j in range(40 - i)]
    facts = facts_of(rows)
    line = [*facts.lines()][1]
    assert line.startswith("Labels of train: 'label 00' 36 (5.2%), 'label 01' 35 ") and len(line) < 400
    assert line.endswith(", and 20 more down to 'label 29' 10 (1.5%).") and len(facts.labels["train"]) == 30


def test_hidden_labels_and_published_tasks_are_looked_through_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(20)))
    (tmp_path / "b.csv").write_text("text\ntext 3\nnew\n")
    data = read_custom(TrainConfig(task="m", train_file=(str(tmp_path / "a.csv"),), test_file=(str(tmp_path / "b.csv"),)))
    facts = inspect_data({split.name: data.read(split) for split in data.task.splits}, data.task)
    assert {*facts.labels} == {"train", "dev"}
    assert facts.leaks["test"].first[0].startswith(f"{tmp_path / 'b.csv'}, row 2 = {tmp_path / 'a.csv'}, row ")
    assert facts.leaks["test"].rows == 1
    only = inspect_data({"dev": data.read(data.task.split("dev"))}, data.task)
    assert only.leaks == {} and only.duplicates == Finding()


def test_facts_are_plain_values_and_the_caller_may_add_what_is_cut() -> None:
    facts = dataclasses.replace(facts_of(TRAIN, DEV), truncated={"train": 0.125})
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["truncated"] == {"train": 0.125}
    assert "Longer than the model reads, and cut, in train: 12.5% of the examples." in [*facts.lines()]


@settings(deadline=None, max_examples=100)
@given(
    train=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y"])), min_size=1, max_size=20),
    dev=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=10),
)
def test_counts_are_those_of_a_plain_search(train, dev) -> None:
    texts, labels = zip(*train)
    splits = {
        "train": Examples(texts=(texts,), labels=labels, origin="train", line_numbers=range(len(texts))),
        "dev": Examples(texts=(dev,), labels=None, origin="dev", line_numbers=range(len(dev))),
    }
    facts = inspect_data(splits, TASKS["cola"])
    first = [texts.index(text) for text in texts]
    assert facts.duplicates.rows == sum(j < i for i, j in enumerate(first))
    assert facts.conflicts.rows == sum(labels[i] != labels[j] for i, j in enumerate(first))
    assert facts.leaks["dev"].rows == sum(text in texts for text in dev)
    assert all("=" in place for place in (*facts.duplicates.first, *facts.leaks["dev"].first))
