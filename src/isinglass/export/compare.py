"""What an exported model answers on the dev set, beside the model that it was made of."""

from dataclasses import dataclass, replace

import numpy as np

from isinglass.data import open_data
from isinglass.export.onnx import Exported, onnx_outputs
from isinglass.metrics import Scores
from isinglass.runs.finished import FinishedModel
from isinglass.training.observers import Observers
from isinglass.training.prediction import probabilities
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
    scores: Scores
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
        first = one.outputs if task.is_regression else probabilities(one.outputs, task)
        for file, outputs in answers.items():
            chances = outputs if task.is_regression else probabilities(outputs, task)
            same = (chances > 0.5) == (first > 0.5) if task.is_multilabel else chances.argmax(1) == first.argmax(1)
            found.append(
                Compared(
                    file=file,
                    split=one.split.name,
                    examples=len(outputs),
                    scores=score(task, replace(one, outputs=outputs))[0],
                    difference=float(np.abs(chances - first).max()),
                    agreement=float("nan") if task.is_regression else float(np.mean(same)),
                )
            )
    return found
