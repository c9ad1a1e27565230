"""Which runs a bench consists of, in which order, what is left of them, and how long that will take."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isinglass.bench.presets import Selection
from isinglass.config import TrainConfig, as_dict, resolve
from isinglass.errors import ConfigError
from isinglass.results import RunResult, run_key
from isinglass.tasks import TASKS, Task, get_task

STARTED: Final = ("rte", "mrpc", "stsb")  # small sets of pairs, which fine-tuning on MNLI first helps (RoBERTa, ModernBERT)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run.

    Attributes:
        start_from: the run whose model this one begins with.
        keep_model: whether its model stays on the disk.
        predict_test: whether the test sets are predicted.
    """

    config: TrainConfig
    start_from: "PlannedRun | None" = None
    keep_model: bool = False
    predict_test: bool = False

    @property
    def key(self) -> str:
        """As `results.run_key`."""
        return run_key(as_dict(self.config), self.start_from.config.task if self.start_from else None)

    @property
    def name(self) -> str:
        """The run's directory: readable, and no other run's."""
        one = self.config
        compiler = "-xla" if one.xla else "-compiled" if one.compile else ""
        digest = hashlib.sha256(self.key.encode()).hexdigest()[:8]
        return f"{one.task}-{Path(one.model).name}-{one.backend}-{one.precision}{compiler}-seed{one.seed}-{digest}"

    @property
    def title(self) -> str:
        """For the display: what differs between the runs of a bench."""
        one = self.config
        compiler = " XLA" if one.xla else " compiled" if one.compile else ""
        start = f" from {_title(self.start_from.config.task)}" if self.start_from else ""
        return f"{_title(one.task)}{start} {one.model} {one.backend} {one.precision}{compiler} seed {one.seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs in their order, and the tasks left out with the reason."""

    runs: tuple[PlannedRun, ...]
    skipped: tuple[str, ...]


def make_plan(selection: Selection, data_dir: str | None) -> Plan:
    """Every combination of the selection, task by task; a run that others start from goes before them.

    Raises:
        ConfigError: an unknown name, a combination that no backend runs, or a task whose files are not there.
    """
    names, skipped = [*selection.tasks], list[str]()
    if "train_file" not in selection.settings:  # the user's own files have a task that nobody else knows
        names, skipped = _with_data([get_task(name) for name in names], data_dir, skip=selection.skip_missing)
    source = None if selection.start_from is None else get_task(selection.start_from).name
    if source is not None and source not in names:
        raise ConfigError(f"start-from is {source}, but {source} is not among the tasks that are run: add it to --tasks.")
    runs: dict[str, PlannedRun] = {}
    sources: dict[str, PlannedRun] = {}  # settings less the task's -> the run to start from
    for task in sorted(names, key=lambda name: name != source):
        for config in _configs(selection, task, data_dir):
            mark = repr((config.model, config.backend, config.precision, config.xla, config.compile, config.seed))
            run = PlannedRun(
                config=config,
                start_from=sources.get(mark) if task in STARTED else None,
                keep_model=selection.keep_models or task == source,
                predict_test=selection.predict_test,
            )
            if task == source:
                sources[mark] = run
            runs.setdefault(run.key, run)
    return Plan(runs=tuple(runs.values()), skipped=tuple(skipped))


def _configs(selection: Selection, task: str, data_dir: str | None) -> list[TrainConfig]:
    found = []
    for model in selection.models:
        for backend in selection.backends:
            for precision in selection.precisions:
                for compiler in _compilers(selection, backend):
                    flags = {"model": model, "backend": backend, "precision": precision, "data_dir": data_dir}
                    chosen = {**selection.settings, **flags, **compiler}
                    base = resolve(task=task, recipe=selection.recipe, flags=chosen, assignments=selection.assignments)
                    seeds = range(base.seed, base.seed + selection.seeds)
                    found += [replace(base, seed=seed) for seed in seeds]
    return found


def _compilers(selection: Selection, backend: str) -> list[dict[str, bool]]:
    choices: list[dict[str, bool]] = [{}]
    if selection.xla and backend == "tensorflow":
        choices.append({"xla": True})
    if selection.compile and backend == "torch":
        choices.append({"compile": True})
    return choices


def _with_data(tasks: Sequence[Task], data_dir: str | None, *, skip: bool) -> tuple[list[str], list[str]]:
    """Names of the tasks whose files are there, and a sentence on each that is left out."""
    present, skipped = [], []
    for task in tasks:
        if task.train is None:
            raise ConfigError(f"{task.title} has no training set: --predict-test predicts it after MNLI.")
        missing = [] if data_dir is None or not task.hub_config else _missing_files(task, Path(data_dir))
        if not missing:
            present.append(task.name)
        elif skip:
            skipped.append(f"{task.title} is left out: {missing[0]} is not there.")
        else:
            raise ConfigError(f"{task.title}: {missing[0]} is not there; leave the task out, or name another --data-dir.")
    if not present:
        raise ConfigError(f"None of the tasks has its files in {data_dir}: name a directory in GLUE's layout.")
    return present, skipped


def _title(task: str) -> str:
    """As tables spell it; a task of the user's own goes by its name."""
    return TASKS[task].title if task in TASKS else task


def _missing_files(task: Task, data_dir: Path) -> list[Path]:
    assert task.train is not None
    files = [data_dir / task.folder / split.file for split in (task.train, *task.dev)]
    return [file for file in files if not file.is_file()]


def test_sets(config: TrainConfig) -> dict[str, tuple[str, str]]:
    """Name in a result's `predictions` -> task and split of each test set whose file is there; AX is MNLI's too."""
    if config.train_file:
        return {"test": (config.task, "test")} if config.test_file else {}
    tasks = (config.task, "ax") if config.task == "mnli" else (config.task,)
    return {
        "ax" if task == "ax" else split.name: (task, split.name)
        for task in tasks
        for split in TASKS[task].test
        if config.data_dir is None or (Path(config.data_dir) / TASKS[task].folder / split.file).is_file()
    }


def left_to_do(plan: Plan, results: Sequence[RunResult], directory: Path) -> list[PlannedRun]:
    """The runs of which something is missing: the result, test predictions that are asked for, or a model.

    A model is missing if it is to be kept, or if a run that is left starts from it.
    """
    done = {run_key(result.config, result.start_from): result for result in results}

    def is_done(run: PlannedRun) -> bool:
        result = done.get(run.key)
        if result is None or (run.predict_test and not test_sets(run.config).keys() <= result.predictions.keys()):
            return False
        return not run.keep_model or run.key in sources or has_model(run)

    def has_model(run: PlannedRun) -> bool:
        return (directory / "runs" / run.name / "model" / "config.json").is_file()

    sources = {run.start_from.key for run in plan.runs if run.start_from}
    left = {run.key for run in plan.runs if not is_done(run)}
    needed = {run.start_from.key for run in plan.runs if run.key in left and run.start_from}
    return [run for run in plan.runs if run.key in left or (run.key in needed and not has_model(run))]
