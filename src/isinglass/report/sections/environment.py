"""Devices, versions and notes, and the commands that repeat the runs."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from isinglass.config import PLACES, SETTINGS, TrainConfig
from isinglass.config.settings import TableSettings
from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Bench, Run, as_setting, by_series, changed_settings
from isinglass.report.sections.parts import Commands, Section, names_of_groups, names_of_seeds
from isinglass.results import RunResult
from isinglass.tables import Table

FILES: Final = tuple(name for name in TableSettings.declared() if name in PLACES)


def environment(bench: Bench) -> Section:
    """Return devices, versions, notes, and a command for each configuration."""
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
                rows=tuple((note, "; ".join(names_of_groups(some))) for note, some in notes.items()),
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
    """Count how often each fact occurs; those with the same name stand together."""
    found: dict[str, dict[str, int]] = {}
    for name, value in facts:
        values = found.setdefault(name, {})
        values[value] = values.get(value, 0) + 1
    return {(name, value): count for name, values in found.items() for value, count in values.items()}


def _commands(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return configuration, seeds and command; a run that starts from another's weights has a command of its own."""
    found = []
    for series, some in by_series(runs).items():
        results = [run.result for run in some]
        for alike in [[one] for one in results] if results[0].start_from else [results]:
            found.append((f"{series.label}, {names_of_seeds(alike)}", _command(alike)))
    return found


def _command(results: Sequence[RunResult]) -> str:
    """Return the command that trains a configuration again, with all of its seeds and without what the recipe sets."""
    config, start_from, seeds = results[0].config, results[0].start_from, [one.seed for one in results]
    changed = changed_settings(config) | ({"model": f"{start_from.upper()}_RUN/model"} if start_from else {})
    words = ["isinglass", "train", str(config["task"])]
    words += [] if config["data_dir"] is None else ["--data-dir", "GLUE_DIR"]
    for name in FILES:
        words += [SETTINGS[name].flag, name.upper()] if config[name] else []
    words += ["--backend", str(config["backend"]), "--precision", str(config["precision"])]
    words += [] if config["recipe"] == TrainConfig.recipe else ["--recipe", str(config["recipe"])]
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
        return ["--set", f"{name}={as_setting(value)}"]
    return [setting.flag] if value is True else [setting.flag, as_setting(value)]
