"""What an exported model answers on the dev set, beside the model that it was made of."""

from dataclasses import dataclass, replace

import numpy as np

from isinglass.data import open_data
from isinglass.export.onnx import Exported, onnx_outputs
from isinglass.metrics import Metric
from isinglass.results import Score
from isinglass.runs.finished import FinishedModel
from isinglass.training.observers import Observers
from isinglass.training.scoring import score
from isinglass.training.trainer import evaluate


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One exported file on one dev set.

    Attributes:
        file: its name; `model` for what it was made of.
        difference: the largest between its probabilities (regression: values) and the model's; 0 for the model itself.
        agreement: share of examples with the model's answer (of regression: NaN).
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
        IsinglassError: the data are not there any more, say.
    """
    task = model.task
    _, scored = evaluate(model.config, model.checkpoint, None, observers, data=open_data(model.config, task))
    found = []
    for one in scored:
        tokens, answers = one.split.tokens, {"model": one.outputs}
        for path in exported.files:
            if path.suffix == ".onnx":
                found_outputs = onnx_outputs(path, tokens, model.checkpoint.blueprint.pad_token_id)
                answers[path.name] = tokens.per_text(found_outputs)
        first = task.kind.probabilities(one.outputs)
        for file, outputs in answers.items():
            found.append(
                Compared(
                    file=file,
                    split=one.split.name,
                    examples=len(outputs),
                    scores=score(task, replace(one, outputs=outputs)).by_metric,
                    difference=float(np.abs(task.kind.probabilities(outputs) - first).max()),
                    agreement=task.kind.agreement(one.outputs, outputs),
                )
            )
    return found
