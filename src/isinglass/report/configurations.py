"""Configurations: runs that differ in nothing but their seed, and in where their data lay, and the words for them."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from isinglass.config import PLACES, RECIPES
from isinglass.errors import DataError
from isinglass.names import brief, short_name
from isinglass.report.own_tasks import known_task, scored_splits, title_of
from isinglass.results import FailedRun, RunResult
from isinglass.tasks import TASKS, Task

NO_SETTING: Final = ("seed", *PLACES)  # what runs of one configuration may differ in


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


def groups_of(
    results: Sequence[RunResult],
    failed: Sequence[FailedRun] = (),
    *,
    backend: str | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> list[Group]:
    """Return the runs by configuration, in the order of `tasks` and then of their first run. A seed's last run counts."""
    check_same_version(results)
    check_tasks(results, tasks)
    amp = {result.backend: result.precision for result in results if result.config["precision"] == "amp"}
    found: dict[str, Group] = {}
    records: list[RunResult | FailedRun] = [*results, *failed]
    for record in records:
        settings = {name: value for name, value in record.config.items() if name not in NO_SETTING}
        settings["start_from"] = record.start_from
        if backend not in (None, settings["backend"]):
            continue
        if settings["precision"] == "amp":
            settings["precision"] = amp.get(settings["backend"], "amp")
        group = Group(task=known_task(settings["task"], tasks), settings=settings)
        group = found.setdefault(json.dumps(settings, sort_keys=True), group)
        if isinstance(record, FailedRun):
            group.failed.append(record)
        else:
            group.runs[:] = sorted(
                [run for run in group.runs if run.seed != record.seed] + [record], key=lambda run: run.seed
            )
    order = list(tasks)
    return sorted(found.values(), key=lambda group: order.index(group.task.name))


def by_variant(groups: Sequence[Group], *aside: str) -> Iterator[tuple[tuple[Task, str], list[Group]]]:
    """Yield the groups that differ only in the settings `aside`, with words that tell them from the task's others."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        shared = {name: value for name, value in group.settings.items() if name not in aside}
        found.setdefault(json.dumps(shared, sort_keys=True), []).append(group)
    for members in found.values():
        task = members[0].task
        told = differing_settings([group for group in groups if group.task is task]).difference(aside)
        yield (task, ", ".join(words_of(members[0], told))), members


def differing_settings(groups: Sequence[Group]) -> set[str]:
    """Return the settings in which groups of the same task differ."""
    pairs = itertools.combinations(groups, 2)
    return {name for a, b in pairs if a.task is b.task for name in a.settings if a.settings[name] != b.settings[name]}


def respects(a: Group, b: Group) -> set[str]:
    """Return the settings in which two groups differ, without those that come with another recipe."""
    differing = differing_settings([a, b])
    if "recipe" in differing:
        for group in (a, b):
            recipe = RECIPES.get(group.settings["recipe"])
            differing -= {*recipe.values_for(group.task.name)} if recipe else set()
    return differing


def label(group: Group, differing: set[str]) -> str:
    """Return `torch bf16, compiled`: backend, precision, and the other settings that tell it from others."""
    words = words_of(group, differing - {"backend", "precision"})
    return ", ".join([f"{group.settings['backend']} {group.precision}", *words])


def words_of(group: Group, names: set[str]) -> list[str]:
    """Return the settings of those names in words, in the order of the config."""
    words = []
    for name, value in group.settings.items():
        if name not in names:
            continue
        match name:
            case "model":
                words.append(short_name(value))
            case "start_from":
                words += [f"from {title_of(value)}"] if value else []
            case "compile" | "xla":
                words += [{"compile": "compiled", "xla": "XLA"}[name]] if value else []
            case _:
                words.append(f"{name} {plain(value)}")
    return words


def check_same_version(results: Sequence[RunResult]) -> None:
    """Refuse to show results of different versions of isinglass side by side.

    Raises:
        DataError: there are such; the message says which.
    """
    found: dict[str, list[RunResult]] = {}
    for result in results:
        found.setdefault(result.versions.get("isinglass", "unknown"), []).append(result)
    if len(found) > 1:
        listed = " and ".join(f"{version} ({titles_of(some)})" for version, some in found.items())
        raise DataError(
            f"One table cannot hold results of isinglass {listed}: run all of them again with one version, or report each "
            f"version from a directory of its own."
        )


def check_tasks(results: Sequence[RunResult], tasks: Mapping[str, Task] = TASKS) -> None:
    """Refuse results whose task, sets or scores this version does not know: who shows them looks them up by name.

    Raises:
        ConfigError: there is no such task.
        DataError: the scores are not those of the task; the message says which those are.
    """
    for result in results:
        task = known_task(result.task, tasks)
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


def titles_of(results: Iterable[RunResult]) -> str:
    """Return the tasks of the results: `RTE, MRPC`."""
    return ", ".join(dict.fromkeys(title_of(result.task) for result in results))


def plain(value: object) -> str:
    """Return a setting's value as text: `2e-05`, not `2.0e-05`."""
    return f"{value:g}" if isinstance(value, float) else str(value)
