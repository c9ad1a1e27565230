"""The user's own files, from the command line to predictions, on tiny models."""

import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from isinglass.config import resolve
from isinglass.data.examples import Examples
from isinglass.data.tokenization import tokenize
from isinglass.errors import ConfigError, DataError
from isinglass.metrics import Metric, scores
from isinglass.models.checkpoint import load_checkpoint
from isinglass.models.source import load_model
from isinglass.runs.directory import load_run, write_run
from isinglass.tasks import MULTILABEL
from isinglass.tasks.custom import custom_task
from isinglass.training.checkpoints import Checkpoints, Interval, TrainingState
from isinglass.training.evaluation import evaluate
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.observers import Observer, ProgressObserver
from isinglass.training.preparation import class_weights
from isinglass.training.trainer import BestEpoch, TrainedRun, train
from tests.end_to_end.test_cli import isinglass
from tests.tiny import WORDS, save_tiny

QUICK = {"epochs": 3, "batch_size": 16, "max_length": 24, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Write four files of 80 rows. The labels depend on whether a text contains `good` or `bad`, and on `dog`."""
    directory, rng = tmp_path_factory.mktemp("own"), random.Random(1)
    rows = []
    for i in range(80):
        words = [rng.choice(WORDS[:30]) for _ in range(rng.randint(3, 12))] + ["good" if i % 2 else "bad"]
        words += ["dog"] if i % 3 == 0 else []
        rows.append(
            (" ".join(words), "yes" if i % 2 else "no", ["pet", "nice"] if i % 6 == 3 else ["pet"] if i % 3 == 0 else [])
        )
    with open(directory / "reviews.csv", "w") as csv:
        csv.write("id,text,label\n" + "".join(f'{i},"{text}, {i}",{label}\n' for i, (text, label, _) in enumerate(rows)))
    with open(directory / "tags.jsonl", "w") as lines:
        lines.writelines(json.dumps({"text": text, "labels": tags}) + "\n" for text, _, tags in rows)
    with open(directory / "scores.tsv", "w") as tsv:
        tsv.write("sentence1\tsentence2\tscore\n")
        tsv.writelines(f"{text}\t{label}\t{len(text) / 10}\n" for text, label, _ in rows)
    return directory


def run(file: Path, model: Path, **flags: object) -> TrainedRun:
    return train(resolve(task="own", flags={"train_file": (str(file),), "model": str(model), **QUICK, **flags}))


@pytest.mark.parametrize(
    ("file", "metrics"),
    [
        ("reviews.csv", {"accuracy", "f1"}),
        ("tags.jsonl", {"micro_f1", "macro_f1", "accuracy"}),
        ("scores.tsv", {"pearson", "spearman", "rmse"}),
    ],
)
def test_each_kind_of_task_trains_and_is_the_same_when_loaded(
    file: str, metrics: set[str], files: Path, model: Path, tmp_path: Path
) -> None:
    trained = run(files / file, model)
    assert set(trained.result.metrics) == set(trained.result.majority) == metrics
    assert trained.result.examples == {"train": 72, "dev": 8}
    write_run(trained, tmp_path / "run", overwrite=False)
    finished = load_run(tmp_path / "run")
    assert finished.task == trained.task
    again, _ = evaluate(finished.config, finished.checkpoint)
    assert again.metrics == trained.result.metrics
    saved = load_checkpoint(tmp_path / "run" / "model")
    assert (saved.config_json["problem_type"] == MULTILABEL.problem_type) == (file == "tags.jsonl")


def test_pipeline_of_transformers_gives_the_probabilities_of_several_labels(
    files: Path, model: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    write_run(run(files / "tags.jsonl", model), tmp_path / "run", overwrite=False)
    done = isinglass("predict", "run", "--input", files / "tags.jsonl", cwd=tmp_path)
    header, first, *_ = [line.split("\t") for line in done.out.splitlines()]
    names = [name.removeprefix("probability:") for name in header[2:]]
    text = json.loads((files / "tags.jsonl").read_text().splitlines()[0])["text"]
    answers = pipeline("text-classification", model=str(tmp_path / "run" / "model"), top_k=None)([text])[0]
    expected = {answer["label"]: answer["score"] for answer in answers}
    assert {*names} == {*expected} == {"nice", "pet"}
    for name, chance in zip(names, first[2:], strict=True):
        assert float(chance) == pytest.approx(expected[name], abs=1e-5)


@pytest.mark.slow
def test_the_command_checks_trains_scores_a_test_file_and_predicts(files: Path, model: Path, tmp_path: Path) -> None:
    settings = ["--model", model, "--epochs", 1, "--batch-size", 16, "--max-length", 24]
    own = ["--train-file", files / "reviews.csv"]
    checked = isinglass("train", *own, *settings[:2], "--max-length", 10, "--check-only", cwd=tmp_path)
    assert checked.status == 0 and "Rows: train 72, dev 8." in checked.err
    trained = run(files / "reviews.csv", model, max_length=10, epochs=1).result
    assert f"Longer than the model reads, and cut, in train: {trained.truncated_share:.1%} of the examples." in checked.err
    assert trained.truncated_share > 0 and "and cut, in dev: " in checked.err
    nowhere = isinglass("train", *own, "--model", "./nowhere", "--check-only", cwd=tmp_path)
    assert nowhere.status == 2 and "Rows: train 72, dev 8." in nowhere.err and "nowhere" in nowhere.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
    done = isinglass(
        "train", *own, "--test-file", files / "reviews.csv", *settings, "--output-dir", "run", "--json", cwd=tmp_path
    )
    assert done.status == 2 and "reviews.csv" in done.err, "the same file to train and to test on"
    (tmp_path / "test.csv").write_bytes((files / "reviews.csv").read_bytes())
    done = isinglass("train", *own, "--test-file", "test.csv", *settings, "--output-dir", "run", "--json", cwd=tmp_path)
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["task"] == "reviews" and result["split"] == "dev+test" and result["examples"]["test"] == 80
    assert re.search(r"72 .*test", done.err), "rows of train are in test too, and that is told"
    scored = isinglass("evaluate", "run", "--test-file", "test.csv", "--json", cwd=tmp_path)
    assert json.loads(scored.out)["metrics"] == result["metrics"]["test"]
    (tmp_path / "new.csv").write_text('text\n"a good, dog"\nbad\n')
    predicted = isinglass("predict", "run", "--input", "new.csv", cwd=tmp_path)
    rows = [line.split("\t") for line in predicted.out.splitlines()]
    assert rows[0] == ["index", "prediction", "probability:no", "probability:yes"] and len(rows) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mrpc"], "mrpc is a task that"),
        (["Mine!"], "no name for a task"),
        (["--data-dir", "x"], "leave one of them out"),
        (["--label-column", "lable"], "did you mean 'label'"),
        (["--kind", "regression"], "the score is 'no'; reviews needs a finite number"),
        (["--best-metric", "rmse", "--keep-best"], "best_metric is 'rmse'"),
        (["--class-weights", "weights.json"], "neither `balanced` nor a JSON file"),
        (["--freeze-layers", "3"], "has 2 layers"),
    ],
)
def test_mistakes_are_one_sentence_before_any_step(
    arguments: list[str], said: str, files: Path, model: Path, tmp_path: Path
) -> None:
    done = isinglass(
        "train", *arguments, "--train-file", files / "reviews.csv", "--model", model, "--max-length", 24, cwd=tmp_path
    )
    assert done.status == 2 and said in done.err.splitlines()[-1] and "Traceback" not in done.err, done.err
    assert not (tmp_path / "runs").exists()


def test_the_best_epoch_is_kept_and_training_stops_where_nothing_gets_better(files: Path, model: Path) -> None:
    """The learning rate is so high that training destroys the model: only two epochs may follow the best one."""
    trained = run(files / "reviews.csv", model, epochs=8, learning_rate=0.3, early_stopping=2, best_metric="accuracy")
    scores = trained.result.epoch_scores
    best = scores.index(max(scores))
    assert len(scores) == len(trained.result.epoch_seconds) == best + 3 < 8
    assert trained.result.metrics["accuracy"] == scores[best]
    assert any(f"epoch {best + 1} of {len(scores)}, stopped early of 8 are kept" in note for note in trained.result.notes)


def test_a_run_that_stops_early_records_all_of_its_steps(files: Path, model: Path, monkeypatch) -> None:
    """Losses since the last report were lost if an early stop came before the next report, which depended on the clock."""
    monkeypatch.setattr("isinglass.training.loop.REPORT_SECONDS", float("inf"))
    told: list[int] = []

    class Steps(Observer):
        def on_step_end(self, progress, steps) -> None:
            told.extend(record.step for record in steps)

    settings = {"epochs": 8, "learning_rate": 0.3, "early_stopping": 1, "best_metric": "accuracy"}
    config = resolve(
        task="own", flags={"train_file": (str(files / "reviews.csv"),), "model": str(model), **QUICK, **settings}
    )
    trained = train(config, [Steps()])
    epochs = len(trained.result.epoch_scores)
    assert epochs < 8
    assert [record.epoch for record in trained.steps] == sorted(record.epoch for record in trained.steps)
    assert {record.epoch for record in trained.steps} == {*range(epochs)}
    assert told == [record.step for record in trained.steps] == [*range(len(told))]


def test_a_run_that_keeps_its_best_epoch_resumes_to_the_same_end(files: Path, model: Path, tmp_path: Path) -> None:
    """Interrupts also the evaluation between two epochs: scores and the best weights must be in the checkpoint."""
    settings = {"keep_best": True, "epochs": 4, "learning_rate": 0.05}
    whole = run(files / "reviews.csv", model, **settings)
    config = resolve(
        task="own", flags={"train_file": (str(files / "reviews.csv"),), "model": str(model), **QUICK, **settings}
    )
    seen: list[str] = []

    class Stopping(Interruption):
        def check(self) -> None:
            if seen and seen[-1] == "evaluate dev" and seen.count("evaluate dev") == 2:
                seen.clear()
                raise Interrupted(15, "asked to")

    checkpoints = Checkpoints(directory=tmp_path / "c", every=Interval.parse("never"))
    with pytest.raises(Interrupted):
        train(
            config,
            [ProgressObserver(lambda now: seen.append(now.stage))],
            checkpoints=checkpoints,
            interruption=Stopping(lambda _: None),
        )
    resumed = train(config, checkpoints=Checkpoints(directory=tmp_path / "c", every=Interval.parse("never"), resume=True))
    assert resumed.result.epoch_scores == whole.result.epoch_scores
    assert resumed.result.metrics == whole.result.metrics
    for name, array in whole.model.weights.items():
        np.testing.assert_array_equal(resumed.model.weights[name], array)


def test_the_best_epoch_by_an_error_is_the_lowest_and_nan_is_the_worst() -> None:
    best = BestEpoch(Metric.RMSE, patience=2, state=TrainingState())
    for epoch, score in enumerate((None, 2.0, 1.0, 3.0)):
        best.add(score, {"w": np.full(1, epoch, np.float32)})
    assert best.best == 2 and best.weights["w"] == 2 and not best.is_over
    best.add(1.0, {})
    assert best.is_over and best.scores == [None, 2.0, 1.0, 3.0, 1.0]
    again = BestEpoch(Metric.RMSE, patience=2, state=TrainingState(epoch_scores=best.scores, arrays=best.arrays()))
    assert again.best == 2 and again.weights["w"] == 2 and again.is_over


def test_weights_of_classes(tmp_path: Path) -> None:
    task = custom_task(
        name="t", kind="classification", labels=["a", "b"], text_columns=["x"], label_column="y", splits=["train"]
    )
    labels = np.array([0, 0, 0, 1])
    assert class_weights("balanced", task, labels, ("a", "b")) == (4 / 6, 2.0)
    assert class_weights("balanced", task, labels, ("b", "a")) == (4 / 6, 2.0)
    file = tmp_path / "w.json"
    file.write_text('{"b": 3, "a": 1}')
    found = class_weights(str(file), task, labels, ("a", "b"))
    assert found == pytest.approx((2 / 3, 2)) and np.array(found)[labels].mean() == pytest.approx(1)
    for text, said in (('{"a": 1}', "a weight for each of"), ('{"a": 1, "b": 0}', "above 0"), ("[1]", "a weight for each")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            class_weights(str(file), task, labels, ("a", "b"))


def test_scores_of_several_labels() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]], bool)
    predicted = np.array([[1, 0], [1, 0], [0, 1]], bool)
    found = scores((Metric.MICRO_F1, Metric.MACRO_F1, Metric.ACCURACY), labels, predicted)
    assert found == pytest.approx({"micro_f1": 4 / 6, "macro_f1": 0.5, "accuracy": 1 / 3})


def test_windows_cover_a_long_text_and_their_logits_are_averaged(model: Path, tmp_path: Path) -> None:
    """Each word of a long text is in a window, neighbours share the overlap, and a prediction is the mean of its windows."""
    checkpoint = load_model(str(model))
    long, short = " ".join(f"w{i}" for i in range(50)), "a dog"
    examples = Examples(texts=([long, short],), labels=None, origin="x", line_numbers=[1, 2])
    tokens = tokenize(examples, checkpoint.tokenizer_json, 12, window_overlap=4)
    again = tokenize(examples, checkpoint.tokenizer_json, 12, window_overlap=4)  # from the cache
    np.testing.assert_array_equal(tokens.source, again.source)
    assert tokens.truncated == 0 and tokens.source.tolist() == [0] * 8 + [1]
    windows = [tokens.input_ids[a:b].tolist()[1:-1] for a, b in itertools.pairwise(tokens.offsets)]
    assert all(one[-4:] == other[:4] for one, other in itertools.pairwise(windows[:8]))
    read = [*windows[0], *(word for window in windows[1:8] for word in window[4:])]
    assert len(read) == len(set(read)) == 50
    with pytest.raises(ConfigError, match="window_overlap is 10"):
        tokenize(examples, checkpoint.tokenizer_json, 12, window_overlap=10)
    pairs = Examples(texts=([long], [short]), labels=None, origin="x", line_numbers=[1])
    with pytest.raises(ConfigError, match="single texts"):
        tokenize(pairs, checkpoint.tokenizer_json, 12, window_overlap=4)


def test_a_run_on_windows_scores_texts_and_not_windows(model: Path, tmp_path: Path) -> None:
    """The word that determines the label is beyond `max_length`: truncated texts cannot be told apart, windows can."""
    with open(tmp_path / "long.csv", "w") as csv:
        csv.write("text,label\n")
        csv.writelines(f"{'the cat ' * 14}{'good' if i % 2 else 'bad'},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    flags = {"max_length": 20, "learning_rate": 2e-3, "epochs": 6, "dropout": 0.0}
    cut = run(tmp_path / "long.csv", model, **flags)
    assert cut.result.truncated_share == 1 and cut.result.metrics["accuracy"] == 0.5
    read = run(tmp_path / "long.csv", model, long_texts="windows", **flags)
    assert read.result.truncated_share == 0 and read.result.examples == {"train": 54, "dev": 6}
    assert read.result.metrics["accuracy"] == 1
    assert len(read.scored[0].outputs) == 6
    write_run(read, tmp_path / "run", overwrite=False)
    done = isinglass("predict", "run", "--input", "long.csv", cwd=tmp_path)
    assert len(done.out.splitlines()) == 61, done.err


def test_a_smaller_training_set_is_drawn_once_and_said(files: Path, model: Path) -> None:
    one = run(files / "reviews.csv", model, max_train_examples=20, epochs=1, seed=1)
    other = run(files / "reviews.csv", model, max_train_examples=20, epochs=1, seed=2)
    assert one.result.examples["train"] == 20
    assert any("20 of 72 rows of train are used" in note for note in one.result.notes)
    assert one.result.train_lengths == other.result.train_lengths, "the seed of training does not change the rows"


def test_a_task_file_from_a_stranger_is_judged(files: Path, model: Path, tmp_path: Path) -> None:
    write_run(run(files / "reviews.csv", model, epochs=1), tmp_path / "run", overwrite=False)
    path = tmp_path / "run" / "model" / "task.json"
    good = json.loads(path.read_text())
    changes: list[dict[str, object]] = [
        {"labels": ["=cmd()", "b"]},
        {"labels": ["a\x1b[2J", "b"]},
        {"labels": ["a", "a"]},
        {"labels": None},
        {"kind": "code"},
        {"splits": ["train", "../dev"]},
        {"text_columns": []},
        {"format": 99},
        {"name": 7},
    ]
    for change in changes:
        path.write_text(json.dumps(good | change))
        with pytest.raises(DataError):
            load_run(tmp_path / "run")
    path.write_text(json.dumps(good))
    assert load_run(tmp_path / "run").task.labels == ("no", "yes")


def test_a_model_from_elsewhere_is_exported_and_predicts_without_its_data(files: Path, model: Path, tmp_path: Path) -> None:
    write_run(run(files / "reviews.csv", model, epochs=1), tmp_path / "run", overwrite=False)
    (tmp_path / "run" / "model").rename(tmp_path / "downloaded")
    done = isinglass("export", "downloaded", cwd=tmp_path)
    assert done.status == 0 and (tmp_path / "downloaded-onnx" / "model.onnx").is_file()
    assert "Not compared" in done.err and "its files are not named here" in done.err
    (tmp_path / "new.txt").write_text("a good dog\n")
    assert isinglass("predict", "downloaded", "--input", "new.txt", cwd=tmp_path).out.count("\n") == 2
    assert isinglass("evaluate", "downloaded", cwd=tmp_path).status == 2
