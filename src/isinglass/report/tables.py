"""Tables of results as values. Each is built from the groups of runs alone: no figure is typed by hand.

Runs that differ in nothing but their seed (and in where their data lay) are one row, with the mean over them. A precision
is always the one that ran, never the one that was asked for.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64

from isinglass.metrics import Metric
from isinglass.names import duration, short_name
from isinglass.report import published
from isinglass.report.answers import Reader
from isinglass.report.bench import Group, by_variant, differing_settings, grouped, scored_splits, setting_text, title_of
from isinglass.results import CLOCK, RunResult
from isinglass.statistics import paired_difference, score_interval
from isinglass.tables import Table
from isinglass.tasks import TASKS, Task

Notes = Callable[[Sequence[Group]], list[str]]
"""What a table says about its groups."""

ABSENT: Final = "-"
FAILED: Final = "failed"
COLLAPSED: Final = "†"
PRECISIONS: Final = ("tf32", "fp16", "bf16", "amp")  # `amp` of a failed run: what it would have been is not known
PACKAGES: Final = {"torch": ("torch",), "tensorflow": ("tensorflow", "tensorflow_cpu", "keras"), "jax": ("jax", "keras")}
SPREAD: Final = "±: sample standard deviation over runs with different seeds; the number of runs is in brackets."


def pytorch_table(groups: Sequence[Group], *, with_published: bool = False) -> Table:
    """Return one row for each task: result and training time in fp32 and in each other precision that ran on torch.

    Args:
        groups: of other backends too: those are left out.
        with_published: add the published figures of the same tasks.
    """
    groups = [group for group in groups if group.settings["backend"] == "torch"]
    others = [precision for precision in PRECISIONS if any(group.precision == precision for group in groups)]
    columns = ["Task", "Metric", "Result", "Training time"]
    for precision in others:
        columns += [f"Result ({precision.upper()})", f"Training time ({precision.upper()})"]
    if with_published:
        columns += [f"Published {what}" for what in ("result", "training time", "result (FP16)", "training time (FP16)")]
    rows = []
    for task, variant, members in by_variant(groups, "precision"):
        ran = {group.precision: group for group in members}
        row = [_with(task.title, variant), "/".join(title for _, _, title in _metrics(task))]
        for precision in ("fp32", *others):
            row += _result(ran[precision]) if precision in ran else [ABSENT, ABSENT]
        if with_published:
            row += published.PYTORCH.get(task.name, [ABSENT] * 4)
        rows.append(tuple(row))
    notes = [_precisions(others), CLOCK, *_notes(groups)]
    if with_published:
        notes.append(f"Published: {published.SOURCE}: {published.PYTORCH_FACTS}.")
    sets = "GLUE development sets" if all(group.task.name in TASKS for group in groups) else "Scores and training times"
    return Table(title=f"{sets}, PyTorch", columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def _result(group: Group) -> tuple[str, str]:
    """Return `83.91/84.10`, or `83.91 ± 0.20/84.10 ± 0.15 (3)`, with a dagger where a run collapsed; and the time."""
    if not group.runs:
        return FAILED, ABSENT
    scores = "/".join(_spread(metric, score_values(group.runs, split, metric)) for split, metric, _ in _metrics(group.task))
    return scores + _count(group) + _dagger(group), duration(group.mean("train_seconds"))


def tensorflow_table(groups: Sequence[Group], *, with_published: bool = False) -> Table:
    """Return one row for each mode of MRPC on tensorflow: seconds of the second epoch, accuracy of each run by seed.

    Args:
        groups: of other backends and tasks too: those are left out.
        with_published: add the published rows, which are of other devices.
    """
    groups = [group for group in groups if (group.settings["backend"], group.task.name) == ("tensorflow", "mrpc")]
    variants = by_variant(groups, "precision", "xla")
    rows = [_tensorflow_row(group, variant) for _, variant, members in variants for group in members]
    if with_published:
        rows += [(*row, ABSENT) for row in published.TENSORFLOW]
    scored = " or ".join(sorted({str(run.examples["dev"]) for group in groups for run in group.runs}))
    dropped = published.TENSORFLOW_EXAMPLES - published.TENSORFLOW_SCORED
    notes = [
        "Time: training steps with their input, mean over the runs; tracing and compiling happen in the first epoch. "
        "Compile time: the first step of each shape, mean over the runs.",
        f"Val acc: accuracy of each run, in the order of the seeds, on all {scored or published.TENSORFLOW_EXAMPLES} "
        f"validation examples (the published script dropped the last {dropped}).",
        *_notes(groups, without=(_spread_note,)),
    ]
    if with_published:
        notes.append(f"Published: {published.SOURCE}: {published.TENSORFLOW_FACTS}.")
    columns = ("Device", "Mode", "Time (2nd epoch)", f"Val acc ({_count_of_runs(groups)})", "Compile time")
    return Table(title="MRPC, TensorFlow", columns=columns, rows=tuple(rows), notes=tuple(notes))


def _tensorflow_row(group: Group, variant: str) -> tuple[str, ...]:
    parts = ["XLA"] if group.settings["xla"] else []
    if group.precision != "fp32":
        parts.append("AMP" if group.precision == "amp" else f"AMP ({group.precision})")
    mode = _with(" + ".join(parts) or "FP32", variant)
    if not group.runs:
        return ABSENT, mode, ABSENT, FAILED, ABSENT
    accuracies = "/".join(f"{value:.4f}" for value in score_values(group.runs, "dev", Metric.ACCURACY))
    devices = "; ".join(dict.fromkeys(run.device for run in group.runs))
    return devices, mode, _second_epoch(group.runs), accuracies + _dagger(group), f"{group.mean('compile_seconds'):.1f}s"


def _second_epoch(runs: Sequence[RunResult]) -> str:
    """Return `41s`, below ten `6.4s`; `-` where there was no second epoch."""
    seconds = [run.epoch_seconds[1] for run in runs if len(run.epoch_seconds) > 1]
    if not seconds:
        return ABSENT
    mean = np.mean(seconds)
    return f"{mean:.0f}s" if mean >= 9.95 else f"{mean:.1f}s"


def _count_of_runs(groups: Sequence[Group]) -> str:
    """Return `3 runs`, or `2 to 3 runs` where configurations have different numbers of runs."""
    counts = sorted({len(group.runs) for group in groups if group.runs})
    if counts == [1]:
        return "1 run"
    return f"{' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} runs" if counts else "no runs"


def scores_table(groups: Sequence[Group], answers: Reader) -> Table:
    """Return one row for each metric of each split and configuration: mean, spread over the seeds, interval, majority."""
    differing = differing_settings(groups) - {"model", "backend", "precision"}
    columns = ["Task", "Metric", "Model", "Backend", "Precision", *(["Settings"] if differing else [])]
    columns += ["Result", "95 % interval", "Majority", "Collapsed"]
    rows = []
    for group in groups:
        settings = [", ".join(group.words(differing)) or ABSENT] if differing else []
        configuration = (short_name(group.settings["model"]), str(group.settings["backend"]), group.precision, *settings)
        for split, metric, title in _metrics(group.task):
            rows.append((group.task.title, title, *configuration, *_score_cells(group, split, metric, answers)))
    notes = [
        "95 % interval: confidence interval of the mean over the runs, by Wilson's method for accuracy and a bootstrap over "
        "the examples for other metrics. It reflects the choice of examples, not the variation between seeds.",
        "Majority: the score of always predicting the most frequent label. Collapsed: runs that gave every example of a "
        "split the same label.",
        *_notes(groups, without=(_collapsed,)),
    ]
    return Table(title="Scores", columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def _score_cells(group: Group, split: str, metric: Metric, answers: Reader) -> tuple[str, str, str, str]:
    """Return result, interval, majority and collapsed runs of a score of a configuration."""
    if not group.runs:
        return FAILED, ABSENT, ABSENT, ABSENT
    majority = group.runs[0].scores[split][metric].majority
    return (
        _spread(metric, score_values(group.runs, split, metric)) + _count(group),
        _interval(metric, *score_interval(metric, [answers(run, split) for run in group.runs])),
        ABSENT if group.task.labels is None else metric.text(majority),
        f"{group.collapsed} of {len(group.runs)}" if group.collapsed else "no",
    )


def differences_table(groups: Sequence[Group], answers: Reader) -> Table:
    """Return one row for each metric of each two configurations of a task that differ in one respect."""
    groups = [group for group in groups if group.runs]
    differing = differing_settings(groups)
    rows, tests, single = [], [], False
    for first, second in itertools.combinations(groups, 2):
        if first.task is not second.task or len(first.respects(second)) != 1:
            continue
        single |= 1 in (len(first.runs), len(second.runs))
        for split, metric, title in _metrics(first.task):
            found = paired_difference(metric, *([answers(run, split) for run in group.runs] for group in (first, second)))
            tests.append(found.test)
            row = (
                first.task.title,
                title,
                first.label(differing),
                second.label(differing),
                metric.text(found.mean, signed=True),
                _interval(metric, found.low, found.high, signed=True),
                "<0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}".replace("nan", "NaN"),
                f"{len(first.runs)}, {len(second.runs)}",
                "difference" if found.is_difference else "no difference shown",
            )
            rows.append(row)
    notes = ["No two configurations of one task differ in one respect only."]
    if rows:
        notes = [
            f"Difference: second minus first, in points, on the same examples. The verdict is a difference if p < 0.05; "
            f"without a true difference, about 5 % of comparisons have that by chance; p is not corrected for several "
            f"comparisons. Tests: {', '.join(dict.fromkeys(tests))}."
        ]
    if single:
        notes.append(
            "Where one side is a single run, two trained models are compared, not their configurations, which would need "
            "several seeds of each."
        )
    columns = ("Task", "Metric", "First", "Second", "Difference", "95 % interval", "p", "Runs", "Verdict")
    return Table(title="Differences", columns=columns, rows=tuple(rows), notes=tuple(notes))


def speed_table(groups: Sequence[Group], *, title: str = "Speed") -> Table:
    """Return one row for each task and configuration: means over the runs."""
    groups = [group for group in groups if group.runs]
    differing = differing_settings(groups)
    cells: dict[str, Callable[[Group], str]] = {
        "Task": lambda group: group.task.title,
        "Configuration": lambda group: group.label(differing),
        "examples/s": lambda group: f"{group.mean('examples_per_second'):.1f}",
        "real tokens/s": lambda group: f"{group.mean('tokens_per_second'):,.0f}",
        "Training time": lambda group: duration(group.mean("train_seconds")),
        "Compile": lambda group: f"{group.mean('compile_seconds'):.1f} s",
        "Evaluation": lambda group: f"{group.mean('evaluation_seconds'):.1f} s",
        "Padding not computed": lambda group: f"{group.mean('padding_avoided'):.0%}",
        "Peak memory (MiB)": lambda group: f"{group.mean('peak_memory_bytes') / 2**20:,.0f}",
    }
    notes = [
        f"{CLOCK} Means over the runs of a row.",
        "Real tokens exclude padding. Padding not computed: share of the tokens that there would be if every training "
        "example were padded to the maximum length.",
        *_notes(groups, without=(_spread_note, _first_weights, _collapsed, _failures)),
    ]
    rows = tuple(tuple(cell(group) for cell in cells.values()) for group in groups)
    return Table(title=title, columns=tuple(cells), rows=rows, notes=tuple(notes))


# Cells


def _metrics(task: Task) -> list[tuple[str, Metric, str]]:
    """Return split, metric and title of each score of a task, in the order of GLUE's table.

    The title is `Accuracy`; where several sets of a task are scored, `Matched acc.`.
    """
    splits = [split.name for split in scored_splits(task)]
    found = []
    for split, metric in itertools.product(splits, task.metrics):
        title = metric.heading
        if len(splits) > 1:
            name = "acc." if metric is Metric.ACCURACY else title
            title = f"{split.removeprefix('dev_').capitalize()} {name}"
        found.append((split, metric, title))
    return found


def score_values(runs: Sequence[RunResult], split: str, metric: Metric) -> Float64[np.ndarray, " runs"]:
    """Return the score of each run; NaN for None."""
    return np.array([run.scores[split][metric].value for run in runs], np.float64)


def _spread(metric: Metric, values: Float64[np.ndarray, " runs"]) -> str:
    mean = metric.text(float(values.mean()))
    if len(values) == 1 or np.isnan(values).any():
        return mean
    return f"{mean} ± {metric.text(float(values.std(ddof=1)))}"


def _count(group: Group) -> str:
    return f" ({len(group.runs)})" if len(group.runs) > 1 else ""


def _dagger(group: Group) -> str:
    return COLLAPSED if group.collapsed else ""


def _interval(metric: Metric, low: float, high: float, *, signed: bool = False) -> str:
    return "NaN" if math.isnan(low) else f"{metric.text(low, signed=signed)} to {metric.text(high, signed=signed)}"


def _with(words: str, variant: str) -> str:
    return f"{words} ({variant})" if variant else words


# Notes


def _precisions(others: Sequence[str]) -> str:
    named = ", ".join(precision.upper() for precision in others)
    if not named:
        return "All runs are in FP32."
    mix = " Each precision has its own columns." if len(others) > 1 else ""
    return f"Columns without a precision: FP32. {named}: matrix products only; weights, optimizer and loss in FP32.{mix}"


def _notes(groups: Sequence[Group], *, without: Sequence[Notes] = ()) -> list[str]:
    """Return the notes below a table, except those of the functions `without`."""
    parts = (_settings, _provenance, _spread_note, _first_weights, _collapsed, _failures, _own_notes)
    return [note for part in parts if part not in without for note in part(groups)]


def _settings(groups: Sequence[Group]) -> list[str]:
    """Return model, recipe and the main settings, with the tasks that have others: `epochs 3 (WNLI 5)`."""
    names = ("model", "recipe", "epochs", "batch_size", "learning_rate", "schedule", "max_length")
    return [f"Settings: {'; '.join(f'{name} {_setting(groups, name)}' for name in names)}."] if groups else []


def _setting(groups: Sequence[Group], name: str) -> str:
    text = short_name if name == "model" else setting_text
    values = [text(group.settings[name]) for group in groups]
    usual = max(dict.fromkeys(values), key=values.count)
    titles = [group.task.title for group in groups]
    others = dict.fromkeys(f"{title} {value}" for title, value in zip(titles, values, strict=True) if value != usual)
    return f"{usual} ({', '.join(others)})" if others else usual


def _provenance(groups: Sequence[Group]) -> list[str]:
    """Return devices, versions, commits and seeds."""
    runs = _runs(groups)
    if not runs:
        return []
    packages = ["isinglass", "python", *dict.fromkeys(itertools.chain(*(PACKAGES.get(run.backend, ()) for run in runs)))]
    versions = [f"{name} {run.versions[name]}" for name in packages for run in runs if name in run.versions]
    commits = [f"commit {run.git_commit}" for run in runs if run.git_commit]
    return [
        f"Device: {'; '.join(dict.fromkeys(run.device for run in runs))}.",
        f"Versions: {', '.join(dict.fromkeys([*versions, *commits]))}.",
        f"Seeds: {', '.join(map(str, sorted({run.seed for run in runs})))}.",
    ]


def _spread_note(groups: Sequence[Group]) -> list[str]:
    return [SPREAD] if any(len(group.runs) > 1 for group in groups) else []


def _first_weights(groups: Sequence[Group]) -> list[str]:
    """Return which tasks start from the weights of another."""
    notes = []
    for origin, members in grouped(groups, lambda group: group.settings["start_from"]).items():
        titles = dict.fromkeys(group.task.title for group in members if group.runs)
        if origin and titles:
            notes.append(f"{', '.join(titles)} start{'s' if len(titles) == 1 else ''} from {title_of(origin)}'s weights.")
    return notes


def _collapsed(groups: Sequence[Group]) -> list[str]:
    """Return what the dagger stands for, and how many runs have it."""
    differing = differing_settings(groups)
    marked = [group for group in groups if group.collapsed]
    found = [f"{group.task.title}, {group.label(differing)}: {group.collapsed} of {len(group.runs)}" for group in marked]
    return [f"{COLLAPSED} Runs that gave every example of a split the same label: {'; '.join(found)}."] if found else []


def _failures(groups: Sequence[Group]) -> list[str]:
    """Return one note for each configuration and error."""
    differing = differing_settings(groups)
    notes = []
    for group in groups:
        for error, runs in grouped(group.failed, lambda run: run.error).items():
            seeds = ", ".join(str(run.config["seed"]) for run in runs)
            notes.append(f"Failed: {group.task.title}, {group.label(differing)}, seed {seeds}: {error}")
    return notes


def _own_notes(groups: Sequence[Group]) -> list[str]:
    """Return the tasks' warnings and the notes of the runs, such as each slower path."""
    warnings = [group.task.warning for group in groups if group.runs]
    notes = [note for run in _runs(groups) for note in run.notes]
    return [note for note in dict.fromkeys([*warnings, *notes]) if note]


def _runs(groups: Sequence[Group]) -> list[RunResult]:
    return [run for group in groups for run in group.runs]
