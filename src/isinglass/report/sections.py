"""The report of a directory of runs: its sections, and the two files that hold them."""

import itertools
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64

from isinglass.baselines import MEANINGS
from isinglass.baselines import title_of as title_of_baseline
from isinglass.config import PLACES, SETTINGS, default_recipe
from isinglass.config.settings import TableSettings
from isinglass.errors import DataError, MissingDependencyError
from isinglass.metrics import Metric
from isinglass.names import duration, printable, short_name, shortened
from isinglass.report import plots
from isinglass.report.bench import Bench, Run, changed_settings, grouped, groups_of, setting_text, title_of
from isinglass.report.page import Plot, Report, Section
from isinglass.report.predicted import confusions, hard_examples, shown_answers
from isinglass.report.tables import (
    differences_table,
    pytorch_table,
    score_values,
    scores_table,
    speed_table,
    tensorflow_table,
)
from isinglass.results import CLOCK, RunResult, file_below
from isinglass.storage import replacing
from isinglass.tables import Table

FILES: Final = tuple(name for name in TableSettings.declared() if name in PLACES)
MEASURES: Final[Mapping[str, Callable[[RunResult], float]]] = {
    "examples/s": lambda result: result.examples_per_second,
    "real tokens/s": lambda result: result.tokens_per_second,
    "training (minutes)": lambda result: result.train_seconds / 60,
}


def write_report(directory: Path, *, with_published: bool = False) -> list[Path]:
    """Write `report.html` and `report.md` into a directory that `isinglass bench` filled, each whole or not at all.

    Args:
        with_published: show published rows of the two GLUE tables beside those of this directory.

    Raises:
        DataError: there are no results.
        MissingDependencyError: matplotlib is not installed.
        OSError: the files cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError("The report needs matplotlib: `pip install 'isinglass[report]'`.")
    report = make_report(Bench(directory), with_published=with_published)
    paths = [directory / "report.html", directory / "report.md"]
    for path in paths:
        with replacing(path) as partial:
            partial.write_text(report.written_as(path.name), encoding="utf-8")
    return paths


def make_report(bench: Bench, *, with_published: bool) -> Report:
    """Return the report; `with_published` shows published rows of the two GLUE tables beside the directory's own."""
    results, titles = [run.result for run in bench.runs], [task.title for task in bench.tasks]
    models, devices = _listed(short_name(run.model) for run in results), _listed(run.device for run in results)
    shown = shown_answers(bench)
    return Report(
        title=f"Fine-tuning results on {_listed(titles) if len(titles) < 4 else f'{len(titles)} tasks'}",
        lead=f"Model: {models}. Device: {devices}.",
        tiles=(
            (str(len(results)), "finished runs"),
            (str(len(bench.records.failed)), "failed runs"),
            (str(len(bench.tasks)), "tasks"),
            (str(len({run.series for run in bench.runs})), "configurations"),
            (duration(sum(run.train_seconds for run in results)), "spent in training"),
        ),
        sections=(
            _overview(bench),
            _tables(bench, with_published=with_published),
            _scores(bench),
            _curves(bench),
            _speed(bench),
            _padding(bench),
            confusions(shown),
            hard_examples(shown),
            _environment(bench),
        ),
    )


def _listed(values: Iterable[str]) -> str:
    """Return `A, B and C`, each once."""
    *most, last = dict.fromkeys(values)
    return f"{', '.join(most)} and {last}" if most else last


def _by_series(runs: Iterable[Run]) -> dict[plots.Series, list[Run]]:
    return grouped(runs, lambda run: run.series)


def _seeds(runs: Sequence[Run]) -> str:
    """Return `seeds 1, 2, 3`."""
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.result.seed) for run in runs)}"


def _names_of_groups(runs: Iterable[Run]) -> str:
    """Return `RTE, torch fp32, seeds 1, 2, 3` for each task and configuration."""
    groups = grouped(runs, lambda run: run.configuration)
    return "; ".join(f"{name}, {_seeds(members)}" for name, members in groups.items())


def _overview(bench: Bench) -> Section:
    """Return which runs there are, and what is missing: failed runs, damaged lines, unreadable predictions."""
    configurations = sorted({run.series for run in bench.runs}, key=lambda series: series.colour)
    finished = []
    for task, runs in bench.tasks.items():
        seeds = {series: ", ".join(str(run.result.seed) for run in same) for series, same in _by_series(runs).items()}
        finished.append((task.title, *(seeds.get(series, "-") for series in configurations)))
    failed = []
    for record in bench.records.failed:
        failed.append((title_of(record.config["task"]), bench.label_of(record), str(record.config["seed"]), record.error))
    damaged = [(str(line.number), line.reason) for line in bench.records.damaged]
    unread = [(run.name, run.unread) for run in bench.runs if run.unread]
    elsewhere = "intervals, differences, matrices and mistakes"
    holes = (  # title, columns, rows, note
        ("Failed runs", ("task", "configuration", "seed", "error"), failed, "They are not included in any figure below."),
        ("Damaged lines of results.jsonl", ("line", "error"), damaged, "Their runs are not included in any figure below."),
        ("Predictions that cannot be read", ("run", "reason"), unread, f"These runs are not included in {elsewhere}."),
    )
    tables = [
        Table(title=title, columns=columns, rows=tuple(rows), notes=(note,)) for title, columns, rows, note in holes if rows
    ]
    collapsed = [run.name for run in bench.runs if run.result.collapsed]
    notes = [f"Collapsed: every example of a scored set got the same label in {'; '.join(collapsed)}."] if collapsed else []
    if not tables and not collapsed:
        notes.append("Nothing is missing: every line of results.jsonl could be read, no run failed and no model collapsed.")
    columns = ("task", *(series.label for series in configurations))
    seeds_table = Table(title="Seeds of the finished runs", columns=columns, rows=tuple(finished))
    return Section(key="runs", tables=[seeds_table, *tables], notes=notes)


def _tables(bench: Bench, *, with_published: bool) -> Section:
    """Return the tables of all results, and a table of every run."""
    results = bench.records.results
    tables = []
    if any(run.backend == "torch" for run in results):
        tables.append(pytorch_table(bench.groups, with_published=with_published))
    if any(run.backend == "tensorflow" and run.task == "mrpc" for run in results):
        tables.append(tensorflow_table(bench.groups, with_published=with_published))
    if known := [run.result for run in bench.runs if not run.unread]:
        groups = groups_of(known, bench.records.failed, bench.described)
        tables += [scores_table(groups, bench.answers), differences_table(groups, bench.answers)]
    if any(run.result.baselines for run in bench.runs):
        tables.append(_baselines(bench.runs))
    unread = _names_of_groups(run for run in bench.runs if run.unread)
    notes = [f"Not included in intervals and differences: {unread}."] if unread else []
    return Section(key="tables", notes=notes, tables=tables, folded=[_every_run(bench)])


def _baselines(runs: Sequence[Run]) -> Table:
    """Return the simple models beside each run that was compared with them, and how far the run is above each."""
    rows = []
    for run in runs:
        for name, baseline in run.result.baselines.items():
            for split, gain in baseline.differences.items():
                metric = Metric(gain.metric)
                own = run.result.scores.get(split, {}).get(metric)
                scores = None if own is None else own.value, baseline.score(split, metric)
                figures = (*map(metric.text, scores), gain.text(), f"{baseline.seconds:.1f}")
                identity = (run.task.title, run.series.label, str(run.result.seed), split, metric)
                rows.append((*identity, title_of_baseline(name), *figures))
    what = ("task", "configuration", "seed", "set", "metric", "baseline")
    columns = (*what, "score", "score of the baseline", "difference", "seconds of the baseline")
    notes = tuple(f"{title_of_baseline(name)}: {meaning}, trained on the same rows." for name, meaning in MEANINGS.items())
    return Table(title="Simple models on the same rows", columns=columns, rows=tuple(rows), notes=notes)


def _every_run(bench: Bench) -> Table:
    rows = []
    for run in bench.runs:
        result = run.result
        speed = (
            duration(result.train_seconds),
            f"{result.examples_per_second:.1f}",
            f"{result.tokens_per_second:,.0f}",
            f"{result.compile_seconds:.1f}",
            f"{result.evaluation_seconds:.1f}",
            f"{result.peak_memory_bytes / 2**20:,.0f}",
        )
        for split, metric, score in result.each_score():
            name = f"{metric} (as the labels)" if metric.lower_is_better else metric
            majority = "-" if score.majority is None else metric.text(score.majority)
            identity = (run.task.title, run.series.label, str(result.seed), split, name)
            rows.append((*identity, metric.text(score.value), majority, *speed))
    what = ("task", "configuration", "seed", "set", "metric", "score (%)", "majority (%)")
    speeds = ("training", "examples/s", "real tokens/s", "compiling (s)", "evaluation (s)", "peak memory (MiB)")
    return Table(title=f"Every run ({len(bench.runs)})", columns=what + speeds, rows=tuple(rows))


def _scores(bench: Bench) -> Section:
    """Return a plot for each task: a dot for each seed, and what the most frequent label scores."""
    drawn = []
    for task, runs in bench.tasks.items():
        panels = []
        splits, by_series = runs[0].result.scores, _by_series(runs)
        for split, metric in itertools.product(splits, task.metrics):
            majority = None if metric.lower_is_better else runs[-1].result.scores[split][metric].majority
            line = None if majority is None else metric.scale * majority
            values = {}
            for series, same in by_series.items():
                values[series] = metric.scale * score_values([run.result for run in same], split, metric)
            prefix = f"{split.removeprefix('dev_')}, " if len(splits) > 1 else ""
            panels.append(plots.Panel(label=f"{prefix}{metric.axis}", values=values, majority=line))
        drawn.append(Plot(plots.seed_scores(f"scores-{task.name}", task.title, panels), task.warning or ""))
    return Section(key="scores", plots=drawn)


def _curves(bench: Bench) -> Section:
    """Return the training loss of each seed against its steps."""
    drawn, notes, rows = [], [], []
    for task, runs in bench.tasks.items():
        losses: dict[plots.Series, list[Float64[np.ndarray, " steps"]]] = {}
        for run in runs:
            try:
                loss = _losses(bench.directory, run.result)
            except DataError as error:
                notes.append(f"{run.name} is left out: {error}")
            else:
                losses.setdefault(run.series, []).append(loss)
        for series, same in losses.items():
            first, last = np.mean([plots.smooth(loss)[[0, -1]] for loss in same], 0)
            rows.append((task.title, series.label, str(len(same)), str(len(same[0])), f"{first:.3f}", f"{last:.3f}"))
        if losses:
            drawn.append(Plot(plots.learning_curves(f"curves-{task.name}", task.title, losses)))
    columns = ("task", "configuration", "seeds", "steps", "loss at the first steps", "loss at the last steps")
    note = "Means over the seeds of the smoothed loss."
    table = Table(title="Training loss in figures", columns=columns, rows=tuple(rows), notes=(note,))
    return Section(key="curves", notes=notes, plots=drawn, folded=[table] if rows else [])


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
    """Return throughput and training time, as bars and in figures."""
    drawn = []
    for task, runs in bench.tasks.items():
        timed = _by_series(run for run in runs if run.result.epoch_seconds)
        panels = []
        for label, measure in MEASURES.items():
            values = {series: np.array([measure(run.result) for run in same]) for series, same in timed.items()}
            panels.append(plots.Panel(label=label, values=values))
        if timed:
            drawn.append(Plot(plots.speed_bars(f"speed-{task.name}", task.title, panels)))
    table = speed_table(bench.groups, title="Speed in figures")
    return Section(key="speed", facts={"clock": CLOCK}, plots=drawn, folded=[table])


def _padding(bench: Bench) -> Section:
    """Return how long the training examples are, and the padding that was not computed."""
    drawn, rows = [], []
    for task, runs in bench.tasks.items():
        tokenized = [run.result for run in runs if sum(run.result.train_lengths)]
        alike = grouped(tokenized, lambda run: (run.model, run.config["max_length"], tuple(run.train_lengths)))
        for i, (result, *_) in enumerate(alike.values()):
            title = task.title if len(alike) == 1 else f"{task.title}, {short_name(result.model)}"
            longest, lengths, cut = int(result.config["max_length"]), result.train_lengths, result.truncated_share
            svg = plots.length_histogram(f"lengths-{task.name}-{i}", printable(title), lengths, longest)
            examples, tokens = sum(lengths), sum(n * count for n, count in enumerate(lengths))
            avoided = 1 - tokens / (examples * longest)
            caption = (
                f"Padded to {longest}, {examples:,} training examples are {examples * longest:,} tokens an epoch; "
                f"{tokens:,} of them are text, and {avoided:.0%} need not be computed. {cut:.1%} of the examples are cut."
            )
            drawn.append(Plot(svg, caption))
            what = (task.title, short_name(result.model), f"{examples:,}", f"{tokens / examples:.1f}", str(longest))
            rows.append((*what, f"{100 * avoided:.1f}", f"{100 * cut:.1f}"))
    columns = ("task", "model", "examples", "mean length", "max_length", "padding not computed (%)", "examples cut (%)")
    table = Table(title="Padding in figures", columns=columns, rows=tuple(rows))
    return Section(key="padding", plots=drawn, folded=[table] if rows else [])


def _environment(bench: Bench) -> Section:
    """Return devices, versions, notes, and a command for each configuration."""
    tables = [_device_table(bench.runs), *_notes_tables(bench.runs)]
    commands = {task.title: _commands(runs) for task, runs in bench.tasks.items()}
    facts = {"placeholders": " ".join(_placeholders(bench.runs))}
    return Section(key="environment", facts=facts, tables=tables, commands=commands)


def _device_table(runs: Sequence[Run]) -> Table:
    """Return each device, commit and version, and how many runs have it."""
    facts: dict[str, Counter[str]] = {}  # what -> how many runs have each value
    for run in runs:
        result = run.result
        commit = result.git_commit or "none: installed from a package"
        for name, value in {"device": result.device, "git commit": commit, **result.versions}.items():
            facts.setdefault(name, Counter())[value] += 1
    rows = [(name, value, f"{n} of {len(runs)}") for name, values in facts.items() for value, n in values.items()]
    return Table(title="Device and versions", columns=("what", "value", "runs"), rows=tuple(rows))


def _notes_tables(runs: Sequence[Run]) -> list[Table]:
    """Return one table of each note and the runs that have it; none if no run has a note."""
    notes = grouped(((note, run) for run in runs for note in run.result.notes), lambda pair: pair[0])
    rows = tuple((note, _names_of_groups(run for _, run in pairs)) for note, pairs in notes.items())
    return [Table(title="Notes of the runs", columns=("note", "runs"), rows=rows)] if rows else []


def _placeholders(runs: Sequence[Run]) -> list[str]:
    """Return what the names in capitals in the commands stand for."""
    sentences = []
    if any(run.result.config["data_dir"] is not None for run in runs):
        sentences.append(
            "In the commands, GLUE_DIR stands for the directory of the data: it holds MRPC/train.tsv and so on."
        )
    if any(run.result.config[name] for run in runs for name in FILES):
        sentences.append("TRAIN_FILE, VALIDATION_FILE and TEST_FILE stand for the user's own files.")
    for origin in sorted({run.result.start_from for run in runs if run.result.start_from}):
        left = f"what the same settings and seed left on {title_of(origin)}"
        sentences.append(f"{origin.upper()}_RUN stands for {left}.")
    return sentences


def _commands(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return configuration, seeds and command; a run that starts from another's weights has a command of its own."""
    commands = []
    for series, same in _by_series(runs).items():
        for alike in [[run] for run in same] if same[0].result.start_from else [same]:
            commands.append((f"{series.label}, {_seeds(alike)}", _command([run.result for run in alike])))
    return commands


def _command(results: Sequence[RunResult]) -> str:
    """Return the command that trains a configuration again, with all of its seeds and without what the recipe sets."""
    config, start_from, seeds = results[0].config, results[0].start_from, [run.seed for run in results]
    changed = changed_settings(config) | ({"model": f"{start_from.upper()}_RUN/model"} if start_from else {})
    words = ["isinglass", "train", str(config["task"])]
    words += [] if config["data_dir"] is None else ["--data-dir", "GLUE_DIR"]
    for name in FILES:
        words += [SETTINGS[name].flag, name.upper()] if config[name] else []
    words += ["--backend", str(config["backend"]), "--precision", str(config["precision"])]
    words += [] if config["recipe"] == default_recipe(config) else ["--recipe", str(config["recipe"])]
    for name, value in changed.items():
        if name not in ("backend", "precision"):
            words += _option(name, value)
    command = shlex.join(words)
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        return f'for seed in {" ".join(map(str, seeds))}; do {command} --seed "$seed"; done'
    return f"{command} --seed {seeds[0]}" + (f" --runs {len(seeds)}" if len(seeds) > 1 else "")


def _option(name: str, value: object) -> list[str]:
    """Return the words that set a value on the command line: by its flag, or by --set where it has none."""
    setting = SETTINGS[name]
    if setting.panel is None or value in (None, False):
        return ["--set", f"{name}={setting_text(value)}"]
    return [setting.flag] if value is True else [setting.flag, setting_text(value)]
