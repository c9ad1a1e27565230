"""The card of a model: the README.md that the hub shows, made of what a run recorded and of nothing else.

What comes from data, files or names is a stranger's: it stands in the card as text, never as Markdown, HTML or YAML. The
user's directories do not stand in it at all.
"""

import dataclasses
import math
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isinglass.config import PLACES, TrainConfig
from isinglass.errors import ConfigError
from isinglass.metrics import LOWER_IS_BETTER
from isinglass.models.source import DEMO as DEMO_MODEL
from isinglass.names import brief, duration, printable, score_text, short_name, shortened
from isinglass.results import RunResult, by_split
from isinglass.tasks import TASKS, Task
from isinglass.tasks.glue import GLUE, HUB_REPO
from isinglass.training.timing import CLOCK

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

CARD: Final = "README.md"
DEMO_SOURCE: Final = "sentence-transformers/all-MiniLM-L6-v2"  # what `demo` is, and its license there
DEMO_LICENSE: Final = "apache-2.0"
SOMEONE: Final = "USER/NAME"  # stands for a repository whose name is not known yet
MOST_LABELS: Final = 100
LONGEST_TEXT: Final = 500  # characters of a label, a name or a note

# metric -> what the hub calls it, and its title
METRICS: Final[Mapping[str, tuple[str, str]]] = {
    "accuracy": ("accuracy", "Accuracy"),
    "f1": ("f1", "F1"),
    "macro_f1": ("f1", "Macro F1"),
    "micro_f1": ("f1", "Micro F1"),
    "matthews": ("matthews_correlation", "Matthews correlation"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "spearman": ("spearmanr", "Spearman correlation"),
    "rmse": ("rmse", "RMSE (lower is better)"),
}
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

_MARKUP: Final = re.compile(r"[\\`*~\[\]<>&|$]|(?<!\w)_|_(?!\w)")
# from the first slash of an absolute path to the last one; `and/or`, `USER/NAME` and `https://` are no such path
_DIRECTORIES: Final = re.compile(r"""(?<![\w:/.~])(?:~[\w.-]*|\.{1,2})?/(?=\S)(?:[^:'"()\n]*/)?""")
_FROM_HUB: Final = re.compile(r"The model ([\w.-]+(?:/[\w.-]+)?)(?:@[\w.-]+)? is the hub's at commit (\w+)\.", re.ASCII)


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
    """The text of a model's README.md: the hub's metadata, then what the model does, how well, and how it came about.

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
    base = _base(base_model, result.notes)
    license = license or (DEMO_LICENSE if base_model == DEMO_MODEL else None)  # noqa: A001
    metadata = _metadata(result, task, base, license, repo)
    parts = [
        f"# {escaped(base.shown)} fine-tuned on {escaped(task.title)}",
        *(f"> **Warning:** {escaped(warning)}" for warning in _warnings(result, task)),
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
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def escaped(text: object) -> str:
    r"""A text for the middle of a line of Markdown, where it reads as it is: markup becomes character references.

    >>> escaped("<b>not_equivalent</b> | `x`\n---")
    '&#60;b&#62;not_equivalent&#60;/b&#62; &#124; &#96;x&#96;&#92;n---'
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(shortened(str(text), LONGEST_TEXT)))


def _base(base_model: str, notes: Sequence[str]) -> _Base:
    """A directory may be called as a model on the hub is: only the run's own note tells that it came from there."""
    if base_model == DEMO_MODEL:
        return _Base(shown=short_name(DEMO_SOURCE), on_hub=DEMO_SOURCE)
    for note in notes:
        found = _FROM_HUB.fullmatch(note)
        if found and found[1] == base_model.partition("@")[0]:
            return _Base(shown=found[1], on_hub=found[1], commit=found[2])
    return _Base(shown=short_name(base_model), on_hub=None)


def _is_built_in(task: Task) -> bool:
    """Whether it is GLUE's or the embedded one: those are known by name, and English."""
    return TASKS.get(task.name) == task


def _is_published(result: RunResult, task: Task) -> bool:
    """Whether the scores are of GLUE's own dev sets, as far as their sizes tell: other rows under its name are not GLUE."""
    return task in GLUE and all(result.examples.get(split) == task.split(split).rows for split in result.split.split("+"))


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
    """The scores that are numbers, as the hub's `model-index` holds them."""
    from huggingface_hub import EvalResult

    published = _is_published(result, task)
    splits = result.split.split("+")
    for split, scores in by_split(result.metrics, splits).items():
        for name, score in scores.items():
            if score is None or not math.isfinite(score):
                continue
            kind, title = METRICS.get(name, (printable(name), printable(name)))
            yield EvalResult(
                task_type="text-classification",
                dataset_type=HUB_REPO if published else printable(task.name),
                dataset_name=f"GLUE {task.title}" if published else printable(task.title),
                dataset_config=task.hub_config if published else None,
                dataset_split=task.split(split).hub_split if published else printable(split),
                metric_type=kind,
                metric_name=title,
                metric_value=score,
                metric_args={"average": name.removesuffix("_f1")} if name in ("macro_f1", "micro_f1") else None,
            )


def _warnings(result: RunResult, task: Task) -> Iterator[str]:
    """What must be read before any score."""
    if result.collapsed:
        yield "The training collapsed: the model gives every example of a scored set the same label."
    if task.warning:
        yield task.warning
    splits = result.split.split("+")
    majority = by_split(result.majority, splits)
    for split, scores in by_split(result.metrics, splits).items():
        for name, score in scores.items():
            title = METRICS.get(name, (name, name))[1].removesuffix(" (lower is better)")
            baseline = majority.get(split, {}).get(name)
            if score is None:
                yield f"{title} on {split} is not a number (NaN): all answers, or all labels, are the same."
            elif baseline is not None and (score >= baseline if name in LOWER_IS_BETTER else score <= baseline):
                yield (
                    f"{title} on {split} is no better than {_baseline(task)} "
                    f"({score_text(name, score)}; that scores {score_text(name, baseline)})."
                )


def _baseline(task: Task) -> str:
    """What `majority` is, in words."""
    return {
        "classification": "always answering the most frequent label",
        "multilabel": "always answering the most frequent labels",
        "regression": "always answering the mean",
    }[task.kind]


def _columns(task: Task) -> Sequence[str | int]:
    return task.hub_text_columns or task.splits[0].text_columns


def _what_it_does(result: RunResult, task: Task, base: _Base, label_names: Sequence[str] | None) -> str:
    named = ", ".join(escaped(column) for column in _columns(task))
    texts = f"a pair of texts ({named})" if task.is_pair else f"one text ({named})"
    if label_names is None:
        low, high = task.score_range
        answer = "a number" + (f" from {low:g} to {high:g}" if math.isfinite(high - low) else "")
    else:
        answer = f"any of {len(label_names):,} labels" if task.is_multilabel else f"one of {len(label_names):,} labels"
    linked = f"[{escaped(base.on_hub)}](https://huggingface.co/{base.on_hub})"
    source = f"{linked}{f' at commit {base.commit}' if base.commit else ''}" if base.on_hub else "a local checkpoint"
    lines = [f"It takes {texts} and answers {answer}.", f"It was fine-tuned from {source} with isinglass."]
    if result.start_from:
        before = TASKS[result.start_from].title if result.start_from in TASKS else result.start_from
        lines.append(f"Its weights had been fine-tuned on {escaped(before)} before.")
    if task.citation:
        lines.append(f"The task: {escaped(task.citation)}.")
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
    answers = {
        "classification": "It prints each label with its probability, the likeliest first.",
        "multilabel": "It prints each label with its probability: a text has those above 0.5.",
        "regression": "It prints one score, in the unit of the training data.",
    }[task.kind]
    lines = "one pair a line, separated by a tab" if task.is_pair else "one a line"
    yield f"{answers} With isinglass, for a file of texts, {lines}:"
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
    head = ("output", "label", *(("meaning",) if words else ()))
    rows = [
        (str(i), escaped(name), *((escaped(words.get(name, "")),) if words else ()))
        for i, name in enumerate(label_names[:MOST_LABELS])
    ]
    left_out = len(label_names) - len(rows)
    return _table(head, rows) + (f"\n\nAnd {left_out:,} more; `config.json` lists all." if left_out else "")


def _training_data(result: RunResult, task: Task) -> Iterator[str]:
    rows = []
    for split, count in result.examples.items():
        published = next((one.rows for one in task.splits if task in GLUE and one.name == split), None)
        rows.append((escaped(split), f"{count:,}", *((f"{published:,}",) if published else ())))
    width = max((len(row) for row in rows), default=2)
    yield _table(("split", "examples", "of GLUE's")[:width], [row + ("",) * (width - len(row)) for row in rows])
    totals = [*accumulate(result.train_lengths)]
    if totals and totals[-1]:
        yield (
            f"A training example has {bisect_right(totals, 0)} to {bisect_left(totals, totals[-1])} tokens, in the median "
            f"{bisect_left(totals, totals[-1] / 2)}, special tokens included; {result.truncated_share:.1%} were longer than "
            f"{result.config.get('max_length')} tokens."
        )
    notes = [note for note in dict.fromkeys(result.notes) if note != task.warning]
    if notes:
        yield "\n".join(f"- Note: {escaped(_without_directories(note, result))}" for note in notes)


def _scores(result: RunResult, task: Task) -> Iterator[str]:
    splits = result.split.split("+")
    majority = by_split(result.majority, splits)
    yield _table(
        ("split", "metric", "this model", "majority", "examples"),
        [
            (
                escaped(split),
                escaped(METRICS.get(name, (name, name))[1]),
                score_text(name, score),
                score_text(name, majority.get(split, {}).get(name)),
                f"{result.examples.get(split, 0):,}",
            )
            for split, scores in by_split(result.metrics, splits).items()
            for name, score in scores.items()
        ],
    )
    lines = [f"Scores are in hundredths; *majority* is what {_baseline(task)} gets."]
    if task.is_regression:
        lines.append("An answer that never changes correlates with nothing: NaN.")
    if "rmse" in task.metrics:
        lines.append("RMSE is in the unit of the labels.")
    if "f1" in task.metrics:
        lines.append(f"F1 is that of the label {escaped(task.positive_label)}.")
    if task.is_multilabel:
        lines.append("Accuracy asks for exactly the labels of an example.")
    yield " ".join(lines)


def _training(result: RunResult) -> Iterator[str]:
    defaults = {one.name: one.default for one in dataclasses.fields(TrainConfig)}
    chosen = {name: value for name, value in result.config.items() if name not in NOT_SETTINGS}
    shown = [name for name in SETTINGS if name in chosen]
    shown += [name for name, value in chosen.items() if name not in SETTINGS and value != defaults.get(name)]
    compiler = ", XLA" if result.xla else ", compiled" if result.compile else ""
    rows = [
        ("recipe", escaped(result.recipe)),
        *((escaped(name.replace("_", " ")), escaped(_plain(chosen[name]))) for name in shown),
        ("seed", str(result.seed)),
        ("precision that ran", escaped(result.precision)),
        ("backend", f"{escaped(result.backend)}{compiler}"),
        ("device", escaped(result.device)),
        ("versions", ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in result.versions.items())),
    ]
    if result.git_commit:
        rows.append(("isinglass's commit", escaped(result.git_commit)))
    yield _table(("setting", "value"), rows)
    compiling = f", of which compiling {result.compile_seconds:.1f} s" if result.compile_seconds else ""
    yield (
        f"Training took {duration(result.train_seconds)}{compiling}, at {result.examples_per_second:,.1f} examples/s and "
        f"{result.tokens_per_second:,.0f} tokens/s without padding; scoring took {result.evaluation_seconds:.1f} s. "
        f"{result.peak_memory_bytes / 2**30:.1f} GiB of memory were in use at most. {CLOCK}"
    )


def _plain(value: Any) -> str:
    """A setting's value; of a file, its name."""
    return ", ".join(short_name(one) for one in value) if isinstance(value, list | tuple) else short_name(value)


def _limits(result: RunResult, task: Task) -> Iterator[str]:
    dev = " and ".join(escaped(split) for split in result.split.split("+"))
    yield (
        f"One seed, {result.seed}, was trained. With another, all else the same, the scores can differ by several points, "
        f"the more the fewer examples are scored."
    )
    if result.config.get("keep_best") or result.config.get("early_stopping"):
        yield f"The weights are those of the epoch that was best on {dev}, so that the scores on it flatter the model."
    yield f"The scores are of {dev}, by which settings are commonly chosen. They are not those of an untouched test set."
    if task in GLUE and not _is_published(result, task):
        yield f"The scored rows are not as many as GLUE's: these are no scores of GLUE's {escaped(task.title)}."
    yield "Nothing was measured on texts of another domain, language or time than the data above."
    if result.config.get("long_texts") == "windows":
        yield "Long texts were trained on in windows, whose logits are averaged; `transformers` as above cuts them instead."
    elif result.truncated_share > 0:
        yield "Of longer texts, the model reads the beginning only."
    if task.labels is not None:
        yield "Its probabilities were not calibrated: 0.9 does not mean right nine times in ten."
    yield "Whatever prejudice the data or the first weights hold, the model may have too; this was not measured."


def _without_directories(note: str, result: RunResult) -> str:
    """A note in which every file of the user's machine goes by its last name."""
    if _FROM_HUB.fullmatch(note):
        return note
    places = [result.model, *(result.config.get(name) for name in (*PLACES, "class_weights"))]
    paths = [path for place in places for path in (place if isinstance(place, list) else [place]) if isinstance(path, str)]
    for parent in sorted({str(Path(path).parent) for path in paths}, key=len, reverse=True):
        if parent != ".":
            note = note.replace(parent.rstrip(os.sep) + os.sep, "")
    return _DIRECTORIES.sub("", note)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are escaped already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
