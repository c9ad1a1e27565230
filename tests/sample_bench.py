"""Write a directory like that of `isinglass bench`, with random predictions, to test its readers."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isinglass.config import as_dict, resolve
from isinglass.metrics import Metric, scores
from isinglass.results import RunResult, Score, Scores, append_record
from isinglass.runs.predictions import prediction_columns, write_predictions
from isinglass.tasks import TASKS


def scores_of(metrics: dict, majority: dict, splits: Sequence[str] = ("dev",)) -> Scores:
    """Return scores from two mappings: metric -> value of one split, or split -> metric -> value."""
    metrics, majority = (
        side if isinstance(next(iter(side.values())), dict) else {splits[0]: side} for side in (metrics, majority)
    )
    return {
        split: {Metric(name): Score(value, majority.get(split, {}).get(name)) for name, value in found.items()}
        for split, found in metrics.items()
    }


def with_scores(result: RunResult, *, metrics: dict | None = None, majority: dict | None = None) -> RunResult:
    """Return the result with other scores or baselines."""
    scores = scores_of(metrics or result.metrics, majority or result.majority, [*result.scores])
    return dataclasses.replace(result, scores=scores)


def sample_result(task: str = "rte", **changes: object) -> RunResult:
    """Return a plausible result; settings (`seed`, `precision`, `backend`, ...) are also put into `config`."""
    described = TASKS[task]
    settings = {
        name: changes.pop(name) for name in ("seed", "precision", "backend", "model", "xla", "compile") if name in changes
    }
    config = resolve(task=task, flags={"seed": 1, "model": "demo", **settings})
    splits = [changes.pop("split")] if "split" in changes else [split.name for split in described.dev]
    baselines = described.dev_majority or ([None] * len(described.metrics),)
    metrics = changes.pop("metrics", {split: dict.fromkeys(described.metrics, 0.6) for split in splits})
    majority = changes.pop(
        "majority", {split: dict(zip(described.metrics, found)) for split, found in zip(splits, baselines)}
    )
    values: dict[str, object] = {
        "task": task,
        "backend": config.backend,
        "precision": "bf16" if config.precision == "amp" else config.precision,
        "compile": config.compile,
        "xla": config.xla,
        "model": config.model,
        "seed": config.seed,
        "recipe": config.recipe,
        "scores": scores_of(metrics, majority, splits),
        "collapsed": False,
        "examples": {split.name: 40 for split in (described.train, *described.dev)},
        "train_seconds": 60.5,
        "epoch_seconds": [20.5, 20.0, 20.0],
        "compile_seconds": 0.0,
        "compilations": 0,
        "evaluation_seconds": 2.0,
        "examples_per_second": 30.0,
        "tokens_per_second": 1600.0,
        "truncated_share": 0.01,
        "padding_avoided": 0.55,
        "train_lengths": [0] * 20 + [5, 10, 15, 8, 2],
        "peak_memory_bytes": 2**30,
        "device": "CPU: a test, 2 threads",
        "versions": {"python": "3.11.0", "isinglass": "0.1.0", "torch": "2.13.0"},
        "git_commit": "0" * 40,
        "config": as_dict(config),
        "start_from": None,
        "predictions": {},
        "notes": [],
    }
    return RunResult(**{**values, **changes})


def write_sample_run(
    directory: Path, task: str = "rte", *, skill: float = 0.5, rows: int = 40, **changes: object
) -> RunResult:
    """Append a run with random predictions, of which a share `skill` is right; dev and test sets have `rows` rows."""
    described = TASKS[task]
    result = sample_result(task, **changes)
    name = f"{task}-{result.backend}-{result.precision}-seed{result.seed}"
    folder = directory / "runs" / name
    (directory / "examples").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    data, rng = np.random.default_rng(0), np.random.default_rng(result.seed + 100 * len(result.precision))
    predictions, found = {}, {}
    for split in (*described.dev, *described.test):
        texts = [[f"{column} {i} <b>&\"'" for column in described.column_names] for i in range(rows)]
        if described.labels is None:
            truth = data.uniform(0, 5, rows).astype(np.float32)
            outputs = np.where(rng.random(rows) < skill, truth, rng.uniform(0, 5, rows))[:, None].astype(np.float32)
            names = [f"{value:.3f}" for value in truth]
            positive = 0
        else:
            truth = data.integers(0, len(described.labels), rows)
            outputs = rng.normal(size=(rows, len(described.labels))).astype(np.float32)
            outputs[np.arange(rows), truth] += np.where(rng.random(rows) < skill, 5, 0)
            names = [described.labels[i] for i in truth]
            positive = described.labels.index("1") if "1" in described.labels else 0
        kind = described.kind
        values = scores(described.metrics, truth, kind.decide(outputs), positive)
        baseline = scores(described.metrics, truth, kind.constant(truth), positive)
        found[split.name] = {metric: Score.of(values[metric], baseline[metric]) for metric in described.metrics}
        if split.label_column is not None:
            lines = [{"texts": text, "label": name} for text, name in zip(texts, names, strict=True)]
            (directory / "examples" / f"{task}-{split.name}.jsonl").write_text(
                "".join(json.dumps(one) + "\n" for one in lines)
            )
        predictions[split.name] = f"runs/{name}/predictions-{split.name}.tsv"
        answers = prediction_columns(outputs, described.labels, described)
        write_predictions(answers, directory / predictions[split.name])
    steps = [{"epoch": i // 10, "step": i, "learning_rate": 2e-5 * (1 - i / 30), "loss": 0.7 - 0.01 * i} for i in range(30)]
    (folder / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    scored = [split.name for split in described.dev]
    result = dataclasses.replace(result, scores={name: found[name] for name in scored}, predictions=predictions)
    append_record(directory, result)
    return result
