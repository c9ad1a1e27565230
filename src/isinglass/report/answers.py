"""The answers that one run gave to one labelled split, beside the texts and the labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

from isinglass.data.examples import Examples, encode_labels
from isinglass.errors import DataError
from isinglass.names import brief, printable, shortened
from isinglass.report.own_tasks import known_task, tasks_of
from isinglass.results import RunResult, file_below
from isinglass.tasks import MULTILABEL, Labels, Task

PROBABILITY: Final = "probability:"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """N examples and what one run answered, in the order of their file.

    Attributes:
        labels: the task's C label names, in its own order whatever that of the model's outputs; None for regression.
        truth, predicted: int64 (N,), positions in `labels`; float32 (N,) for regression; float32 (N, C) of 0 and 1 where
            an example has any number of labels.
        probabilities: float64 (N, C), columns in the order of `labels`; None for regression.
        texts: one text, or two, of each example.
        positive: the position of the label that F1 counts.
    """

    labels: tuple[str, ...] | None
    truth: Labels
    predicted: Labels
    probabilities: Float64[np.ndarray, "N C"] | None
    texts: list[tuple[str, ...]]
    positive: int = 1

    @property
    def is_right(self) -> Bool[np.ndarray, " N"]:
        """Whether each answer is that of the file, of several labels the whole set."""
        same = np.asarray(self.predicted == self.truth)
        return same if same.ndim == 1 else np.asarray(same.all(1))


def read_answers(directory: Path, result: RunResult, split: str) -> Answers:
    """Join a run's predictions of a split with the split's texts and labels.

    Args:
        directory: that holds the result: see `isinglass.results`.

    Raises:
        ConfigError: there is no such task or split.
        DataError: a file is missing or damaged, the two do not have the same number of rows, a label is unknown, or the
            result names a file outside of `directory`.
    """
    task = known_task(result.task, tasks_of(directory, [result.task]))
    examples = directory / "examples" / f"{task.name}-{task.split(split).name}.jsonl"
    predictions = _predictions_file(directory, result, split)
    texts, names = _read_examples(examples, task)
    answers, probabilities = _read_predictions(predictions, task)
    if len(answers) != len(texts):
        raise DataError(f"{predictions} answers {len(answers)} examples; {examples} holds {len(texts)}.")
    known = task.labels or ()
    return Answers(
        labels=task.labels,
        truth=_encoded(names, examples, 1, task),
        predicted=_values(answers, predictions) if task.labels is None else _encoded(answers, predictions, 2, task),
        probabilities=probabilities,
        texts=texts,
        positive=known.index(task.positive_label) if task.positive_label in known else 0,
    )


def _predictions_file(directory: Path, result: RunResult, split: str) -> Path:
    """Return the file, which must lie in `directory` because a result may come from a stranger."""
    named = result.predictions.get(split)
    if named is None:
        raise DataError(f"{directory}: the result of {result.task}, seed {result.seed}, names no predictions of {split}.")
    return file_below(directory, named)


def _lines(path: Path) -> list[str]:
    """Return the file's lines, which only a line feed ends."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: it is not UTF-8.") from None
    return text.removesuffix("\n").split("\n")


def _read_examples(path: Path, task: Task) -> tuple[list[tuple[str, ...]], list[Any]]:
    """Return texts and label, or labels, of each line."""
    texts, labels = [], list[Any]()
    for number, line in enumerate(_lines(path), start=1):
        try:
            example = json.loads(line)
            texts.append(tuple(map(str, example["texts"])))
            labels.append(tuple(map(str, example["label"])) if task.kind is MULTILABEL else str(example["label"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DataError(f'{path}, line {number}: {{"texts": [...], "label": "..."}} was expected.') from None
    return texts, labels


def _read_predictions(path: Path, task: Task) -> tuple[list[Any], Float64[np.ndarray, "N C"] | None]:
    """Return the predicted labels, and the probabilities in the order of the task's labels."""
    names = [PROBABILITY + name for name in task.labels or ()]
    header, *rows = [line.split("\t") for line in _lines(path)]
    if header[:2] != ["index", "prediction"] or sorted(header[2:]) != sorted(names):
        expected = ", ".join(["index", "prediction", *names])
        found = shortened(printable(", ".join(header)), 200)
        raise DataError(f"{path}, line 1: the columns are {found}; {expected} were expected.")
    for i, row in enumerate(rows):
        if len(row) != len(header) or row[0] != str(i):
            raise DataError(f"{path}, line {i + 2}: {len(header)} fields, the first of them {i}, were expected.")
    answers = [task.kind.parse(row[1]) for row in rows]
    if task.labels is None:
        return answers, None
    order = [header.index(name) for name in names]
    chances = [[_number(row[column], path, line) for column in order] for line, row in enumerate(rows, start=2)]
    return answers, np.array(chances, np.float64).reshape(-1, len(names))


def _encoded(names: list[Any], path: Path, first_line: int, task: Task) -> Labels:
    lines = range(first_line, first_line + len(names))
    return encode_labels(Examples(texts=([],), labels=names, origin=str(path), line_numbers=lines), task, task.labels)


def _values(answers: list[str], path: Path) -> Float32[np.ndarray, " N"]:
    return np.array([_number(answer, path, line) for line, answer in enumerate(answers, start=2)], np.float32)


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}, line {line}: {brief(text)} is not a number.") from None
