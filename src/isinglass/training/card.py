"""The card of a model: the README.md that the hub shows, made of what a run recorded and of nothing else.

What comes from data, files or names is a stranger's: it stands in the card as text, never as Markdown, HTML or YAML. The
user's directories do not stand in it at all.
"""

import dataclasses
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isinglass.config import PLACES, TrainConfig
from isinglass.errors import ConfigError
from isinglass.metrics import Metric
from isinglass.models.source import DEMO as DEMO_MODEL
from isinglass.names import brief, duration, printable, short_name, shortened
from isinglass.results import CLOCK, RunResult
from isinglass.tables import Table, escaped
from isinglass.tasks import TASKS, Task
from isinglass.tasks.glue import GLUE, HUB_REPO

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

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
NOT_SETTINGS: Final = (*PLACES, "task", "model", "backend", "precision", "recipe", "seed", "compile", "xla")

# from the first slash of an absolute path to the last one; `and/or`, `USER/NAME` and `https://` are no such path
_DIRECTORIES: Final = re.compile(r"""(?<![\w:/.~])(?:~[\w.-]*|\.{1,2})?/(?=\S)(?:[^:'"()\n]*/)?""")
_ON_HUB: Final = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What a run began with: its name as a reader sees it; its name on the hub and its commit, where it came from there."""

    shown: str
    on_hub: str | None
    commit: str | None = None


def model_card(
    result: RunResult,
    task: Task,
    label_names: Sequence[str] | None,
    *,
    base_model: str,
    license: str | None,  # noqa: A002  # as the hub calls it
    repo: str = SOMEONE,
) -> str:
    """Return a model's README.md: the hub's metadata, then what the model does, how well, and how it was trained.

    Args:
        label_names: in the order of the model's outputs; None for regression.
        base_model: what the run began with: `demo`, a name on the hub, or a directory, which is not shown.
        license: an identifier of the hub's. None: none is named, but for `demo`, whose license is known.
        repo: the model's own name on the hub, for the commands that use it.

    Raises:
        ConfigError: `license` has not the form of an identifier.
    """
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
        raise ConfigError(
            f"The license is {brief(license)}; an identifier that the hub knows (apache-2.0, mit) was expected."
        )
    base = _base(base_model, result.model_commit)
    license = license or (DEMO_LICENSE if base_model == DEMO_MODEL else None)  # noqa: A001
    metadata = _metadata(result, task, base, license, repo)
    parts = [
        f"# {_escaped(base.shown)} fine-tuned on {_escaped(task.title)}",
        *(f"> **Warning:** {_escaped(warning)}" for warning in _warnings(result, task)),
        _what_it_does(result, task, base, label_names),
        "## How to use it",
        *_how_to_use(result, task, repo),
        "## Labels",
        _labels(task, label_names),
        "## Training data",
        *_training_data(result, task),
        "## Scores",
        *_scores(result, task),
        "## Training",
        *_training(result),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(result, task)),
    ]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _base(base_model: str, commit: str | None) -> _Base:
    """Return what a run began with. A directory may be called as a model on the hub is: only a commit tells them apart."""
    if base_model == DEMO_MODEL:
        return _Base(shown=short_name(DEMO_SOURCE), on_hub=DEMO_SOURCE)
    name = base_model.partition("@")[0]
    if commit is not None and _ON_HUB.fullmatch(name) and commit.isalnum():
        return _Base(shown=name, on_hub=name, commit=commit)
    return _Base(shown=short_name(base_model), on_hub=None)


def _is_built_in(task: Task) -> bool:
    """Tell whether the task is one of GLUE's or the embedded one, which are known by name and English."""
    return TASKS.get(task.name) == task


def _is_published(result: RunResult, task: Task) -> bool:
    """Tell whether the scored sets have the sizes of GLUE's: other rows under its name are not GLUE."""
    return task in GLUE and all(result.examples.get(split) == task.split(split).rows for split in result.scores)


def _metadata(
    result: RunResult,
    task: Task,
    base: _Base,
    license: str | None,  # noqa: A002
    repo: str,
) -> "ModelCardData":
    from huggingface_hub import ModelCardData

    scores = list(_eval_results(result, task))
    name = f"{short_name(base.shown)}-{task.name}" if repo == SOMEONE else short_name(repo)
    return ModelCardData(
        base_model=base.on_hub,
        datasets=[HUB_REPO] if _is_published(result, task) else None,
        eval_results=scores or None,
        language="en" if _is_built_in(task) else None,
        library_name="transformers",
        license=license,
        metrics=[*dict.fromkeys(one.metric_type for one in scores)] or None,
        model_name=printable(name) if scores else None,
        pipeline_tag="text-classification",
        tags=["isinglass", *(["glue"] if _is_published(result, task) else [])],
    )


def _eval_results(result: RunResult, task: Task) -> Iterator["EvalResult"]:
    """Yield the scores that are numbers, as the hub's `model-index` holds them."""
    from huggingface_hub import EvalResult

    published = _is_published(result, task)
    for split, scores in result.scores.items():
        for metric, score in scores.items():
            if score.value is None:
                continue
            yield EvalResult(
                task_type="text-classification",
                dataset_type=HUB_REPO if published else printable(task.name),
                dataset_name=f"GLUE {task.title}" if published else printable(task.title),
                dataset_config=task.hub_config if published else None,
                dataset_split=task.split(split).hub_split if published else printable(split),
                metric_type=metric.hub_type,
                metric_name=_title(metric),
                metric_value=score.value,
                metric_args={"average": metric.average} if metric.average else None,
            )


def _warnings(result: RunResult, task: Task) -> Iterator[str]:
    """Yield what must be read before any score."""
    if result.collapsed:
        yield "The training collapsed: the model gives every example of a scored set the same label."
    if task.warning:
        yield task.warning
    for split, scores in result.scores.items():
        for metric, score in scores.items():
            if score.value is None:
                yield f"{metric.full_name} on {split} is not a number (NaN): all answers, or all labels, are the same."
            elif score.majority is not None and metric.rank(score.value) <= metric.rank(score.majority):
                yield (
                    f"{metric.full_name} on {split} is no better than {task.kind.baseline} "
                    f"({metric.text(score.value)}; that scores {metric.text(score.majority)})."
                )


def _title(metric: Metric) -> str:
    return f"{metric.full_name} (lower is better)" if metric.lower_is_better else metric.full_name


def _columns(task: Task) -> Sequence[str | int]:
    return task.hub_text_columns or task.splits[0].text_columns


def _what_it_does(result: RunResult, task: Task, base: _Base, label_names: Sequence[str] | None) -> str:
    named = ", ".join(_escaped(column) for column in _columns(task))
    texts = f"a pair of texts ({named})" if task.is_pair else f"one text ({named})"
    target = task.kind.target(label_names or (), task.score_range)
    linked = f"[{_escaped(base.on_hub)}](https://huggingface.co/{base.on_hub})"
    source = f"{linked}{f' at commit {base.commit}' if base.commit else ''}" if base.on_hub else "a local checkpoint"
    lines = [
        f"It takes {texts} and answers {target}.",
        f"It was fine-tuned from {source} with isinglass.",
    ]
    if result.start_from:
        before = TASKS[result.start_from].title if result.start_from in TASKS else result.start_from
        lines.append(f"Its weights had been fine-tuned on {_escaped(before)} before.")
    if task.citation:
        lines.append(f"The task: {_escaped(task.citation)}.")
    return " ".join(lines)


def _how_to_use(result: RunResult, task: Task, repo: str) -> Iterator[str]:
    example = '{"text": "The first text.", "text_pair": "The second text."}' if task.is_pair else '"A text."'
    max_length = int(result.config.get("max_length", 128))
    yield (
        "```python\n"
        "from transformers import pipeline\n\n"
        f'classifier = pipeline("text-classification", model="{repo}")\n'
        f"print(classifier({example}, top_k=None, truncation=True, max_length={max_length}))\n"
        "```"
    )
    lines = "one pair a line, separated by a tab" if task.is_pair else "one a line"
    yield f"{task.kind.usage} With isinglass, for a file of texts, {lines}:"
    folder = short_name(repo)
    named = f" --task {task.name}" if _is_built_in(task) else ""  # the user's own lies beside the model
    predict = f"isinglass predict {folder}{named} --input texts.txt"
    yield f"```\nhf download {repo} --local-dir {folder}\n{predict}\n```"
    if max_length != TrainConfig.max_length:  # a directory without its run's settings is used with the defaults
        yield f"There it reads {TrainConfig.max_length} tokens of a text, not {max_length} as in training."


def _labels(task: Task, label_names: Sequence[str] | None) -> str:
    if label_names is None:
        return "None: the one output is the score itself."
    words = dict(zip(task.labels or (), task.label_words or (), strict=False))
    columns = ("output", "label", "meaning") if words else ("output", "label")
    rows = [
        (str(output), _cut(name), _cut(words.get(name, "")))[: len(columns)]
        for output, name in enumerate(label_names[:MOST_LABELS])
    ]
    table = Table(columns=columns, rows=tuple(rows)).to_markdown()
    left_out = len(label_names) - len(rows)
    return table + (f"\nAnd {left_out:,} more; `config.json` lists all." if left_out else "")


def _training_data(result: RunResult, task: Task) -> Iterator[str]:
    published = {split.name: f"{split.rows:,}" for split in task.splits} if task in GLUE else {}
    columns = ("split", "examples", "of GLUE's") if published else ("split", "examples")
    rows = [
        (_cut(split), f"{count:,}", published.get(split, ""))[: len(columns)] for split, count in result.examples.items()
    ]
    yield Table(columns=columns, rows=tuple(rows)).to_markdown()
    totals = [*accumulate(result.train_lengths)]
    if totals and totals[-1]:
        yield (
            f"A training example has {bisect_right(totals, 0)} to {bisect_left(totals, totals[-1])} tokens, in the median "
            f"{bisect_left(totals, totals[-1] / 2)}, special tokens included; {result.truncated_share:.1%} were longer than "
            f"{result.config.get('max_length')} tokens."
        )
    notes = [note for note in dict.fromkeys(result.notes) if note != task.warning]
    if notes:
        yield "\n".join(f"- Note: {_escaped(_without_directories(note, result))}" for note in notes)


def _scores(result: RunResult, task: Task) -> Iterator[str]:
    yield Table(
        columns=("split", "metric", "this model", "majority", "examples"),
        rows=tuple(
            (
                _cut(split),
                _title(metric),
                metric.text(score.value),
                metric.text(score.majority),
                f"{result.examples.get(split, 0):,}",
            )
            for split, scores in result.scores.items()
            for metric, score in scores.items()
        ),
    ).to_markdown()
    lines = [f"Scores are in hundredths; *majority* is what {task.kind.baseline} gets."]
    lines += task.kind.score_notes
    if "rmse" in task.metrics:
        lines.append("RMSE is in the unit of the labels.")
    if "f1" in task.metrics:
        lines.append(f"F1 is that of the label {_escaped(task.positive_label)}.")
    yield " ".join(lines)


def _training(result: RunResult) -> Iterator[str]:
    defaults = {one.name: one.default for one in dataclasses.fields(TrainConfig)}
    chosen = {name: value for name, value in result.config.items() if name not in NOT_SETTINGS}
    shown = [name for name in SETTINGS if name in chosen]
    shown += [name for name, value in chosen.items() if name not in SETTINGS and value != defaults.get(name)]
    compiler = ", XLA" if result.xla else ", compiled" if result.compile else ""
    rows = [
        ("recipe", result.recipe),
        *((name.replace("_", " "), _plain(chosen[name])) for name in shown),
        ("seed", str(result.seed)),
        ("precision that ran", result.precision),
        ("backend", f"{result.backend}{compiler}"),
        ("device", result.device),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    if result.git_commit:
        rows.append(("isinglass's commit", result.git_commit))
    yield Table(columns=("setting", "value"), rows=tuple((_cut(name), _cut(value)) for name, value in rows)).to_markdown()
    compiling = f", of which compiling {result.compile_seconds:.1f} s" if result.compile_seconds else ""
    yield (
        f"Training took {duration(result.train_seconds)}{compiling}, at {result.examples_per_second:,.1f} examples/s and "
        f"{result.tokens_per_second:,.0f} tokens/s without padding; scoring took {result.evaluation_seconds:.1f} s. "
        f"{result.peak_memory_bytes / 2**30:.1f} GiB of memory were in use at most. {CLOCK}"
    )


def _plain(value: Any) -> str:
    """Return a setting's value as text; of a path, the name of the file."""
    return ", ".join(short_name(one) for one in value) if isinstance(value, list | tuple) else short_name(value)


def _limits(result: RunResult, task: Task) -> Iterator[str]:
    dev = " and ".join(_escaped(split) for split in result.scores)
    yield (
        f"One seed, {result.seed}, was trained. With another, all else the same, the scores can differ by several points, "
        f"the more the fewer examples are scored."
    )
    if result.config.get("keep_best") or result.config.get("early_stopping"):
        yield f"The weights are those of the epoch that was best on {dev}, so that the scores on it flatter the model."
    yield f"The scores are of {dev}, by which settings are commonly chosen. They are not those of an untouched test set."
    if task in GLUE and not _is_published(result, task):
        yield f"The scored rows are not as many as GLUE's: these are no scores of GLUE's {_escaped(task.title)}."
    yield "Nothing was measured on texts of another domain, language or time than the data above."
    if result.config.get("long_texts") == "windows":
        yield "Long texts were trained on in windows, whose logits are averaged; `transformers` as above cuts them instead."
    elif result.truncated_share > 0:
        yield "Of longer texts, the model reads the beginning only."
    if task.labels is not None:
        yield "Its probabilities were not calibrated: 0.9 does not mean right nine times in ten."
    yield "Whatever prejudice the data or the first weights hold, the model may have too; this was not measured."


def _without_directories(note: str, result: RunResult) -> str:
    """Return a note in which every path is replaced by the name of its file."""
    model = () if result.model_commit else (result.model,)  # a name on the hub is no path
    places = [*model, *(result.config.get(name) for name in (*PLACES, "class_weights"))]
    paths = [path for place in places for path in (place if isinstance(place, list) else [place]) if isinstance(path, str)]
    for parent in sorted({str(Path(path).parent) for path in paths}, key=len, reverse=True):
        if parent != ".":
            note = note.replace(parent.rstrip(os.sep) + os.sep, "")
    return _DIRECTORIES.sub("", note)


def _cut(text: str) -> str:
    return shortened(text, LONGEST_TEXT)


def _escaped(text: object) -> str:
    return escaped(text, LONGEST_TEXT)
