"""Tables of results as values, and their text. Each is built from results alone: no figure is typed by hand.

Runs that differ in nothing but their seed (and in where their data lay) are one row, with the mean over them. A precision
is always the one that ran, never the one that was asked for.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from isinglass.metrics import Metric
from isinglass.names import duration, short_name
from isinglass.report import published
from isinglass.report.answers import Answers
from isinglass.report.configurations import (
    Group,
    by_variant,
    differing_settings,
    groups_of,
    label,
    plain,
    respects,
    titles_of,
    words_of,
)
from isinglass.report.own_tasks import scored_splits, title_of
from isinglass.report.statistics import Difference, paired_difference, score_interval, summary
from isinglass.results import FailedRun, RunResult
from isinglass.tables import Table
from isinglass.tasks import TASKS, Task

AnswersOf = Callable[[RunResult, str], Answers]
"""The answers that a run gave to a split: `partial(read_answers, directory)`."""
Notes = Callable[[Sequence[Group]], list[str]]
"""What a table says about its groups."""

ABSENT: Final = "-"
FAILED: Final = "failed"
COLLAPSED: Final = "†"
PRECISIONS: Final = ("fp32", "tf32", "fp16", "bf16", "amp")  # `amp` of a failed run: what it would have been is not known
PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow_cpu", "keras"),
    "jax": ("jax", "keras"),
}
SPREAD: Final = "±: sample standard deviation over the runs, their number in brackets; they differ in their seed."


def pytorch_table(
    results: Sequence[RunResult],
    failed: Sequence[FailedRun],
    *,
    clock: str,
    with_published: bool = False,
    tasks: Mapping[str, Task] = TASKS,
) -> Table:
    """Return one row for each task: result and training time in fp32 and in each other precision that ran on torch.

    Args:
        results, failed: of other backends too: those are left out.
        clock: a sentence on what the training time covers.
        with_published: add the published figures of the same tasks.
        tasks: by name, the user's own among them.
    """
    groups = groups_of(results, failed, backend="torch", tasks=tasks)
    others = [p for p in PRECISIONS[1:] if any(group.precision == p for group in groups)]
    columns = ["Task", "Metric", "Result", "Training time"]
    for precision in others:
        columns += [f"Result ({precision.upper()})", f"Training time ({precision.upper()})"]
    if with_published:
        columns += [f"Published {what}" for what in ("result", "training time", "result (FP16)", "training time (FP16)")]
    rows = []
    for (task, variant), members in by_variant(groups, "precision"):
        ran = {group.precision: group for group in members}
        row = [_with(task.title, variant), "/".join(title for _, _, title in _metrics(task))]
        for precision in ("fp32", *others):
            row += [_result(ran.get(precision)), _training_time(ran.get(precision))]
        rows.append((*row, *(_published_task(task) if with_published else ())))
    notes = [_precisions(others), clock, *_notes(groups)]
    if with_published:
        notes.append(f"Published: {published.SOURCE}: {published.PYTORCH_FACTS}.")
    sets = "GLUE development sets" if all(group.task.name in TASKS for group in groups) else "Scores and training times"
    return Table(title=f"{sets}, PyTorch", columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def tensorflow_table(
    results: Sequence[RunResult],
    failed: Sequence[FailedRun],
    *,
    with_published: bool = False,
    tasks: Mapping[str, Task] = TASKS,
) -> Table:
    """Return one row for each mode of MRPC on tensorflow: seconds of the second epoch, accuracy of each run by seed.

    Args:
        results, failed: of other backends and tasks too: those are left out.
        with_published: add the published rows, which are of other devices.
        tasks: by name, the user's own among them.
    """
    every = groups_of(results, failed, backend="tensorflow", tasks=tasks)
    groups = [group for group in every if group.task.name == "mrpc"]
    variants = by_variant(groups, "precision", "xla")
    rows = [_tensorflow_row(group, variant) for (_, variant), members in variants for group in members]
    if with_published:
        rows += map(_published_mode, published.TENSORFLOW)
    scored = " or ".join(sorted({str(run.examples["dev"]) for group in groups for run in group.runs}))
    dropped = published.TENSORFLOW_EXAMPLES - published.TENSORFLOW_SCORED
    notes = [
        "Time: training steps with their input, mean over the runs; tracing and compiling fall in the first epoch. "
        "Compile time: the first step of each shape, mean over the runs.",
        f"Val acc: one run after the other, by seed; all {scored or published.TENSORFLOW_EXAMPLES} validation examples are "
        f"scored (the published script dropped the last {dropped}).",
        *_notes(groups, without=(_spread_note,)),
    ]
    if with_published:
        notes.append(f"Published: {published.SOURCE}: {published.TENSORFLOW_FACTS}.")
    return Table(
        title="MRPC, TensorFlow",
        columns=("Device", "Mode", "Time (2nd epoch)", f"Val acc ({_count_of_runs(groups)})", "Compile time"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _tensorflow_row(group: Group, variant: str) -> tuple[str, ...]:
    mode = _with(_mode(group), variant)
    if not group.runs:
        return ABSENT, mode, ABSENT, FAILED, ABSENT
    accuracies = "/".join(f"{value:.4f}" for value in _values(group.runs, "dev", Metric.ACCURACY))
    devices = "; ".join(dict.fromkeys(run.device for run in group.runs))
    compile_seconds = _mean(run.compile_seconds for run in group.runs)
    return devices, mode, _second_epoch(group.runs), accuracies + _dagger(group), f"{compile_seconds:.1f}s"


def _published_mode(mode: published.PublishedMode) -> tuple[str, ...]:
    accuracies = "/".join(f"{value:.4f}" for value in mode.accuracies) or ABSENT
    return f"{mode.gpu} (published)", mode.mode, f"{mode.epoch_seconds}s", accuracies, ABSENT


def _count_of_runs(groups: Sequence[Group]) -> str:
    """Return `3 runs`, or `2 to 3 runs` where configurations have different numbers of runs."""
    counts = {len(group.runs) for group in groups if group.runs}
    if not counts:
        return "no runs"
    if counts == {1}:
        return "1 run"
    return f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} runs"


def scores_table(
    results: Sequence[RunResult],
    answers: AnswersOf,
    failed: Sequence[FailedRun] = (),
    *,
    tasks: Mapping[str, Task] = TASKS,
) -> Table:
    """Return one row for each metric of each split and configuration: mean, spread over the seeds, interval, majority.

    Args:
        tasks: by name, the user's own among them.
    """
    groups = groups_of(results, failed, tasks=tasks)
    differing = differing_settings(groups) - {"model", "backend", "precision"}
    columns = ["Task", "Metric", "Model", "Backend", "Precision", *(["Settings"] if differing else [])]
    columns += ["Result", "95 % interval", "Majority", "Collapsed"]
    rows: list[tuple[str, ...]] = []
    for group in groups:
        settings = [", ".join(words_of(group, differing)) or ABSENT] if differing else []
        configuration = (short_name(group.settings["model"]), str(group.settings["backend"]), group.precision, *settings)
        rows += [(group.task.title, title, *configuration, *cells) for title, *cells in _scores_cells(group, answers)]
    notes = [
        "95 % interval: of the mean over the runs, were other examples scored; Wilson's for accuracy, else a bootstrap over "
        "the examples. What other seeds would give is not in it.",
        "Majority: the score of always answering the most frequent label. Collapsed: runs that gave every example of a "
        "split the same label.",
        *_notes(groups, without=(_collapsed,)),
    ]
    return Table(title="Scores", columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def _scores_cells(group: Group, answers: AnswersOf) -> Iterator[tuple[str, ...]]:
    """Yield title, result, interval, majority and collapsed runs of each score of a configuration."""
    collapsed = sum(run.collapsed for run in group.runs)
    splits = {split for split, _, _ in _metrics(group.task)}
    predictions = {split: [answers(run, split) for run in group.runs] for split in splits}
    for split, metric, title in _metrics(group.task):
        if not group.runs:
            yield title, FAILED, ABSENT, ABSENT, ABSENT
            continue
        majority = group.runs[0].scores[split][metric].majority
        yield (
            title,
            _spread(metric, _values(group.runs, split, metric)) + _count(group),
            _interval(metric, *score_interval(metric, predictions[split])),
            ABSENT if group.task.labels is None else metric.text(majority),
            f"{collapsed} of {len(group.runs)}" if collapsed else "no",
        )


def differences_table(results: Sequence[RunResult], answers: AnswersOf, *, tasks: Mapping[str, Task] = TASKS) -> Table:
    """Return one row for each metric of each two configurations of a task that differ in one respect.

    Args:
        tasks: by name, the user's own among them.
    """
    groups = groups_of(results, tasks=tasks)
    differing = differing_settings(groups)
    rows, tests, single = [], [], False
    for first, second in itertools.combinations(groups, 2):
        if first.task is not second.task or len(respects(first, second)) != 1:
            continue
        for split in first.runs[0].scores:
            a, b = ([answers(run, split) for run in group.runs] for group in (first, second))
            for metric in first.task.metrics:
                found = paired_difference(metric, a, b)
                tests.append(found.test)
                single |= not found.compares_settings
                what = (first.task.title, _metric_title(first.task, split, metric))
                rows.append((*what, label(first, differing), label(second, differing), *_difference_cells(metric, found)))
    notes = ["No two configurations of one task differ in one respect only."]
    if rows:
        notes = [
            f"Difference: of the second less the first, in points, on the same examples; a difference is what has p < 0.05. "
            f"Of twenty pairs of equals one has that by chance. Tests: {', '.join(dict.fromkeys(tests))}."
        ]
    if single:
        notes.append(
            "Where one side is a single run, the models were compared, not their settings: that needs several seeds of each."
        )
    columns = ("Task", "Metric", "First", "Second", "Difference", "95 % interval", "p", "Runs", "Verdict")
    return Table(title="Differences", columns=columns, rows=tuple(rows), notes=tuple(notes))


def _difference_cells(metric: Metric, found: Difference) -> tuple[str, ...]:
    return (
        metric.text(found.mean, signed=True),
        _interval(metric, found.low, found.high, signed=True),
        _p_value(found.p_value),
        f"{found.runs_a}, {found.runs_b}",
        "difference" if found.is_difference else "no difference shown",
    )


def speed_table(results: Sequence[RunResult], *, clock: str, tasks: Mapping[str, Task] = TASKS) -> Table:
    """Return one row for each task and configuration: means over the runs.

    Args:
        clock: a sentence on what the training time covers.
        tasks: by name, the user's own among them.
    """
    groups = groups_of(results, tasks=tasks)
    differing = differing_settings(groups)
    rows = tuple(
        (
            group.task.title,
            label(group, differing),
            f"{_mean(run.examples_per_second for run in group.runs):.1f}",
            f"{_mean(run.tokens_per_second for run in group.runs):,.0f}",
            _training_time(group),
            f"{_mean(run.compile_seconds for run in group.runs):.1f} s",
            f"{_mean(run.evaluation_seconds for run in group.runs):.1f} s",
            f"{_mean(run.padding_avoided for run in group.runs):.0%}",
            f"{_mean(run.peak_memory_bytes for run in group.runs) / 2**20:,.0f}",
        )
        for group in groups
    )
    notes = [
        f"{clock} Means over the runs of a row.",
        "Tokens are real ones, never padding. Padding not computed: of the tokens that padding every training example to "
        "the longest allowed length would make.",
        *_notes(groups, without=(_spread_note, _first_weights, _collapsed, _failures)),
    ]
    return Table(
        title="Speed",
        columns=(
            "Task",
            "Configuration",
            "examples/s",
            "real tokens/s",
            "Training time",
            "Compile",
            "Evaluation",
            "Padding not computed",
            "Peak memory (MiB)",
        ),
        rows=rows,
        notes=tuple(notes),
    )


# Cells


def _metrics(task: Task) -> list[tuple[str, Metric, str]]:
    """Return split, metric and title of each score of a task, in the order of GLUE's table."""
    splits = [split.name for split in scored_splits(task)]
    return [(split, metric, _metric_title(task, split, metric)) for split in splits for metric in task.metrics]


def _metric_title(task: Task, split: str, metric: Metric) -> str:
    """Return `Accuracy`; where several sets of a task are scored, `Matched acc.`."""
    if len(scored_splits(task)) == 1:
        return metric.heading
    return f"{split.removeprefix('dev_').capitalize()} {'acc.' if metric is Metric.ACCURACY else metric.heading}"


def _values(runs: Sequence[RunResult], split: str, metric: Metric) -> list[float]:
    """Return the score of each run; NaN for None."""
    found = [run.scores[split][metric].value for run in runs]
    return [math.nan if value is None else value for value in found]


def _result(group: Group | None) -> str:
    """Return `83.91/84.10`, or `83.91 ± 0.20/84.10 ± 0.15 (3)`; with a dagger where a run collapsed."""
    if group is None:
        return ABSENT
    if not group.runs:
        return FAILED
    scores = "/".join(_spread(metric, _values(group.runs, split, metric)) for split, metric, _ in _metrics(group.task))
    return scores + _count(group) + _dagger(group)


def _spread(metric: Metric, values: Sequence[float]) -> str:
    found = summary(values)
    mean = metric.text(found.mean)
    return mean if found.sd is None or math.isnan(found.sd) else f"{mean} ± {metric.text(found.sd)}"


def _count(group: Group) -> str:
    return f" ({len(group.runs)})" if len(group.runs) > 1 else ""


def _dagger(group: Group) -> str:
    return COLLAPSED if any(run.collapsed for run in group.runs) else ""


def _interval(metric: Metric, low: float, high: float, *, signed: bool = False) -> str:
    if math.isnan(low):
        return "NaN"
    return f"{metric.text(low, signed=signed)} to {metric.text(high, signed=signed)}"


def _p_value(value: float) -> str:
    return "NaN" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _training_time(group: Group | None) -> str:
    return duration(_mean(run.train_seconds for run in group.runs)) if group and group.runs else ABSENT


def _second_epoch(runs: Sequence[RunResult]) -> str:
    """Return `41s`, below ten `6.4s`; `-` where there was no second epoch."""
    seconds = [run.epoch_seconds[1] for run in runs if len(run.epoch_seconds) > 1]
    if not seconds:
        return ABSENT
    mean = _mean(seconds)
    return f"{mean:.0f}s" if mean >= 9.95 else f"{mean:.1f}s"


def _mode(group: Group) -> str:
    amp = "" if group.precision == "fp32" else "AMP" if group.precision == "amp" else f"AMP ({group.precision})"
    return " + ".join(filter(None, ["XLA" if group.settings["xla"] else "", amp])) or "FP32"


def _published_task(task: Task) -> tuple[str, str, str, str]:
    for row in published.PYTORCH:
        if row.task == task.name:
            scores, fp16_scores = ("/".join(f"{value:.2f}" for value in some) for some in (row.scores, row.fp16_scores))
            return scores, duration(row.train_seconds), fp16_scores, duration(row.fp16_train_seconds)
    return ABSENT, ABSENT, ABSENT, ABSENT


# Notes


def _precisions(others: Sequence[str]) -> str:
    named = ", ".join(precision.upper() for precision in others)
    if not named:
        return "FP32 only was run."
    mix = " Each precision has columns of its own." if len(others) > 1 else ""
    return f"Columns without a precision: FP32. {named}: of the matrix products; weights, optimizer and loss in FP32.{mix}"


def _notes(groups: Sequence[Group], *, without: Sequence[Notes] = ()) -> list[str]:
    """Return the notes below a table, except those of the functions `without`."""
    parts = (_settings, _provenance, _spread_note, _first_weights, _collapsed, _failures, _own_notes)
    return [note for part in parts if part not in without for note in part(groups)]


def _settings(groups: Sequence[Group]) -> list[str]:
    """Return model, recipe and the main settings, with the tasks that have others: `epochs 3 (WNLI 5)`."""
    names = ("model", "recipe", "epochs", "batch_size", "learning_rate", "schedule", "max_length")
    if not groups:
        return []
    return [f"Settings: {'; '.join(f'{name} {_setting(groups, name)}' for name in names)}."]


def _setting(groups: Sequence[Group], name: str) -> str:
    values = [short_name(group.settings[name]) if name == "model" else plain(group.settings[name]) for group in groups]
    usual = max(dict.fromkeys(values), key=values.count)
    others = dict.fromkeys(
        f"{group.task.title} {value}" for group, value in zip(groups, values, strict=True) if value != usual
    )
    return f"{usual} ({', '.join(others)})" if others else usual


def _provenance(groups: Sequence[Group]) -> list[str]:
    """Return devices, versions, commits and seeds."""
    runs = _runs(groups)
    if not runs:
        return []
    packages = ["isinglass", "python", *dict.fromkeys(itertools.chain(*(PACKAGES.get(run.backend, ()) for run in runs)))]
    versions = [f"{name} {run.versions[name]}" for name in packages for run in runs if name in run.versions]
    commits = dict.fromkeys(f"commit {run.git_commit}" for run in runs if run.git_commit)
    return [
        f"Device: {'; '.join(dict.fromkeys(run.device for run in runs))}.",
        f"Versions: {', '.join(dict.fromkeys([*versions, *commits]))}.",
        f"Seeds: {', '.join(map(str, sorted({run.seed for run in runs})))}.",
    ]


def _spread_note(groups: Sequence[Group]) -> list[str]:
    return [SPREAD] if any(len(group.runs) > 1 for group in groups) else []


def _first_weights(groups: Sequence[Group]) -> list[str]:
    """Return which tasks start from the weights of another."""
    starts: dict[str, list[RunResult]] = {}
    for run in _runs(groups):
        if run.start_from is not None:
            starts.setdefault(title_of(run.start_from), []).append(run)
    return [
        f"{titles_of(some)} start{'' if ',' in titles_of(some) else 's'} from {origin}'s weights."
        for origin, some in starts.items()
    ]


def _collapsed(groups: Sequence[Group]) -> list[str]:
    """Return what the dagger stands for, and how many runs have it."""
    differing = differing_settings(groups)
    found = [
        f"{group.task.title}, {label(group, differing)}: {sum(run.collapsed for run in group.runs)} of {len(group.runs)}"
        for group in groups
        if _dagger(group)
    ]
    return [f"{COLLAPSED} Runs that gave every example of a split the same label: {'; '.join(found)}."] if found else []


def _failures(groups: Sequence[Group]) -> list[str]:
    """Return one note for each configuration and error."""
    differing = differing_settings(groups)
    notes = []
    for group in groups:
        for error in dict.fromkeys(one.error for one in group.failed):
            seeds = ", ".join(str(one.config["seed"]) for one in group.failed if one.error == error)
            notes.append(f"Failed: {group.task.title}, {label(group, differing)}, seed {seeds}: {error}")
    return notes


def _own_notes(groups: Sequence[Group]) -> list[str]:
    """Return the tasks' warnings and the notes of the runs, such as each slower path."""
    runs = _runs(groups)
    notes = [*(group.task.warning for group in groups if group.runs), *(note for run in runs for note in run.notes)]
    return [note for note in dict.fromkeys(notes) if note]


def _runs(groups: Sequence[Group]) -> list[RunResult]:
    return [run for group in groups for run in group.runs]


# Words


def _with(words: str, variant: str) -> str:
    return f"{words} ({variant})" if variant else words


def _mean(values: Iterable[float]) -> float:
    return summary(list(values)).mean
