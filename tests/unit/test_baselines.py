"""The simple models beside a run: what they learn, how the run is compared with them, and what is said."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isinglass.baselines import FROZEN, TFIDF, Baseline, Gain, verdicts
from isinglass.config import resolve
from isinglass.report.bench import Bench
from isinglass.report.sections import make_report
from isinglass.results import RunResult, append_record
from isinglass.runs.perform import Saving, perform
from tests.sample_bench import sample_result
from tests.tiny import save_tiny

ANIMALS, PLACES = ("cat", "dog"), ("house", "river")


def write_table(path: Path, rows: int, kind: str, seed: int) -> Path:
    """Write texts of which one word tells the label; `second` is a copy of the text where the pair is alike."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        animal, place = [(0, 1), (1, 0), (1, 1)][rng.integers(3)]
        text = f"the {ANIMALS[rng.integers(2)] if animal else 'rain'} in {PLACES[rng.integers(2)] if place else 'snow'}"
        label = {
            "classes": "animal" if animal else "none",
            "numbers": f"{animal + 2 * place}.5",
            "sets": "|".join(name for name, has in (("animal", animal), ("place", place)) if has),
            "one": "animal",
        }[kind]
        lines.append({"text": text, "label": label.split("|") if kind == "sets" else label})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def run_of(tmp_path: Path, kind: str, **settings: object):
    flags = {
        "train_file": [str(write_table(tmp_path / "train.jsonl", 60, kind, 0))],
        "validation_file": [str(write_table(tmp_path / "dev.jsonl", 30, kind, 1))],
        "model": str(save_tiny(tmp_path / "model")),
        "max_length": 32,
        "epochs": 1,
        "baselines": True,
    }
    return perform(resolve(task="texts", flags={**flags, **settings}), tmp_path / "run")


@pytest.mark.parametrize(("kind", "metric"), [("classes", "accuracy"), ("numbers", "pearson"), ("sets", "micro_f1")])
def test_both_baselines_learn_what_one_word_tells(tmp_path: Path, kind: str, metric: str) -> None:
    result = run_of(tmp_path, kind).result
    assert [*result.baselines] == [TFIDF, FROZEN]
    assert result.baselines[TFIDF].metrics["dev"][metric] > 0.95
    assert result.baselines[FROZEN].metrics["dev"][metric] > 0.5, "a random encoder still tells words apart"
    for baseline in result.baselines.values():
        gain, own = baseline.differences["dev"], result.scores["dev"][metric].value
        assert gain.metric == metric and baseline.seconds > 0
        if own is not None:
            assert gain.mean == pytest.approx(own - baseline.metrics["dev"][metric])
            assert gain.low <= gain.mean <= gain.high and 0 <= gain.p_value <= 1
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "frozen encoder" in card and "TF-IDF" in card
    assert RunResult.read(tmp_path / "run" / "result.json") == replace(result), "they are saved and read again"


def test_a_finished_run_keeps_its_baselines_and_resumes_without_the_setting(tmp_path: Path) -> None:
    run = run_of(tmp_path, "classes")
    config = resolve(task="texts", flags={k: v for k, v in run.result.config.items() if k not in ("task", "baselines")})
    again = perform(config, tmp_path / "run", saving=Saving(resume=True))
    assert again.trained is None and again.result.baselines == run.result.baselines


def test_none_are_trained_where_they_are_not_asked_for(tmp_path: Path) -> None:
    assert run_of(tmp_path, "classes", baselines=None).result.baselines == {}


def test_the_frozen_encoder_has_the_mean_of_windows(tmp_path: Path) -> None:
    result = run_of(tmp_path, "classes", max_length=6, long_texts="windows", window_overlap=1).result
    assert result.baselines[FROZEN].metrics["dev"]["accuracy"] > 0.5


def baseline(
    mean: float | None, low: float | None, high: float | None, p: float | None, metric: str = "accuracy"
) -> Baseline:
    gain = Gain(metric=metric, mean=mean, low=low, high=high, p_value=p, test="exact McNemar test")
    return Baseline(metrics={}, seconds=2.0, settings={}, differences={"dev": replace(gain, mean=9.0), "test": gain})


@pytest.mark.parametrize(
    ("found", "first"),
    [
        (
            baseline(0.073, 0.059, 0.087, 1e-9),
            "Better than TF-IDF by 7.3 points (95 % 5.9 to 8.7) on test, Accuracy; it took 2.0 s.",
        ),
        (
            baseline(-0.073, -0.087, -0.059, 1e-9),
            "Worse than TF-IDF by 7.3 points (95 % 5.9 to 8.7) on test, Accuracy; it took 2.0 s.",
        ),
        (
            baseline(0.003, -0.006, 0.012, 0.5),
            "No clear difference from TF-IDF: 0.3 points (95 % -0.6 to 1.2) on test, Accuracy; it took 2.0 s.",
        ),
        (
            baseline(-0.25, -0.5, -0.125, 0.01, "rmse"),
            "Better than TF-IDF by 0.25 (95 % 0.125 to 0.5) on test, RMSE; it took 2.0 s.",
        ),
        (
            baseline(None, None, None, None),
            "Not comparable with TF-IDF, because a score is not defined: on test, Accuracy; it took 2.0 s.",
        ),
    ],
)
def test_a_sentence_says_how_much_better_the_run_is(found: Baseline, first: str) -> None:
    sentence, *advice = verdicts({TFIDF: found})
    assert sentence == first
    assert bool(advice) != first.startswith("Better"), "what to do stands where the run is not better"


def test_the_report_has_a_table_of_the_baselines(tmp_path: Path) -> None:
    gain = Gain(metric="accuracy", mean=0.073, low=0.059, high=0.087, p_value=1e-9, test="exact McNemar test")
    found = Baseline(metrics={"dev": {"accuracy": 0.527}}, seconds=2.0, settings={"C": 1.0}, differences={"dev": gain})
    append_record(tmp_path, sample_result("rte", baselines={TFIDF: found}))
    table = "".join(make_report(Bench(tmp_path), with_published=False).written_as("report.md").split("Simple models")[1:])
    for cell in ("TF-IDF", "52.70", "+7.30 (95 % +5.90 to +8.70), p < 0.001", "2.0"):
        assert cell in table.replace("&#60;", "<")
