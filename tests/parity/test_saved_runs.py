"""A run's `model/` is a Hugging Face checkpoint: `transformers` gives the same probabilities under the same names."""

import json
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import resolve
from isinglass.data.examples import Examples
from isinglass.runs.directory import load_run, write_run
from isinglass.tasks import TASKS
from isinglass.training.trainer import train
from tests.tiny import FAMILIES, input_rows, save_tiny, sentence, write_glue

TASK_OF = {
    "bert": "mnli",
    "roberta": "rte",
    "distilbert": "sst2",
    "electra": "mrpc",
    "xlm-roberta": "mrpc",
}  # pairs, a single text, all label kinds


def train_tiny(family: str, task: str, tmp_path: Path) -> Path:
    data = write_glue(TASKS[task], tmp_path / "data", rows=48)
    model = save_tiny(tmp_path / "model", family)
    flags = {"data_dir": str(data), "model": str(model), "epochs": 2, "learning_rate": 1e-3, "max_length": 40}
    write_run(train(resolve(task=task, flags=flags)), tmp_path / "run", overwrite=False)
    return tmp_path / "run"


def some_texts(columns: int) -> Examples:
    rng = np.random.default_rng(3)
    texts = tuple([sentence(rng, int(rng.integers(1, 14))) for _ in range(20)] for _ in range(columns))
    return Examples(texts=texts, labels=None, origin="here", line_numbers=range(1, 21))


def our_rows(run: Path, texts: Examples, tmp_path: Path) -> list[list[str]]:
    (tmp_path / "mine.txt").write_text("".join("\t".join(row) + "\n" for row in zip(*texts.texts)))
    return input_rows(load_run(run), tmp_path / "mine.txt")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pipeline_of_transformers_gives_our_probabilities_by_name(family: str, tmp_path: Path) -> None:
    """Guards against an id2label that is missing, generic or in another order, and against lost tokenizer files."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    task = TASKS[TASK_OF[family]]
    run = train_tiny(family, task.name, tmp_path)
    texts = some_texts(2 if task.is_pair else 1)
    header, *rows = our_rows(run, texts, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    assert sorted(model.config.id2label.values()) == sorted(task.labels)
    assert {name: i for i, name in model.config.id2label.items()} == model.config.label2id
    classify = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(run / "model"), top_k=None
    )
    keys = ("text", "text_pair")
    answers = classify([dict(zip(keys, row)) for row in zip(*texts.texts)])
    chosen = set()
    for row, answer in zip(rows, answers, strict=True):
        theirs = {one["label"]: one["score"] for one in answer}
        ours = {name.removeprefix("probability:"): float(value) for name, value in zip(header[2:], row[2:])}
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert row[1] == max(theirs, key=theirs.get)
        chosen.add(row[2])
    assert len(chosen) > 1, "the model tells the texts apart"


def test_a_regression_is_saved_as_one(tmp_path: Path) -> None:
    """`transformers` must not apply a softmax to the single output, so `problem_type` must be saved."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = train_tiny("bert", "stsb", tmp_path)
    texts = some_texts(2)
    _, *rows = our_rows(run, texts, tmp_path)
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["problem_type"] == "regression"
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    encoded = AutoTokenizer.from_pretrained(run / "model")(*texts.texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**encoded).logits[:, 0].numpy()
    np.testing.assert_allclose([float(row[1]) for row in rows], theirs, rtol=0, atol=1e-4)
