"""What the report says: sections of tables, plots and commands. Texts stay raw here: what writes them down escapes them."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Int64

from isinglass.config import TrainConfig
from isinglass.errors import DataError
from isinglass.metrics import Metric
from isinglass.names import duration, printable, short_name, shortened
from isinglass.report import plots
from isinglass.report.answers import Answers
from isinglass.report.own_tasks import text_columns, title_of
from isinglass.report.plots import ScorePanel, Series, SpeedPanel
from isinglass.report.runs import READING, Bench, Reader, Run, as_setting, by_series, changed_settings, label, traits
from isinglass.report.tables import differences_table, pytorch_table, scores_table, speed_table, tensorflow_table
from isinglass.results import RunResult, file_below
from isinglass.tables import Table
from isinglass.tasks import MULTILABEL, REGRESSION, Task
from isinglass.training.timing import CLOCK

LONGEST_TEXT: Final = 600
HARD_EXAMPLES: Final = 10
MOST_CONFUSIONS: Final = 20
MEASURES: Final[Mapping[str, Callable[[RunResult], float]]] = {
    "examples/s": lambda result: result.examples_per_second,
    "real tokens/s": lambda result: result.tokens_per_second,
    "training (minutes)": lambda result: result.train_seconds / 60,
}
MOST_LABELS: Final = 12  # of a matrix that can be read
FLAGS: Final = (
    "model",
    "epochs",
    "batch_size",
    "learning_rate",
    "max_length",
    *(name for name in READING if name != "drop_incomplete"),
)
SWITCHES: Final = ("compile", "xla", "drop_incomplete")
FILES: Final = ("train_file", "validation_file", "test_file")


@dataclass(frozen=True)
class Plot:
    """An inline SVG and what stands below it."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Commands:
    """Command lines, each below what it repeats."""

    title: str
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report: `key` is its anchor; `folded` tables show on a click; `narrow` plots stand close together."""

    key: str
    title: str
    lead: str = ""
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    narrow: bool = False
    folded: Sequence[Table] = ()
    commands: Sequence[Commands] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is written down; a tile is a figure and what it counts."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    version: str


def make_report(bench: Bench, *, with_published: bool) -> Report:
    """All sections; `with_published` shows published rows of the two GLUE tables beside the directory's own."""
    results, titles = [run.result for run in bench.runs], [title_of(name) for name in bench.tasks]
    models, devices = _listed(short_name(one.model) for one in results), _listed(one.device for one in results)
    reader = Reader(bench.directory)
    shown = _shown_answers(bench, reader)
    return Report(
        title=f"Fine-tuning results on {_listed(titles) if len(titles) < 4 else f'{len(titles)} tasks'}",
        lead=f"Model: {models}. Device: {devices}.",
        tiles=(
            (str(len(results)), "finished runs"),
            (str(len(bench.records.failed)), "failed runs"),
            (str(len(bench.tasks)), "tasks"),
            (str(len({run.series for run in bench.runs})), "configurations"),
            (duration(sum(one.train_seconds for one in results)), "spent in training"),
        ),
        sections=(
            _overview(bench, reader),
            _tables(bench, reader, with_published=with_published),
            _scores(bench),
            _curves(bench),
            _speed(bench),
            _padding(bench),
            _confusions(shown),
            _hard_examples(shown),
            _environment(bench),
        ),
        version=version("isinglass"),
    )


def _overview(bench: Bench, reader: Reader) -> Section:
    """Which runs there are, and every hole: failed runs, damaged lines, answers that cannot be read, collapsed models."""
    unread = tuple((_name(run), reader.error(run)) for run in bench.runs if reader.error(run))
    holes = [
        _failed(bench),
        Table(
            title="Damaged lines of results.jsonl",
            columns=("line", "what is wrong"),
            rows=tuple((str(line.number), line.reason) for line in bench.records.damaged),
            notes=("No figure below includes what stood there.",),
        ),
        Table(
            title="Answers that cannot be read",
            columns=("run", "why"),
            rows=unread,
            notes=("These runs are not among the intervals, differences, matrices and mistakes.",),
        ),
    ]
    holes = [table for table in holes if table.rows]
    collapsed = [_name(run) for run in bench.runs if run.result.collapsed]
    notes = [f"Collapsed: every example of a scored set got the same label in {'; '.join(collapsed)}."] if collapsed else []
    if not holes and not collapsed:
        notes.append("Nothing is missing: every line of results.jsonl could be read, no run failed, no model collapsed.")
    return Section(key="runs", title="What ran, and what is missing", tables=[_finished(bench), *holes], notes=notes)


def _finished(bench: Bench) -> Table:
    configurations = sorted({run.series for run in bench.runs}, key=lambda one: one.colour)
    rows = []
    for name, runs in bench.tasks.items():
        seeds = {series: ", ".join(str(run.result.seed) for run in some) for series, some in by_series(runs).items()}
        rows.append((title_of(name), *(seeds.get(series, "-") for series in configurations)))
    columns = ("task", *(series.label for series in configurations))
    return Table(title="Seeds of the finished runs", columns=columns, rows=tuple(rows))


def _failed(bench: Bench) -> Table:
    rows = [
        (
            title_of(one.config["task"]),
            label(traits(one.config, one.start_from), bench.shared),
            str(one.config["seed"]),
            one.error,
        )
        for one in bench.records.failed
    ]
    return Table(
        title="Failed runs",
        columns=("task", "configuration", "seed", "error"),
        rows=tuple(rows),
        notes=("No figure below includes them.",),
    )


def _tables(bench: Bench, reader: Reader, *, with_published: bool) -> Section:
    results, failed = bench.records.results, bench.records.failed
    known = [run.result for run in bench.runs if not reader.error(run)]
    tables = []
    if any(one.backend == "torch" for one in results):
        tables.append(pytorch_table(results, failed, clock=CLOCK, with_published=with_published, tasks=bench.described))
    if any(one.backend == "tensorflow" and one.task == "mrpc" for one in results):
        tables.append(tensorflow_table(results, failed, with_published=with_published, tasks=bench.described))
    if known:
        tables.append(scores_table(known, reader, failed, tasks=bench.described))
        tables.append(differences_table(known, reader, tasks=bench.described))
    unknown = [run for run in bench.runs if reader.error(run)]
    return Section(
        key="tables",
        title="Tables",
        notes=[f"Not among the intervals and differences: {'; '.join(_groups(unknown))}."] if unknown else [],
        tables=tables,
        folded=[_every_run(bench)],
    )


def _every_run(bench: Bench) -> Table:
    rows = []
    for run in bench.runs:
        one = run.result
        speed = (
            duration(one.train_seconds),
            f"{one.examples_per_second:.1f}",
            f"{one.tokens_per_second:,.0f}",
            f"{one.compile_seconds:.1f}",
            f"{one.evaluation_seconds:.1f}",
            f"{one.peak_memory_bytes / 2**20:,.0f}",
        )
        rows += [
            (
                title_of(one.task),
                run.series.label,
                str(one.seed),
                split,
                f"{metric} (as the labels)" if metric.lower_is_better else metric,
                metric.text(score.value),
                "-" if score.majority is None else metric.text(score.majority),
                *speed,
            )
            for split, scores in one.scores.items()
            for metric, score in scores.items()
        ]
    what = ("task", "configuration", "seed", "set", "metric", "score (%)", "majority (%)")
    speeds = ("training", "examples/s", "real tokens/s", "compiling (s)", "evaluation (s)", "peak memory (MiB)")
    return Table(title=f"Every run ({len(bench.runs)})", columns=what + speeds, rows=tuple(rows))


def _scores(bench: Bench) -> Section:
    found = []
    for name, runs in bench.tasks.items():
        task = bench.described[name]
        panels = [_score_panel(runs, split, metric) for split in runs[0].result.scores for metric in task.metrics]
        found.append(Plot(plots.seed_scores(f"scores-{name}", task.title, panels), task.warning or ""))
    return Section(
        key="scores",
        title="Score of each seed",
        lead="A dot is one seed; the dashed line is what always answering the most frequent label would score. A run that "
        "sits on it answers no better than that, whatever its number looks like.",
        plots=found,
    )


def _score_panel(runs: Sequence[Run], split: str, metric: Metric) -> ScorePanel:
    scores: dict[Series, list[float | None]] = {}
    majority = None
    for run in runs:
        score = run.result.scores[split][metric]
        scores.setdefault(run.series, []).append(None if score.value is None else metric.scale * score.value)
        if score.majority is not None and not metric.lower_is_better:
            majority = metric.scale * score.majority
    several = len(runs[0].result.scores) > 1
    prefix = f"{split.removeprefix('dev_')}, " if several else ""
    return ScorePanel(label=f"{prefix}{metric.axis}", scores=scores, majority=majority)


def _curves(bench: Bench) -> Section:
    found, notes, rows = [], [], []
    for name, runs in bench.tasks.items():
        losses: dict[Series, list[Float64[np.ndarray, " steps"]]] = {}
        for run in runs:
            try:
                losses.setdefault(run.series, []).append(_losses(bench.directory, run.result))
            except DataError as error:
                notes.append(f"{_name(run)} is left out: {error}")
        losses = {series: some for series, some in losses.items() if some}
        for series, some in losses.items():
            ends = [(float(smoothed[0]), float(smoothed[-1])) for smoothed in map(plots.smooth, some)]
            first, last = np.mean(ends, 0)
            rows.append((title_of(name), series.label, str(len(some)), str(len(some[0])), f"{first:.3f}", f"{last:.3f}"))
        if losses:
            found.append(Plot(plots.learning_curves(f"curves-{name}", title_of(name), losses)))
    table = Table(
        title="Training loss in figures",
        columns=("task", "configuration", "seeds", "steps", "loss at the first steps", "loss at the last steps"),
        rows=tuple(rows),
        notes=("Means over the seeds of the smoothed loss.",),
    )
    return Section(
        key="curves",
        title="Learning curves",
        lead="Strong lines: the training loss of each seed, each step averaged with its neighbours (a twentieth of all "
        "steps together). Faint line: the loss of the first seed's own steps.",
        notes=notes,
        plots=found,
        folded=[table] if rows else [],
    )


def _losses(directory: Path, result: RunResult) -> Float64[np.ndarray, " steps"]:
    if not result.predictions:
        raise DataError("its result names no files.")
    name = str(Path(next(iter(result.predictions.values()))).parent / "steps.jsonl")
    path = file_below(directory, name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        losses = np.array([float(json.loads(line)["loss"]) for line in lines])
    except FileNotFoundError:
        raise DataError(f"{name} does not exist.") from None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(f"{name} cannot be read: {shortened(str(error), 200)}.") from None
    if not len(losses) or not np.isfinite(losses).all():
        raise DataError(f"{name} has no steps, or a loss that is no number.")
    return losses


def _speed(bench: Bench) -> Section:
    found = []
    for name, runs in bench.tasks.items():
        timed = by_series([run for run in runs if run.result.epoch_seconds])
        if timed:
            panels = [
                SpeedPanel(
                    label=label, values={series: [measure(run.result) for run in some] for series, some in timed.items()}
                )
                for label, measure in MEASURES.items()
            ]
            found.append(Plot(plots.speed_bars(f"speed-{name}", title_of(name), panels)))
    return Section(
        key="speed",
        title="Throughput and training time",
        lead=f"Bars are means over the seeds, thin lines reach from the lowest run to the highest. {CLOCK}",
        plots=found,
        folded=[
            dataclasses.replace(
                speed_table(bench.records.results, clock=CLOCK, tasks=bench.described), title="Speed in figures"
            )
        ],
    )


def _padding(bench: Bench) -> Section:
    found, rows = [], []
    for name, runs in bench.tasks.items():
        kinds: dict[tuple[str, int, tuple[int, ...]], RunResult] = {}  # what was tokenized alike is shown once
        for one in (run.result for run in runs):
            if sum(one.train_lengths):
                kinds.setdefault((one.model, one.config["max_length"], tuple(one.train_lengths)), one)
        for i, one in enumerate(kinds.values()):
            title = title_of(name) if len(kinds) == 1 else f"{title_of(name)}, {short_name(one.model)}"
            longest = int(one.config["max_length"])
            svg = plots.length_histogram(f"lengths-{name}-{i}", printable(title), one.train_lengths, longest)
            examples, tokens = sum(one.train_lengths), sum(n * count for n, count in enumerate(one.train_lengths))
            padded, cut = examples * longest, one.truncated_share
            caption = (
                f"Padded to {longest}, {examples:,} training examples are {padded:,} tokens an epoch; {tokens:,} of them "
                f"are text, and {1 - tokens / padded:.0%} need not be computed. {cut:.1%} of the examples are cut."
            )
            found.append(Plot(svg, caption))
            shares = (f"{100 * (1 - tokens / padded):.1f}", f"{100 * cut:.1f}")
            mean = f"{tokens / examples:.1f}"
            rows.append((title_of(name), short_name(one.model), f"{examples:,}", mean, str(longest), *shares))
    table = Table(
        title="Padding in figures",
        columns=("task", "model", "examples", "mean length", "max_length", "padding not computed (%)", "examples cut (%)"),
        rows=tuple(rows),
    )
    return Section(
        key="padding",
        title="Padding that was not computed",
        lead="Above, how many training examples have each length. Below, to scale: at each position, the examples that "
        "still have text there, and those that padding would have filled up.",
        plots=found,
        folded=[table] if rows else [],
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One split's answers, of the first seed of one configuration."""

    run: Run
    task: Task
    split: str
    answers: Answers

    @property
    def title(self) -> str:
        """`MRPC`, or `MNLI dev_matched` where there are several sets."""
        return f"{self.task.title} {self.split}" if len(self.run.result.scores) > 1 else self.task.title


def _shown_answers(bench: Bench, reader: Reader) -> list[Shown]:
    return [
        Shown(run=run, task=bench.described[name], split=split, answers=reader(run.result, split))
        for name, runs in bench.tasks.items()
        for split in runs[0].result.scores
        for run in [some[0] for some in by_series([run for run in runs if not reader.error(run)]).values()]
    ]


def _confusions(shown: Sequence[Shown]) -> Section:
    tables: dict[str, list[Table]] = {}
    for one in shown:
        tables.setdefault(one.title, []).append(_answers_table(one))
    return Section(
        key="answers",
        title="Predicted against true",
        lead="One model for each configuration: that of its first seed. Each row of a matrix is one true label, and its "
        "percentages add up to 100; scores of a regression are dots, right on the dashed line.",
        plots=[Plot(_answers_plot(one)) for one in shown if one.task.kind is REGRESSION or _has_matrix(one.task)],
        narrow=True,
        folded=[
            Table(title=f"{title} in figures", columns=some[0].columns, rows=tuple(row for one in some for row in one.rows))
            for title, some in tables.items()
        ],
    )


def _answers_plot(shown: Shown) -> str:
    series, answers = shown.run.series, shown.answers
    key = f"answers-{shown.task.name}-{shown.split}-{series.colour}"
    if shown.task.kind is REGRESSION:
        truth, predicted = answers.truth.astype(np.float64), answers.predicted.astype(np.float64)
        low, high = shown.task.score_range
        ends = (low, high) if high < np.inf else (float(truth.min()), float(truth.max()))  # the user's own have no bounds
        return plots.value_scatter(key, shown.title, series, truth, predicted, ends)
    return plots.confusion_matrix(key, shown.title, series, _label_names(shown.task), _confusion(answers))


def _has_matrix(task: Task) -> bool:
    return task.kind is not MULTILABEL and len(task.labels or ()) <= MOST_LABELS


def _answers_table(shown: Shown) -> Table:
    if shown.task.kind is REGRESSION:
        return _scatter_table(shown)
    if shown.task.kind is MULTILABEL:
        return _label_table(shown)
    return _confusion_table(shown) if _has_matrix(shown.task) else _frequent_confusions(shown)


def _label_table(shown: Shown) -> Table:
    """Of each of several labels: how often it was there, given, and both."""
    truth, given = shown.answers.truth > 0, shown.answers.predicted > 0
    counts = zip(_label_names(shown.task), truth.sum(0), given.sum(0), (truth & given).sum(0), strict=True)
    return Table(
        title=shown.title,
        columns=("configuration", "label", "true", "predicted", "both"),
        rows=tuple((shown.run.series.label, name, *(f"{count:,}" for count in found)) for name, *found in counts),
    )


def _frequent_confusions(shown: Shown) -> Table:
    """Of many labels, the pairs that are taken for each other most often."""
    names, counts = _label_names(shown.task), _confusion(shown.answers)
    np.fill_diagonal(counts, 0)
    most = [divmod(int(place), len(names)) for place in np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]]
    return Table(
        title=shown.title,
        columns=("configuration", "true label", "predicted label", "examples"),
        rows=tuple((shown.run.series.label, names[i], names[j], f"{counts[i, j]:,}") for i, j in most if counts[i, j]),
    )


def _scatter_table(shown: Shown) -> Table:
    errors = np.abs(shown.answers.predicted.astype(np.float64) - shown.answers.truth)
    row = (shown.run.series.label, f"{len(errors):,}", f"{errors.mean():.3f}")
    return Table(title=shown.title, columns=("configuration", "examples", "mean absolute error"), rows=(row,))


def _confusion_table(shown: Shown) -> Table:
    names = _label_names(shown.task)
    counts = zip(names, _confusion(shown.answers), strict=True)
    return Table(
        title=shown.title,
        columns=("configuration", "true label", *(f"predicted {name}" for name in names)),
        rows=tuple((shown.run.series.label, name, *(f"{count:,}" for count in row)) for name, row in counts),
    )


def _label_names(task: Task) -> list[str]:
    """`entailment`; where labels are numbers, `1 (equivalent)`."""
    words = task.label_words or task.labels or ()
    return [name if word == name else f"{name} ({word})" for name, word in zip(task.labels or (), words, strict=True)]


def _confusion(answers: Answers) -> Int64[np.ndarray, "true predicted"]:
    """How often each true label (rows) got each answer (columns)."""
    size = len(answers.labels or ())
    counts: Int64[np.ndarray, "true predicted"] = np.zeros((size, size), np.int64)
    np.add.at(counts, (answers.truth.astype(np.int64), answers.predicted.astype(np.int64)), 1)
    return counts


def _hard_examples(shown: Sequence[Shown]) -> Section:
    tasks: dict[str, list[Shown]] = {}
    for one in shown:
        tasks.setdefault(one.run.result.task, []).append(one)
    return Section(
        key="mistakes",
        title="The most confident mistakes",
        lead=f"Of the models above, taken together: up to {HARD_EXAMPLES} examples for each task, by the probability of the "
        "wrong answer; for a regression, by the size of the error. Each example stands once, with the configuration that "
        "was most confident, and how many of them were wrong. A label that all of them contradict may itself be wrong.",
        folded=[_mistakes(some[0].task, some) for some in tasks.values()],
    )


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One model's wrong answer: `weight` is its probability, or the size of a regression's error."""

    shown: Shown
    example: int
    weight: float


def _mistakes(task: Task, shown: Sequence[Shown]) -> Table:
    worst: dict[tuple[str, int], Mistake] = {}
    wrong: dict[tuple[str, int], int] = {}
    for mistake in (mistake for one in shown for mistake in _wrong_answers(one)):
        key = (mistake.shown.split, mistake.example)
        wrong[key] = wrong.get(key, 0) + 1
        if key not in worst or mistake.weight > worst[key].weight:
            worst[key] = mistake
    hardest = sorted(worst.items(), key=lambda item: -item[1].weight)[:HARD_EXAMPLES]
    models = len({one.run.series for one in shown})
    told = ("error",) if task.kind is REGRESSION else ("probability (%)", "wrong in")
    which = "largest errors" if task.kind is REGRESSION else f"of {len(worst):,} that a model got wrong"
    return Table(
        title=f"{task.title}: {len(hardest)} {which}",
        columns=("label", "answer", *told, *text_columns(task), "configuration", "set", "row"),
        rows=tuple(_mistake_row(task, mistake, f"{wrong[key]} of {models}") for key, mistake in hardest),
        notes=("Rows count from 0.",),
    )


def _mistake_row(task: Task, mistake: Mistake, wrong: str) -> tuple[str, ...]:
    answers, i, names = mistake.shown.answers, mistake.example, _label_names(task)
    texts = (_cut(printable(text)) for text in answers.texts[i])
    where = (mistake.shown.run.series.label, mistake.shown.split, str(i))
    if task.kind is REGRESSION:
        return (f"{answers.truth[i]:.2f}", f"{answers.predicted[i]:.2f}", f"{mistake.weight:.2f}", *texts, *where)
    label, answer = (_answer(labels[i], names) for labels in (answers.truth, answers.predicted))
    return (label, answer, f"{100 * mistake.weight:.1f}", wrong, *texts, *where)


def _answer(label: Any, names: Sequence[str]) -> str:
    """The name of a label, or of several, given as 0 and 1 for each."""
    return (
        names[int(label)] if np.ndim(label) == 0 else ", ".join(names[c] for c in np.flatnonzero(label).tolist()) or "none"
    )


def _wrong_answers(shown: Shown) -> list[Mistake]:
    """Every wrong answer; for a regression, every error."""
    answers = shown.answers
    if answers.probabilities is None:
        weights = np.abs(answers.predicted.astype(np.float64) - answers.truth)
    elif answers.truth.ndim == 2:  # of several labels, the one that is wrong most confidently
        chances = np.where(answers.predicted > 0, answers.probabilities, 1 - answers.probabilities)
        weights = np.where(answers.predicted == answers.truth, 0, chances).max(1, initial=0)
    else:
        weights = np.where(answers.is_right, 0, answers.probabilities.max(1, initial=0))
    weights = np.nan_to_num(weights)
    return [Mistake(shown=shown, example=int(i), weight=float(weights[i])) for i in np.flatnonzero(weights)]


def _environment(bench: Bench) -> Section:
    runs = bench.runs
    facts = _counted((name, value) for run in runs for name, value in _facts(run.result).items())
    notes: dict[str, list[Run]] = {}
    for run in runs:
        for note in run.result.notes:
            notes.setdefault(note, []).append(run)
    tables = [
        Table(
            title="Device and versions",
            columns=("what", "value", "runs"),
            rows=tuple((name, value, f"{count} of {len(runs)}") for (name, value), count in facts.items()),
        )
    ]
    if notes:
        tables.append(
            Table(
                title="Notes of the runs",
                columns=("note", "runs"),
                rows=tuple((note, "; ".join(_groups(some))) for note, some in notes.items()),
            )
        )
    return Section(
        key="environment",
        title="Environment, and how to repeat it",
        lead=(
            "In the commands, GLUE_DIR stands for the directory of the data: it holds MRPC/train.tsv and so on. "
            if any(run.result.config["data_dir"] is not None for run in runs)
            else ""
        )
        + (
            "TRAIN_FILE, VALIDATION_FILE and TEST_FILE stand for the user's own files. "
            if any(run.result.config["train_file"] for run in runs)
            else ""
        )
        + " ".join(
            f"{origin.upper()}_RUN stands for what the same settings and seed left on {title_of(origin)}."
            for origin in sorted({run.result.start_from for run in runs if run.result.start_from})
        ),
        tables=tables,
        commands=[Commands(title_of(name), _commands(task_runs)) for name, task_runs in bench.tasks.items()],
    )


def _facts(result: RunResult) -> dict[str, str]:
    commit = result.git_commit or "none: installed from a package"
    return {"device": result.device, "git commit": commit, **result.versions}


def _counted(facts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """How often each occurs; those with the same name stand together."""
    found: dict[str, dict[str, int]] = {}
    for name, value in facts:
        values = found.setdefault(name, {})
        values[value] = values.get(value, 0) + 1
    return {(name, value): count for name, values in found.items() for value, count in values.items()}


def _commands(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Configuration and seeds, and the command; a run that starts from another's weights has one of its own."""
    found = []
    for series, some in by_series(runs).items():
        results = [run.result for run in some]
        for alike in [[one] for one in results] if results[0].start_from else [results]:
            found.append((f"{series.label}, {_seeds(alike)}", _command(alike)))
    return found


def _command(results: Sequence[RunResult]) -> str:
    """The command line that trains a configuration again, with all of its seeds; what the recipe brings is left out."""
    config, start_from, seeds = results[0].config, results[0].start_from, [one.seed for one in results]
    changed = changed_settings(config) | ({"model": f"{start_from.upper()}_RUN/model"} if start_from else {})
    words = ["isinglass", "train", str(config["task"])]
    words += [] if config["data_dir"] is None else ["--data-dir", "GLUE_DIR"]
    for name in FILES:
        words += [f"--{name.replace('_', '-')}", name.upper()] if config[name] else []
    words += ["--backend", str(config["backend"]), "--precision", str(config["precision"])]
    words += [] if config["recipe"] == TrainConfig.recipe else ["--recipe", str(config["recipe"])]
    for name, value in changed.items():
        if name in FLAGS:
            words += [f"--{name.replace('_', '-')}", as_setting(value)]
        elif name in SWITCHES and value:
            words += [f"--{name.replace('_', '-')}"]
        elif name not in ("backend", "precision"):
            words += ["--set", f"{name}={as_setting(value)}"]
    command = shlex.join(words)
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        return f'for seed in {" ".join(map(str, seeds))}; do {command} --seed "$seed"; done'
    return f"{command} --seed {seeds[0]}" + (f" --runs {len(seeds)}" if len(seeds) > 1 else "")


# In words


def _name(run: Run) -> str:
    return f"{title_of(run.result.task)}, {run.series.label}, seed {run.result.seed}"


def _groups(runs: Sequence[Run]) -> list[str]:
    """`RTE, torch fp32, seeds 1, 2, 3` for each task and configuration."""
    alike: dict[str, list[RunResult]] = {}
    for run in runs:
        alike.setdefault(f"{title_of(run.result.task)}, {run.series.label}", []).append(run.result)
    return [f"{name}, {_seeds(some)}" for name, some in alike.items()]


def _seeds(results: Sequence[RunResult]) -> str:
    return f"seed{'s' if len(results) > 1 else ''} {', '.join(str(one.seed) for one in results)}"


def _listed(values: Iterable[str]) -> str:
    """`A, B and C`, each once."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT].rstrip()}…"
