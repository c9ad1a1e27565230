"""The runs of a directory, each with the configuration that it shares with the other seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isinglass.config import PLACES, RECIPES, as_dict, resolve
from isinglass.config.settings import TableSettings
from isinglass.errors import DataError, IsinglassError
from isinglass.names import printable, short_name
from isinglass.report.answers import Answers, read_answers
from isinglass.report.configurations import check_tasks
from isinglass.report.own_tasks import known_task, tasks_of, title_of
from isinglass.report.plots import Series
from isinglass.results import RESULTS, Records, RunResult, read_records, run_key
from isinglass.tasks import Task

# how the user's own files are read: the same in all runs of a task
READING: Final = tuple(name for name in TableSettings.declared() if name not in (*PLACES, "validation_fraction"))


@dataclass(frozen=True)
class Run:
    """A finished run and the configuration that it shares with the other seeds."""

    result: RunResult
    series: Series


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A directory of runs.

    Attributes:
        described: all tasks by name, those of the user's own last.
        tasks: the finished runs of each, in the order of `described`, then by configuration and seed.
        shared: what is the same in all configurations and so needs no mention.
    """

    directory: Path
    records: Records
    described: Mapping[str, Task]
    tasks: Mapping[str, Sequence[Run]]
    shared: set[str]

    @property
    def runs(self) -> list[Run]:
        """All finished runs."""
        return [run for runs in self.tasks.values() for run in runs]


class Reader:
    """Reads each run's answers once, and keeps the texts of a split once for all runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._found: dict[str, Answers | IsinglassError] = {}
        self._texts: dict[tuple[str, str], list[tuple[str, ...]]] = {}

    def __call__(self, result: RunResult, split: str) -> Answers:
        """Return the predictions of a run for a split, as `read_answers`."""
        key = run_key(result.config, result.start_from) + split
        if key not in self._found:
            self._found[key] = self._read(result, split)
        found = self._found[key]
        if isinstance(found, IsinglassError):
            raise found
        return found

    def error(self, run: Run) -> str:
        """Return why some of the run's predictions cannot be read; empty if all can."""
        try:
            for split in run.result.scores:
                self(run.result, split)
        except IsinglassError as error:
            return str(error)
        return ""

    def _read(self, result: RunResult, split: str) -> Answers | IsinglassError:
        try:
            found = read_answers(self._directory, result, split)
        except IsinglassError as error:
            return error
        return dataclasses.replace(found, texts=self._texts.setdefault((result.task, split), found.texts))


def read_bench(directory: Path) -> Bench:
    """Read what `isinglass bench` left.

    Raises:
        ConfigError, DataError: there are no results, or one of them is not of a task's scores.
    """
    records = read_records(directory)
    if not records.results:
        raise DataError(
            f"{directory / RESULTS} holds no finished run ({len(records.failed)} failed, {len(records.damaged)} damaged): "
            f"`isinglass bench --output {directory}` adds some."
        )
    configs = [*(one.config for one in records.results), *(one.config for one in records.failed)]
    described = tasks_of(directory, (str(config["task"]) for config in configs))
    check_tasks(records.results, described)
    all_traits = [_ran(one) for one in records.results]
    names = {name for one in all_traits for name in one} - {"backend", "precision"}
    shared = {name for name in names if len({one.get(name, "") for one in all_traits}) == 1}
    runs: dict[str, list[Run]] = {}
    for run in _with_series(records.results, shared):
        runs.setdefault(known_task(run.result.task, described).name, []).append(run)
    return Bench(
        directory=directory,
        records=records,
        described=described,
        tasks={
            name: sorted(runs[name], key=lambda run: (run.series.colour, run.result.seed))
            for name in described
            if name in runs
        },
        shared=shared,
    )


def _with_series(results: Sequence[RunResult], shared: set[str]) -> list[Run]:
    """Return each run with its configuration: the same for all seeds, and for all tasks that follow their recipe."""
    series: dict[frozenset[tuple[str, str]], Series] = {}
    found = []
    for one in results:
        ran = _ran(one)
        found.append(Run(one, series.setdefault(frozenset(ran.items()), Series(label(ran, shared), len(series)))))
    return found


def _ran(result: RunResult) -> dict[str, str]:
    return traits(result.config, result.start_from) | {"precision": result.precision, "device": result.device}


def traits(config: Mapping[str, Any], start_from: str | None) -> dict[str, str]:
    """Return what tells configurations apart, in words: settings other than the recipe's, and the first weights."""
    changed = changed_settings(config)
    found = {
        "backend": str(config["backend"]),
        "precision": str(config["precision"]),
        "compile": "compiled" if changed.get("compile") else "",
        "xla": "XLA" if changed.get("xla") else "",
        "model": short_name(str(config["model"])),
        "recipe": str(config["recipe"]),
        "start_from": f"from {title_of(start_from)}" if start_from else "",
    }
    aside = {*found, *READING}
    return found | {name: f"{name} {as_setting(value)}" for name, value in changed.items() if name not in aside}


def changed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the recipe's, without task, seed and the paths of the data."""
    recipe = config["recipe"] if config["recipe"] in RECIPES else None
    usual = as_dict(resolve(task=config["task"], recipe=recipe))
    aside = ("task", "seed", "recipe", *PLACES)
    return {name: value for name, value in config.items() if name not in aside and value != usual.get(name)}


def label(of: Mapping[str, str], shared: set[str]) -> str:
    """Return a configuration in words, without what all share."""
    first = f"{of['backend']} {of['precision']}"
    rest = [value for name, value in of.items() if value and name not in ("backend", "precision", *shared)]
    return printable(", ".join([first, *rest]))


def by_series(runs: Sequence[Run]) -> dict[Series, list[Run]]:
    """Return the runs of each configuration, in their order."""
    found: dict[Series, list[Run]] = {}
    for run in runs:
        found.setdefault(run.series, []).append(run)
    return found


def as_setting(value: object) -> str:
    """Return a value as `--set` reads it."""
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
