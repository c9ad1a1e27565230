"""A model card: what the hub reads from it, what it states first, and how it shows names from untrusted sources."""

import dataclasses
import html
import re

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from isinglass.errors import ConfigError
from isinglass.names import printable
from isinglass.results import RunResult
from isinglass.tables import escaped
from isinglass.tasks import TASKS, Task
from isinglass.tasks.custom import custom_task
from isinglass.training.card import DEMO_SOURCE, model_card
from tests.sample_bench import sample_result, with_scores

MARKDOWN = MarkdownIt("commonmark").enable("table").enable("strikethrough")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NASTY = "<script>alert(1)</script> | `x` **b** _i_ [a](b)\n---\n# h &amp; $$y$$"


def unpadded(markdown: str) -> str:
    """Return the rows of tables without the spaces that align their columns."""
    return re.sub(" +\\|", " |", markdown)


def published(task: str, **changes: object) -> RunResult:
    """Return a result on dev sets of the sizes that GLUE's have."""
    described = TASKS[task]
    return sample_result(task, examples={one.name: one.rows for one in (described.train, *described.dev)}, **changes)


def own_task(kind: str = "classification", labels: tuple[str, ...] | None = ("bad", "good"), **changes: object) -> Task:
    values = {"name": "reviews", "text_columns": ["review"], "label_column": "stars", "splits": ["train", "dev"]}
    return custom_task(kind=kind, labels=labels, **{**values, **changes})


def own_result(task: Task, score: float | None = 0.6, baseline: float | None = 0.5, **changes: object) -> RunResult:
    scores, majority = (dict.fromkeys(task.metrics, value) for value in (score, baseline))
    result = sample_result("rte", metrics=scores, majority=majority, examples={"train": 80, "dev": 40})
    return dataclasses.replace(result, task=task.name, **changes)


def card(result: RunResult, task: Task | None = None, labels: tuple[str, ...] | None = None, **changes: object) -> ModelCard:
    task = task or TASKS[result.task]
    options = {"license": None, **changes}
    return ModelCard(model_card(result, task, labels or task.labels, **options))


def test_the_hub_reads_back_scores_data_and_origin() -> None:
    made = card(published("mrpc", metrics={"f1": 0.9, "accuracy": 0.87}), repo="someone/tiny")
    assert {name: value for name, value in made.data.to_dict().items() if name != "model-index"} == {
        "base_model": DEMO_SOURCE,
        "datasets": ["nyu-mll/glue"],
        "language": "en",
        "library_name": "transformers",
        "license": "apache-2.0",
        "metrics": ["f1", "accuracy"],
        "pipeline_tag": "text-classification",
        "tags": ["isinglass", "glue"],
    }
    assert made.data.model_name == "tiny"
    assert [
        (one.dataset_config, one.dataset_split, one.metric_type, one.metric_value) for one in made.data.eval_results
    ] == [
        ("mrpc", "validation", "f1", 0.9),
        ("mrpc", "validation", "accuracy", 0.87),
    ]
    assert "| dev | F1 | 90.00 | 81.22 | 408 |" in unpadded(made.text)
    assert "| 1 | 1 | equivalent |" in unpadded(made.text)


def test_each_of_two_dev_sets_has_its_scores() -> None:
    """MNLI's mismatched score under the matched set's name would be a false claim."""
    metrics = {"dev_matched": {"accuracy": 0.84}, "dev_mismatched": {"accuracy": 0.85}}
    made = card(published("mnli", metrics=metrics))
    assert [(one.dataset_split, one.metric_value) for one in made.data.eval_results] == [
        ("validation_matched", 0.84),
        ("validation_mismatched", 0.85),
    ]
    assert re.search(r"\| dev_matched \| Accuracy \| 84\.00 \| 35\.45 \| 9,815 \|", unpadded(made.text))
    assert re.search(r"\| dev_mismatched \| Accuracy \| 85\.00 \| 35\.22 \| 9,832 \|", unpadded(made.text))


def test_rows_that_are_not_glues_are_not_called_glue() -> None:
    """A score on the first forty rows would be on the hub's leaderboard beside scores on the complete dev set."""
    made = card(sample_result("rte"))
    assert made.data.datasets is None
    assert {one.dataset_type for one in made.data.eval_results} == {"rte"}
    assert "not as many as GLUE's: these are no scores of GLUE's RTE" in made.text


def test_a_score_that_is_no_number_stays_out_of_the_metadata() -> None:
    made = card(published("stsb", metrics={"pearson": None, "spearman": 0.5}))
    assert [one.metric_type for one in made.data.eval_results] == ["spearmanr"]
    assert "| dev | Pearson correlation | NaN | NaN | 1,500 |" in unpadded(made.text)
    assert made.text.index("Pearson correlation on dev is not a number") < made.text.index("It takes")
    nothing = card(published("stsb", metrics={"pearson": None, "spearman": None}))
    assert (nothing.data.eval_results, nothing.data.metrics, nothing.data.model_name) == (None, None, None)
    assert "model-index" not in nothing.content


def test_what_spoils_a_score_is_said_before_anything_else() -> None:
    collapsed = card(published("mrpc", metrics={"f1": 0.8122, "accuracy": 0.6838}, collapsed=True)).text
    first = collapsed.index("It takes")
    for warning in ("The training collapsed", "F1 on dev is no better than always answering the most frequent label"):
        assert 0 < collapsed.index(warning) < first
    wnli = card(published("wnli", notes=[str(TASKS["wnli"].warning)])).text
    assert 0 < wnli.index("WNLI's dev set is adversarial") < wnli.index("It takes")
    assert wnli.count("WNLI's dev set is adversarial") == 1


def test_an_error_is_no_percentage_and_lower_is_better() -> None:
    task = own_task("regression", None)
    result = with_scores(own_result(task), metrics={"pearson": 0.8, "spearman": 0.7, "rmse": 1.25})
    majority = {"pearson": None, "spearman": None, "rmse": 2.0}
    made = card(with_scores(result, majority=majority), task)
    assert "| dev | RMSE (lower is better) | 1.25 | 2 | 40 |" in unpadded(made.text)
    assert "Warning" not in made.text
    assert "answers a number." in made.text
    worse = card(with_scores(result, majority={**majority, "rmse": 1.0}), task)
    assert "RMSE on dev is no better than always answering the mean (1.25; that scores 1)." in worse.text


def test_any_of_several_labels_and_both_means_of_f1() -> None:
    task = own_task("multilabel", ("sport", "music", "news"))
    made = card(own_result(task), task)
    assert [(one.metric_type, one.metric_args) for one in made.data.eval_results] == [
        ("f1", {"average": "micro"}),
        ("f1", {"average": "macro"}),
        ("accuracy", None),
    ]
    assert "any of 3 labels" in made.text
    assert made.data.metrics == ["f1", "accuracy"]
    assert made.data.language is None
    assert made.data.datasets is None


@pytest.mark.parametrize(
    ("model", "commit", "expected"),
    [
        ("demo", None, DEMO_SOURCE),
        ("google/bert", COMMIT, "google/bert"),
        (f"bert@{COMMIT}", COMMIT, "bert"),
        ("google/bert", None, None),
        ("/home/jane/secret/tiny", None, None),
        ("runs/secret/model", None, None),
        ("a](https://x.example)", COMMIT, None),
        ("google/bert", "](https://x.example)", None),
    ],
)
def test_a_base_model_is_named_only_if_it_came_from_the_hub(model: str, commit: str | None, expected: str | None) -> None:
    """A directory may look like a name on the hub. The card would then credit, or blame, a stranger's model."""
    made = card(sample_result("rte", model=model, model_commit=commit))
    assert made.data.base_model == expected
    assert "secret" not in made.content
    if commit and expected:
        assert f"https://huggingface.co/{expected}) at commit {COMMIT}" in made.text


def test_a_license_is_never_invented() -> None:
    note = f"The model bert is the hub's at commit {COMMIT}."
    assert card(sample_result("rte", model="bert", notes=[note])).data.license is None
    assert card(sample_result("rte", model="bert", notes=[note]), license="mit").data.license == "mit"
    assert card(sample_result("rte"), license="cc-by-4.0").data.license == "cc-by-4.0"
    for wrong in ("", "Apache 2.0", "mit\ndatasets: x", "x" * 100):
        with pytest.raises(ConfigError, match="The license is"):
            card(sample_result("rte"), license=wrong)


def test_no_directory_of_the_users_stands_in_the_card() -> None:
    """Notes name files with their paths, and settings hold the paths of data and model."""
    task = own_task()
    result = own_result(
        task,
        model="secret/runs/first model",
        notes=[
            "/home/jane doe/secret/glue/QQP/train.tsv: 12 rows with missing columns left out, the first in line 3.",
            "secret/my data/train.csv: no header.",
            "~/secret/x.csv: and/or 3 examples/s at https://huggingface.co/a/b",
            "secret/runs/first model has a head for other labels (a/b, c): a new one is trained.",
            "/home/jane/.cache/secret/hub/models--a--b/snapshots/abc has a head for other labels (one output): ...",
        ],
    )
    places = {
        "data_dir": "/home/jane doe/secret/glue",
        "train_file": ["secret/my data/*.csv"],
        "validation_file": [],
        "class_weights": "/home/jane/secret/weights.json",
    }
    text = card(dataclasses.replace(result, config=result.config | places), task).content
    assert "secret" not in text
    assert "jane" not in text
    for kept in (
        "- Note: glue/QQP/train.tsv: 12 rows with missing columns left out, the first in line 3.",
        "- Note: train.csv: no header.",
        "- Note: first model has a head for other labels (a/b, c): a new one is trained.",
        "- Note: x.csv: and/or 3 examples/s at https&#58;//huggingface.co/a/b",
        "class weights",
        "weights.json",
        "# first model fine-tuned on reviews",
    ):
        assert kept in text


def test_names_from_data_stand_in_the_card_as_text() -> None:
    """A label from an untrusted source could become markup on the hub's page, end the table, or change the metadata."""
    task = dataclasses.replace(own_task(), name=NASTY, title=NASTY, labels=(NASTY, "good"), positive_label=NASTY)
    result = own_result(task, model=NASTY, device=NASTY, notes=[NASTY], versions={NASTY: NASTY}, recipe=NASTY)
    made = card(dataclasses.replace(result, config=result.config | {"schedule": NASTY}), task)
    page = MARKDOWN.render(made.text)
    assert "<script>" not in page
    for tag in ("em>", "strong", "<a ", "<h6", "<hr"):
        assert tag not in page.replace("<em>majority</em>", "")
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 6
    shown = html.escape(printable(NASTY), quote=False).replace('"', "&quot;")
    assert page.count(shown) >= 7
    for table in re.findall("<table>.*?</table>", page, re.DOTALL):
        widths = {row.count("<td>") + row.count("<th>") for row in table.split("</tr>")[:-1]}
        assert len(widths) == 1
    assert {one.dataset_name for one in made.data.eval_results} == {printable(NASTY)}


@given(st.text(st.sampled_from("\\`*_~[]()<>&|#!$-+=.:;'\"{}^1 aé\n\t\r\u2028\x1b\ud800"), max_size=40))
def test_any_text_reads_as_it_is(text: str) -> None:
    expected = html.escape(printable(text), quote=False).replace('"', "&quot;")
    assert MARKDOWN.render(f"x{escaped(text)}x") == f"<p>x{expected}x</p>\n"
    cells = re.findall("<td>(.*)</td>", MARKDOWN.render(f"| a | b |\n| --- | --- |\n| x{escaped(text)}x | y |"))
    assert cells == [f"x{expected}x", "y"]


def test_many_labels_and_odd_lengths_do_not_make_the_card_endless() -> None:
    labels = tuple(f"label {i} {'x' * 150}" for i in range(1000))
    task = own_task(labels=labels)
    text = card(own_result(task, notes=["n" * 100_000]), task).content
    assert "And 900 more" in text
    assert len(text) < 40_000


def test_lengths_are_those_of_the_training_examples() -> None:
    made = card(published("rte", train_lengths=[0, 0, 0, 1, 0, 3, 1, 0, 0, 5]))
    assert "has 3 to 9 tokens, in the median 6, special tokens included; 1.0% were longer than 128 tokens." in made.text
    assert "A training example has" not in card(published("rte", train_lengths=[])).text


def test_another_length_than_the_default_is_said() -> None:
    """`isinglass predict` knows a downloaded model only by its name, not the settings of its training."""
    result = published("rte")
    longer = dataclasses.replace(result, config=result.config | {"max_length": 256})
    assert "There it reads 128 tokens of a text, not 256 as in training." in card(longer).text
    assert "truncation=True, max_length=256))" in card(longer).text
    assert "There it reads" not in card(result).text


def test_the_best_epoch_is_owned_up_to() -> None:
    """A model that is chosen by the dev set on which it is then scored looks better than it is."""
    result = published("rte")
    chosen = dataclasses.replace(result, config=result.config | {"keep_best": True})
    assert "that was best on dev, so that the scores on it flatter the model" in card(chosen).text
    assert "| keep best | True |" in unpadded(card(chosen).text)
    assert "flatter" not in card(result).text


def test_a_model_that_was_fine_tuned_before_says_so() -> None:
    assert "Its weights had been fine-tuned on MNLI before." in card(published("rte", start_from="mnli")).text


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.dev], ids=lambda task: task.name)
def test_every_task_has_a_card_without_holes(task: Task) -> None:
    text = card(sample_result(task.name)).content
    assert not re.search(r"\b(None|inf)\b", text.replace("top_k=None", "").replace("None: the one output", ""))
    assert ('"text_pair"' in text) == ("one pair a line" in text) == task.is_pair
    assert f"isinglass predict NAME --task {task.name} --input texts.txt" in text
