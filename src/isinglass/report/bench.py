"""The runs of a directory by task and configuration, and the words for a configuration."""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from isinglass.config import PLACES, RECIPES, as_dict, resolve
from isinglass.config.settings import TableSettings
from isinglass.errors import DataError, IsinglassError
from isinglass.names import brief, printable, short_name
from isinglass.report.answers import Reader, tasks_of
from isinglass.report.plots import Series
from isinglass.results import RESULTS, FailedRun, RunResult, read_records
from isinglass.tasks import TASKS, Split, Task

NO_SETTING: Final = ("seed", *PLACES)  # what runs of one configuration may differ in
# how the user's own files are read: the same in all runs of a task
READING: Final = {*TableSettings.declared()} - {*PLACES, "validation_fraction"}
Item = TypeVar("Item")
Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one configuration of one task, by seed, and those that failed.

    Attributes:
        settings: what all of them share: the config but `NO_SETTING`, the precision that ran, and `start_from`.
    """

    task: Task
    settings: dict[str, Any]
    runs: list[RunResult] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)

    @property
    def precision(self) -> str:
        """The precision that ran."""
        return str(self.settings["precision"])

    @property
    def collapsed(self) -> int:
        """How many runs gave every example of a split the same label."""
        return sum(run.collapsed for run in self.runs)

    def words(self, names: Collection[str]) -> list[str]:
        """Return the settings of those names in words, in the order of the config."""
        words = [_in_words(name, value) for name, value in self.settings.items() if name in names]
        return [word for word in words if word]

    def label(self, differing: set[str]) -> str:
        """Return backend, precision and the settings `differing` in words, without the task: `torch bf16, compiled`."""
        return ", ".join([_engine(self.settings), *self.words(differing - {"backend", "precision"})])

    def respects(self, other: "Group") -> set[str]:
        """Return the settings in which another group differs, without those that come with another recipe."""
        differing = differing_settings([self, other])
        if "recipe" in differing:
            for group in (self, other):
                recipe = RECIPES.get(group.settings["recipe"])
                differing -= {*recipe.values_for(group.task.name)} if recipe else set()
                differing -= {"chosen", *group.settings["chosen"]}
        return differing

    def mean(self, name: str) -> float:
        """Return the mean of a field over the runs."""
        return float(np.mean([getattr(run, name) for run in self.runs]))


@dataclass(frozen=True)
class Run:
    """A finished run, and the configuration that it shares with the other seeds, and with tasks that follow their recipe.

    Attributes:
        unread: why some of its predictions cannot be read; empty if all can.
    """

    result: RunResult
    task: Task
    series: Series
    unread: str

    @property
    def configuration(self) -> str:
        """What it shares with the other seeds."""
        return f"{self.task.title}, {self.series.label}"

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.configuration}, seed {self.result.seed}"


class Bench:
    """What `isinglass bench` left in a directory.

    Attributes:
        records: all of `results.jsonl`.
        described: all tasks by name, those of the user's own last.
        groups: all runs, finished or failed, as the tables show them.
        answers: reads the predictions of a run for a split.
        shared: what is the same in all configurations and so needs no mention.
        runs: those that are finished, in the order of `described`, then by configuration and seed.
        tasks: the same by task.

    Raises:
        ConfigError, DataError: there are no results, or one of them is not of a task's scores.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records = read_records(directory)
        results, failed = self.records.results, self.records.failed
        if not results:
            raise DataError(
                f"{directory / RESULTS} holds no finished run ({len(failed)} failed, {len(self.records.damaged)} damaged): "
                f"`isinglass bench --output {directory}` adds some."
            )
        configs = [*(run.config for run in results), *(run.config for run in failed)]
        self.described = tasks_of(directory, (str(config["task"]) for config in configs))
        self.groups = groups_of(results, failed, self.described)
        self.answers = Reader(directory)
        traits = [_traits(run) for run in results]
        self.shared = {name for name, _ in set.intersection(*({*words.items()} for words in traits))}
        series: dict[str, Series] = {}
        self.runs: list[Run] = []
        for result, words in zip(results, traits, strict=True):
            found = series.setdefault(json.dumps(words), Series(self._label(words), len(series)))
            self.runs.append(Run(result, self.described[result.task], found, _unread(self.answers, result)))
        order = list(self.described)
        self.runs.sort(key=lambda run: (order.index(run.task.name), run.series.colour, run.result.seed))
        self.tasks = grouped(self.runs, lambda run: run.task)

    def label_of(self, record: RunResult | FailedRun) -> str:
        """Return the configuration of a run in words, without what all share."""
        return self._label(_traits(record))

    def _label(self, traits: Mapping[str, str]) -> str:
        rest = [word for name, word in traits.items() if word and name not in ("backend", "precision", *self.shared)]
        return printable(", ".join([_engine(traits), *rest]))


def _unread(answers: Reader, result: RunResult) -> str:
    try:
        for split in result.scores:
            answers(result, split)
    except IsinglassError as error:
        return str(error)
    return ""


def groups_of(
    results: Sequence[RunResult], failed: Sequence[FailedRun] = (), tasks: Mapping[str, Task] = TASKS
) -> list[Group]:
    """Return the runs by configuration, in the order of `tasks` and then of their first run. A seed's last run counts.

    Raises:
        ConfigError, DataError: see `check_same_version` and `check_tasks`.
    """
    check_same_version(results)
    check_tasks(results, tasks)
    amp = {result.backend: result.precision for result in results if result.config["precision"] == "amp"}
    found: dict[str, Group] = {}
    records: list[RunResult | FailedRun] = [*results, *failed]
    for record in records:
        settings = {name: value for name, value in record.config.items() if name not in NO_SETTING}
        settings["start_from"] = record.start_from
        if settings["precision"] == "amp":
            settings["precision"] = amp.get(settings["backend"], "amp")
        group = Group(task=tasks[settings["task"]], settings=settings)
        group = found.setdefault(json.dumps(settings, sort_keys=True), group)
        if isinstance(record, FailedRun):
            group.failed.append(record)
        else:
            others = [run for run in group.runs if run.seed != record.seed]
            group.runs[:] = sorted([*others, record], key=lambda run: run.seed)
    order = list(tasks)
    return sorted(found.values(), key=lambda group: order.index(group.task.name))


def by_variant(groups: Sequence[Group], *aside: str) -> Iterator[tuple[Task, str, list[Group]]]:
    """Yield the groups that differ only in the settings `aside`, with words that tell them from the task's others."""

    def others(group: Group) -> str:
        return json.dumps({name: value for name, value in group.settings.items() if name not in aside}, sort_keys=True)

    for members in grouped(groups, others).values():
        task = members[0].task
        differing = differing_settings([group for group in groups if group.task is task])
        yield task, ", ".join(members[0].words(differing.difference(aside))), members


def differing_settings(groups: Sequence[Group]) -> set[str]:
    """Return the settings in which groups of the same task differ."""
    pairs = itertools.combinations(groups, 2)
    return {name for a, b in pairs if a.task is b.task for name in a.settings if a.settings[name] != b.settings[name]}


def check_same_version(results: Sequence[RunResult]) -> None:
    """Refuse to show results of different versions of isinglass side by side.

    Raises:
        DataError: there are such; the message says which.
    """
    versions = grouped(results, lambda result: result.versions.get("isinglass", "unknown"))
    if len(versions) > 1:
        titles = {version: dict.fromkeys(title_of(run.task) for run in runs) for version, runs in versions.items()}
        listed = " and ".join(f"{version} ({', '.join(tasks)})" for version, tasks in titles.items())
        raise DataError(
            f"One table cannot hold results of isinglass {listed}: run all of them again with one version, or report each "
            f"version from a directory of its own."
        )


def check_tasks(results: Sequence[RunResult], tasks: Mapping[str, Task] = TASKS) -> None:
    """Refuse results whose sets or scores are not those of their task: who shows them looks them up by name.

    Raises:
        DataError: the message says which were expected.
    """
    for result in results:
        task = tasks[result.task]
        sets = [split.name for split in scored_splits(task)]
        if {*result.scores} != {*sets} or not all({*task.metrics} <= {*found} for found in result.scores.values()):
            raise DataError(
                f"A result of {task.title}, seed {result.seed}, lacks some of its scores, or has others: "
                f"{', '.join(task.metrics)} of {', '.join(sets) or 'no set'} were expected. Make the run again with "
                f"`isinglass bench`."
            )
        if result.start_from not in (None, *TASKS):
            raise DataError(
                f"A result of {task.title}, seed {result.seed}, says that it starts from {brief(result.start_from)}; "
                f"a task's name was expected."
            )


def _traits(record: RunResult | FailedRun) -> dict[str, str]:
    """Return what tells configurations apart, in words: settings other than the recipe's, the first weights, what ran."""
    telling = {"backend", "precision", "model", "recipe", "start_from", *changed_settings(record.config)} - READING
    settings = {**record.config, "start_from": record.start_from}
    words = {name: _in_words(name, value) for name, value in settings.items() if name in telling}
    ran = {"precision": record.precision, "device": record.device} if isinstance(record, RunResult) else {}
    return words | {"recipe": str(record.config["recipe"])} | ran


def changed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the recipe's, without task, seed and the paths of the data."""
    recipe = config["recipe"] if config["recipe"] in RECIPES else None
    usual = as_dict(resolve(task=config["task"], recipe=recipe))
    aside = ("task", "seed", "recipe", "chosen", *config["chosen"], *PLACES)
    return {name: value for name, value in config.items() if name not in aside and value != usual.get(name)}


def _engine(settings: Mapping[str, Any]) -> str:
    return f"{settings['backend']} {settings['precision']}"


def _in_words(name: str, value: Any) -> str:
    """Return `learning_rate 2e-05`, `compiled`, `from MNLI`; empty where there is nothing to say."""
    match name:
        case "backend" | "precision":
            return str(value)
        case "model":
            return short_name(value)
        case "start_from":
            return f"from {title_of(value)}" if value else ""
        case "compile" | "xla":
            return {"compile": "compiled", "xla": "XLA"}[name] if value else ""
    return f"{name} {setting_text(value)}"


def setting_text(value: object) -> str:
    """Return a value as `--set` reads it: `none`, `true`, `2e-05`."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def title_of(name: str) -> str:
    """Return the name of a task as tables spell it; that of the user's own task unchanged."""
    return TASKS[name].title if name in TASKS else name


def scored_splits(task: Task) -> tuple[Split, ...]:
    """Return the dev sets, and a test set of the user's own."""
    return task.dev if task.name in TASKS else (*task.dev, *task.test)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by their keys, in the order of each key's first item."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
