"""The files of a bench: its tasks, and the answers that a run gave to a labelled split, beside the texts and the labels."""

import csv
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from isinglass.data.examples import Examples, encode_labels
from isinglass.data.files import LONGEST_VALUE
from isinglass.errors import DataError
from isinglass.models.files import read_json
from isinglass.names import brief, printable, shortened
from isinglass.results import RunResult, file_below, run_key
from isinglass.statistics import Answers
from isinglass.tasks import MULTILABEL, TASKS, Labels, Task, custom, get_task

PROBABILITY: Final = "probability:"
ABOUT_EXAMPLES: Final = ("label", "file", "row", "text", "text2")  # columns that are not read here
_QUOTING: Final = (csv.QUOTE_NONE, csv.QUOTE_MINIMAL)
NAME: Final = re.compile(r"[a-z0-9_-]{1,60}")


def tasks_of(directory: Path, names: Iterable[str]) -> Mapping[str, Task]:
    """Return the published tasks by name, followed by the user's own among `names`, as `directory` describes them.

    Raises:
        ConfigError: there is no such task.
        DataError, CheckpointError: a description is damaged, or lies elsewhere.
    """
    return {**TASKS, **{name: _task(directory, name) for name in dict.fromkeys(names)}}


def _task(directory: Path, name: str) -> Task:
    if name not in TASKS and NAME.fullmatch(name):  # it may come from a stranger
        path = file_below(directory, f"tasks/{name}.json")
        if path.is_file():
            task = custom.from_json(read_json(path, limit=custom.MOST_BYTES), str(path))
            if task.name != name:
                raise DataError(f"{path}: name is {brief(task.name)}; {name!r} was expected.")
            return task
    return get_task(name)


class Reader:
    """Reads the predictions of each run of a bench once, and the examples of a split once for all runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._examples = functools.cache(functools.partial(_read_examples, directory))
        self._answers: dict[str, Answers] = {}

    def __call__(self, result: RunResult, split: str) -> Answers:
        """Join a run's predictions of a split with the split's texts and labels.

        Raises:
            ConfigError: there is no such task or split.
            DataError: a file is missing or damaged, the two do not have the same number of rows, a label is unknown, or the
                result names a file outside of the directory.
        """
        key = run_key(result.config, result.start_from) + split
        if key in self._answers:
            return self._answers[key]
        task, examples, texts, truth = self._examples(result.task, split)
        if split not in result.predictions:
            run = f"the result of {result.task}, seed {result.seed}"
            raise DataError(f"{self._directory}: {run}, names no predictions of {split}.")
        path = file_below(self._directory, result.predictions[split])
        predicted, chances = _read_predictions(path, task)
        if len(predicted) != len(texts):
            raise DataError(f"{path} answers {len(predicted)} examples; {examples} holds {len(texts)}.")
        labels = task.labels
        positive = labels.index(task.positive_label) if labels and task.positive_label in labels else 0
        answers = Answers(
            labels=labels, truth=truth, predicted=predicted, probabilities=chances, texts=texts, positive=positive
        )
        return self._answers.setdefault(key, answers)


def _read_examples(directory: Path, task_name: str, split: str) -> tuple[Task, Path, list[tuple[str, ...]], Labels]:
    """Return the task, the file of the split's examples, their texts, and their encoded labels."""
    task = tasks_of(directory, [task_name])[task_name]
    path = directory / "examples" / f"{task.name}-{task.split(split).name}.jsonl"
    texts, labels = [], list[Any]()
    for number, line in enumerate(_lines(path), start=1):
        try:
            example = json.loads(line)
            texts.append(tuple(map(str, example["texts"])))
            labels.append(tuple(map(str, example["label"])) if task.kind is MULTILABEL else str(example["label"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DataError(f'{path}, line {number}: {{"texts": [...], "label": "..."}} was expected.') from None
    return task, path, texts, _encoded(labels, path, range(1, len(labels) + 1), task)


def _read_predictions(path: Path, task: Task) -> tuple[Labels, Float64[np.ndarray, "N C"] | None]:
    """Return the encoded predictions, and the probabilities in the order of the task's labels."""
    names = [PROBABILITY + name for name in task.labels or ()]
    (_, header), *rows = _read_rows(path)
    probabilities = [name for name in header[2:] if name not in ABOUT_EXAMPLES]
    if header[:2] != ["index", "prediction"] or sorted(probabilities) != sorted(names):
        expected = ", ".join(["index", "prediction", *names])
        found = shortened(printable(", ".join(header)), 200)
        raise DataError(f"{path}, line 1: the columns are {found}; {expected} were expected.")
    order = [header.index(name) for name in names] or [1]
    numbers = np.empty((len(rows), len(order)))
    for i, (line, row) in enumerate(rows):
        if len(row) != len(header) or row[0] != str(i):
            raise DataError(f"{path}, line {line}: {len(header)} fields, the first of them {i}, were expected.")
        numbers[i] = [_number(row[column], path, line) for column in order]
    if task.labels is None:
        return numbers[:, 0].astype(np.float32), None
    return _encoded([task.kind.parse(row[1]) for _, row in rows], path, [line for line, _ in rows], task), numbers


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the fields of each row, and the line that it ends in. Files without texts, as of 0.1.0, quote nothing."""
    lines = _lines(path)
    has_texts = "text" in lines[0].split("\t")
    rows = csv.reader((line + "\n" for line in lines), "excel-tab", quoting=_QUOTING[has_texts])
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))
    try:
        return [(rows.line_num, fields) for fields in rows]
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: it cannot be read as TSV ({error}).") from None


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


def _encoded(names: list[Any], path: Path, lines: Sequence[int], task: Task) -> Labels:
    return encode_labels(Examples(texts=([],), labels=names, origin=str(path), line_numbers=lines), task, task.labels)


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{path}, line {line}: {brief(text)} is not a number.") from None
