"""Score an exported model on the dev sets, beside the model that it was made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isinglass.data import open_data
from isinglass.export.onnx import Exported
from isinglass.export.onnx_runtime import onnx_outputs
from isinglass.metrics import Metric
from isinglass.results import Score
from isinglass.runs.finished import FinishedModel
from isinglass.training.observers import Observers
from isinglass.training.scoring import Scored, score
from isinglass.training.trainer import evaluate


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One exported file on one dev set.

    Attributes:
        file: its name; `model` for the model that was exported.
        difference: the largest absolute difference between its probabilities (in regression: values) and the model's.
        agreement: share of predictions that are the model's (in regression: NaN).
    """

    file: str
    split: str
    examples: int
    scores: dict[Metric, Score]
    difference: float
    agreement: float


def compare(model: FinishedModel, exported: Exported, observers: Observers = ()) -> list[Compared]:
    """Score each exported file on the dev sets of the model's task, after the model itself.

    Raises:
        IsinglassError: the data cannot be read any more, or as `evaluate`.
    """
    data = open_data(model.config, model.task)
    _, dev_sets = evaluate(model.config, model.checkpoint, None, observers, data=data)
    files = [path for path in exported.files if path.suffix == ".onnx"]
    return [compared for scored in dev_sets for compared in _compare_on(model, scored, files)]


def _compare_on(model: FinishedModel, scored: Scored, files: list[Path]) -> Iterator[Compared]:
    """Compare the model's own outputs and those of each file on one dev set."""
    task, tokens = model.task, scored.split.tokens
    expected = task.kind.probabilities(scored.outputs)
    outputs_of = {"model": scored.outputs}
    for path in files:
        outputs_of[path.name] = tokens.per_text(onnx_outputs(path, tokens, model.checkpoint.blueprint.pad_token_id))
    for file, outputs in outputs_of.items():
        yield Compared(
            file=file,
            split=scored.split.name,
            examples=len(outputs),
            scores=score(task, replace(scored, outputs=outputs)).by_metric,
            difference=float(np.abs(task.kind.probabilities(outputs) - expected).max()),
            agreement=task.kind.agreement(scored.outputs, outputs),
        )
