"""The card of a model: the README.md that the hub shows, made of what a run recorded and of nothing else.

`card.md.jinja` is its text. What comes from data, files or names is a stranger's: it stands in the card as text, never as
Markdown, HTML or YAML. The user's directories do not stand in it at all.
"""

import dataclasses
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

from isinglass.baselines import MEANINGS, sentences, title_of
from isinglass.config import PLACES, TrainConfig
from isinglass.errors import ConfigError
from isinglass.metrics import Metric
from isinglass.models.source import DEMO as DEMO_MODEL
from isinglass.names import brief, duration, printable, short_name, shortened
from isinglass.results import CLOCK, RunResult
from isinglass.tables import Table, escaped
from isinglass.tasks import TASKS, Task
from isinglass.tasks.glue import GLUE, HUB_REPO
from isinglass.tasks.kinds import EVEN

CARD: Final = "README.md"
DEMO_SOURCE: Final = "sentence-transformers/all-MiniLM-L6-v2"  # what `demo` is, and its license there
DEMO_LICENSE: Final = "apache-2.0"
SOMEONE: Final = "USER/NAME"  # stands for a repository whose name is not known yet
MOST_LABELS: Final = 100
LONGEST_TEXT: Final = 500  # characters of a label, a name or a note
# settings that are always shown; of the others, those that are not at their defaults
SETTINGS: Final[tuple[str, ...]] = (
    "epochs",
    "batch_size",
    "learning_rate",
    "schedule",
    "warmup_ratio",
    "weight_decay",
    "max_length",
)

# from the first slash of an absolute path to the last one; `and/or`, `USER/NAME` and `https://` are no such path
_DIRECTORIES: Final = re.compile(r"""(?<![\w:/.~])(?:~[\w.-]*|\.{1,2})?/(?=\S)(?:[^:'"()\n]*/)?""")
_ON_HUB: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


class _Base(NamedTuple):
    """What a run began with: its name as a reader sees it; its name on the hub and its commit, where it came from there."""

    shown: str
    on_hub: str | None = None
    commit: str | None = None


def model_card(
    result: RunResult,
    task: Task,
    label_names: Sequence[str] | None,
    *,
    license: str | None = None,  # noqa: A002  # as the hub calls it
    repo: str = SOMEONE,
) -> str:
    """Return a model's README.md: the hub's metadata, then what the model does, how well, and how it was trained.

    Args:
        label_names: in the order of the model's outputs; None for regression.
        license: an identifier of the hub's. None: none is named, but for `demo`, whose license is known.
        repo: the model's own name on the hub, for the commands that use it.

    Raises:
        ConfigError: `license` has not the form of an identifier.
    """
    import jinja2

    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
        raise ConfigError(
            f"The license is {brief(license)}; an identifier that the hub knows (apache-2.0, mit) was expected."
        )
    base = _base(result.model, result.model_commit)
    license_id = license or (DEMO_LICENSE if result.model == DEMO_MODEL else None)
    environment = jinja2.Environment(  # noqa: S701  # Markdown: the filter `text` escapes
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {"text": partial(escaped, longest=LONGEST_TEXT), "paragraph": _one_line, "title": _title}
    return environment.get_template("card.md.jinja").render(
        result=result,
        task=task,
        base=base,
        repo=repo,
        folder=short_name(repo),
        duration=duration(result.train_seconds),
        metadata=_metadata(result, task, base, license_id, repo),
        beside=tuple(map(title_of, result.baselines)),
        baseline_scores=partial(_baseline_scores, result),
        meanings_of_baselines={name: MEANINGS.get(name) for name in result.baselines},
        verdicts=[*sentences(result.baselines)],
        columns=task.column_names,
        target=task.kind.target(label_names or (), task.score_range),
        tasks=TASKS,
        max_length=int(result.config.get("max_length", TrainConfig.max_length)),
        default_length=TrainConfig.max_length,
        is_built_in=_is_built_in(task),
        is_glue=task in GLUE,
        is_published=_is_published(result, task),
        label_names=label_names,
        meanings=dict(zip(task.labels or (), task.label_words or (), strict=False)),
        most_labels=MOST_LABELS,
        lengths=_lengths(result.train_lengths),
        notes=[_without_directories(note, result) for note in dict.fromkeys(result.notes) if note != task.warning],
        settings=_settings(result),
        threshold=result.threshold or EVEN,
        table=_table,
        clock=CLOCK,
    )


def _base(base_model: str, commit: str | None) -> _Base:
    """Return what a run began with. A directory may be called as a model on the hub is: only a commit tells them apart."""
    if base_model == DEMO_MODEL:
        return _Base(short_name(DEMO_SOURCE), DEMO_SOURCE)
    name = base_model.partition("@")[0]
    if commit is not None and _ON_HUB.fullmatch(name) and commit.isalnum():
        return _Base(name, name, commit)
    return _Base(short_name(base_model))


def _is_built_in(task: Task) -> bool:
    """Tell whether the task is one of GLUE's or the embedded one, which are known by name and English."""
    return TASKS.get(task.name) == task


def _is_published(result: RunResult, task: Task) -> bool:
    """Tell whether the scored sets have the sizes of GLUE's: other rows under its name are not GLUE."""
    return task in GLUE and all(result.examples.get(split) == task.split(split).rows for split in result.scores)


def _metadata(result: RunResult, task: Task, base: _Base, license_id: str | None, repo: str) -> str:
    """Return the YAML that the hub reads: of the scores, those that are numbers."""
    from huggingface_hub import EvalResult, ModelCardData

    published = _is_published(result, task)
    tags = ["isinglass", "glue"] if published else ["isinglass"]
    datasets = [HUB_REPO] if published else [result.dataset.repo] if result.dataset else None
    scores = [
        EvalResult(
            task_type="text-classification",
            **_scored_on(result, task),
            dataset_split=task.split(split).hub_split if published else printable(split),
            metric_type=metric.hub_type,
            metric_name=_title(metric),
            metric_value=score.value,
            metric_args={"average": metric.average} if metric.average else None,
        )
        for split, metric, score in result.each_score()
        if score.value is not None
    ]
    name = f"{short_name(base.shown)}-{task.name}" if repo == SOMEONE else short_name(repo)
    data = ModelCardData(
        base_model=base.on_hub,
        datasets=datasets,
        eval_results=scores or None,
        language="en" if _is_built_in(task) else None,
        library_name="transformers",
        license=license_id,
        metrics=[*dict.fromkeys(score.metric_type for score in scores)] or None,
        model_name=printable(name) if scores else None,
        pipeline_tag="text-classification",
        tags=tags,
    )
    return data.to_yaml()


def _baseline_scores(result: RunResult, split: str, metric: Metric) -> tuple[str, ...]:
    return tuple(metric.text(each.score(split, metric)) for each in result.baselines.values())


def _scored_on(result: RunResult, task: Task) -> dict[str, Any]:
    """Return what the hub's metadata say of the data that a score is of."""
    if _is_published(result, task):
        return {"dataset_type": HUB_REPO, "dataset_name": f"GLUE {task.title}", "dataset_config": task.name}
    title, data = printable(task.title), result.dataset
    if data is None or any(result.config.get(name) for name in PLACES):  # files of the user's own
        return {"dataset_type": printable(task.name), "dataset_name": title}
    values = {"type": data.repo, "config": data.subset, "revision": data.commit}
    return {"dataset_name": title} | {f"dataset_{name}": printable(value) for name, value in values.items()}


def _title(metric: Metric) -> str:
    return f"{metric.full_name} (lower is better)" if metric.lower_is_better else metric.full_name


def _settings(result: RunResult) -> list[tuple[str, str]]:
    """Return names and values of the settings that the result has no field for, but for those that say where data lie."""
    elsewhere = {*PLACES, *(field.name for field in dataclasses.fields(RunResult))}
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    config = {name: value for name, value in result.config.items() if name not in elsewhere}
    shown = [name for name in SETTINGS if name in config]
    shown += [name for name, value in config.items() if name not in SETTINGS and value != defaults.get(name)]
    return [(name.replace("_", " "), _plain(config[name])) for name in shown]


def _plain(value: Any) -> str:
    """Return a setting's value as text; of a path, the name of the file."""
    return ", ".join(short_name(item) for item in value) if isinstance(value, list | tuple) else short_name(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, without its last column where no row has anything in it."""
    width = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    cut = tuple(tuple(shortened(cell, LONGEST_TEXT) for cell in row[:width]) for row in rows)
    return Table(columns=tuple(columns[:width]), rows=cut).to_markdown()


def _lengths(counts: Sequence[int]) -> tuple[int, int, int] | None:
    """Return the least, the largest and the median number of tokens; None if there is no text.

    Args:
        counts: number of training texts with 0, 1, 2, ... tokens.
    """
    totals = [*accumulate(counts)]
    if not totals or not totals[-1]:
        return None
    return (bisect_right(totals, 0), bisect_left(totals, totals[-1]), bisect_left(totals, totals[-1] / 2))


def _without_directories(note: str, result: RunResult) -> str:
    """Return a note in which every path is replaced by the name of its file."""
    model = () if result.model_commit else (result.model,)  # a name on the hub is no path
    places = [*model, *(result.config.get(name) for name in (*PLACES, "class_weights"))]
    paths = [path for place in places for path in (place if isinstance(place, list) else [place]) if isinstance(path, str)]
    for parent in sorted({str(Path(path).parent) for path in paths}, key=len, reverse=True):
        if parent != ".":
            note = note.replace(parent.rstrip(os.sep) + os.sep, "")
    return _DIRECTORIES.sub("", note)


def _one_line(paragraph: str) -> str:
    return " ".join(filter(None, (line.strip(" ") for line in paragraph.split("\n"))))
