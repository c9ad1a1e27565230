"""Which runs a bench consists of, in which order, and which of them are left to do.

Named benches are values: the two tables of the classic text-classification README, and all of GLUE.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from isinglass.config import TrainConfig, as_dict, resolve
from isinglass.errors import ConfigError
from isinglass.names import did_you_mean
from isinglass.results import RunResult, run_key
from isinglass.tasks import TASKS, Task, get_task, predicted_with

# small sets of pairs that gain by fine-tuning on MNLI first (RoBERTa, ModernBERT)
STARTED: Final = ("rte", "mrpc", "stsb")
COMPILERS: Final = {"tensorflow": "xla", "torch": "compile"}  # backend -> the setting of its compiler


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs a bench consists of: every combination of these values.

    Attributes:
        tasks, models, backends, precisions: names.
        xla, compile: with the compiler too, for the backends that know it.
        seeds: number of seeds, counted up from the setting `seed`.
        recipe: the settings to start from; None: `auto` for your own data, else `classic`. `settings` and then `assignments`
            (`setting=value`) take precedence over it.
        start_from: RTE, MRPC and STS-B start from the weights of this task's run with the same seed.
        predict_test: predict the test sets too, and AX after MNLI, as a submission needs.
        keep_models: write every model, not only those that other runs start from.
        table: how the results are shown.
        skip_missing: leave out tasks whose files are missing, and say so; otherwise they are an error.
    """

    tasks: tuple[str, ...]
    models: tuple[str, ...] = ("demo",)
    backends: tuple[str, ...] = ("torch",)
    precisions: tuple[str, ...] = ("fp32",)
    xla: bool = False
    compile: bool = False
    seeds: int = 1
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    assignments: tuple[str, ...] = ()
    start_from: str | None = None
    predict_test: bool = False
    keep_models: bool = False
    table: Literal["pytorch", "tensorflow", "scores"] = "scores"
    skip_missing: bool = False

    @property
    def has_own_files(self) -> bool:
        """Return whether the runs are on your own files, or a data set of the hub, instead of published tasks."""
        return "train_file" in self.settings or "dataset" in self.settings


# settings come from that README and its scripts. `amp` is fp16 on a GPU and bf16 on a CPU; tables say which of them ran
PRESETS: Final[Mapping[str, Selection]] = {
    # PyTorch: fp32 and fp16, batch 32, 2e-5 falling to 0, 3 epochs (WNLI 5), length 128
    "seed-pytorch": Selection(
        tasks=("mnli", "qnli", "rte", "wnli"),
        models=("bert-base-cased",),
        precisions=("fp32", "amp"),
        table="pytorch",
        skip_missing=True,
    ),
    # TensorFlow: MRPC, Adam with a constant 3e-5, 3 epochs, 3 runs; AMP and XLA are switches
    "seed-tensorflow": Selection(
        tasks=("mrpc",),
        models=("bert-base-cased",),
        backends=("tensorflow",),
        precisions=("fp32", "amp"),
        xla=True,
        seeds=3,
        settings={"learning_rate": 3e-5, "schedule": "constant"},
        table="tensorflow",
    ),
    "glue": Selection(
        tasks=("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"),
        models=("bert-base-cased",),
        predict_test=True,
        skip_missing=True,
    ),
}


def select(
    preset: str | None, *, own_files: Mapping[str, Any] | None = None, published: bool = False, **changes: Any
) -> Selection:
    """Return a preset, or the default selection of `tasks` or of your own files, with some values changed.

    Args:
        own_files: the settings that name your own files and say how to read them, and `task`, the name of the task that they
            make.
        published: must not be set with your own files, like what else is for GLUE's tasks.
        changes: field of a selection -> value; None leaves it as it is.

    Raises:
        ConfigError: neither preset nor tasks are named, or the preset is unknown, or does not go with your own files.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if own_files:
        for_glue = {"preset": preset, "published": published} | changes
        for name in ("preset", "tasks", "start_from", "published"):
            if for_glue.get(name):
                option = name.replace("_", "-")
                raise ConfigError(
                    f"--{option} is for GLUE's tasks, --train-file and --dataset are for others: leave one of them out."
                )
        if changes.get("predict_test") and not {"test_file", "dataset"} & own_files.keys():
            raise ConfigError("--predict-test predicts a test set: name it with --test-file.")
        settings = dict(own_files)
        changes |= {"tasks": (settings.pop("task"),), "settings": settings}
    if preset is None and "tasks" not in changes:
        raise ConfigError(f"Name a --preset ({', '.join(PRESETS)}), --tasks, a --train-file of your own, or a --dataset.")
    if preset is not None and preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS)
        raise ConfigError(f"There is no preset {preset!r}{hint}; there are {', '.join(PRESETS)}.")
    base = Selection(tasks=()) if preset is None else PRESETS[preset]
    if "tasks" in changes:
        changes["skip_missing"] = False
    return replace(base, **changes)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a bench.

    Attributes:
        start_from: the run whose model this run starts from.
        keep_model: whether its model is written.
        predict_test: whether the test sets are predicted.
    """

    config: TrainConfig
    start_from: "PlannedRun | None" = None
    keep_model: bool = False
    predict_test: bool = False

    @property
    def start_task(self) -> str | None:
        """Return the name of the task that the first weights were fine-tuned on."""
        return None if self.start_from is None else self.start_from.config.task

    @property
    def key(self) -> str:
        """Return what makes two runs the same, as `results.run_key` does."""
        return run_key(as_dict(self.config), self.start_task)

    @property
    def name(self) -> str:
        """Return the name of the run's directory: readable, and different for each run."""
        config = self.config
        compiler = "".join(f"-{name.lower()}" for name in _compilers_of(config))
        digest = hashlib.sha256(self.key.encode()).hexdigest()[:8]
        model = Path(config.model).name
        return f"{config.task}-{model}-{config.backend}-{config.precision}{compiler}-seed{config.seed}-{digest}"

    @property
    def title(self) -> str:
        """Return what tells the run apart from others of a bench, for people."""
        config = self.config
        start = "" if self.start_task is None else f" from {_title(self.start_task)}"
        compiler = "".join(f" {name}" for name in _compilers_of(config))
        task = f"{_title(config.task)}{start}"
        return f"{task} {config.model} {config.backend} {config.precision}{compiler} seed {config.seed}"

    def model_in(self, directory: Path) -> Path:
        """Return the directory of the run's model in that of the bench."""
        return directory / "runs" / self.name / "model"

    def has_model_in(self, directory: Path) -> bool:
        """Return whether the run's model was written."""
        return (self.model_in(directory) / "config.json").is_file()


def _compilers_of(config: TrainConfig) -> list[str]:
    switches = {"XLA": config.xla, "compiled": config.compile}
    return [name for name, is_on in switches.items() if is_on]


def _title(task: str) -> str:
    """Return a task's name as tables spell it; your own task has its name only."""
    return TASKS[task].title if task in TASKS else task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs in their order, and a sentence about each task that is left out."""

    runs: tuple[PlannedRun, ...]
    skipped: tuple[str, ...]


def make_plan(selection: Selection, data_dir: str | None) -> Plan:
    """Return every combination of the selection, task by task. A run that others start from comes before them.

    Args:
        data_dir: a directory in GLUE's layout; None: the hub.

    Raises:
        ConfigError: an unknown name, a combination that no backend runs, or a task whose files are missing.
    """
    names, skipped = _tasks_with_data(selection, data_dir)
    source = None if selection.start_from is None else get_task(selection.start_from).name
    if source is not None and source not in names:
        raise ConfigError(f"start-from is {source}, but {source} is not among the tasks that are run: add it to --tasks.")
    runs: list[PlannedRun] = []
    sources: list[PlannedRun] = []  # as many as each task has configurations, in the same order
    for task in sorted(names, key=lambda name: name != source):
        starts = sources if sources and task in STARTED else itertools.repeat(None)
        keeps_models = selection.keep_models or task == source
        runs_of_task = [
            PlannedRun(config=config, start_from=start, keep_model=keeps_models, predict_test=selection.predict_test)
            for config, start in zip(_configs(selection, task, data_dir), starts)
        ]
        runs += runs_of_task
        if task == source:
            sources = runs_of_task
    different = {run.key: run for run in runs}
    return Plan(runs=tuple(different.values()), skipped=tuple(skipped))


def _configs(selection: Selection, task: str, data_dir: str | None) -> list[TrainConfig]:
    """Return the settings of all runs of a task: without a compiler and, if the backend's is requested, with it."""
    configs = []
    for model, backend, precision in itertools.product(selection.models, selection.backends, selection.precisions):
        flags = {**selection.settings, "model": model, "backend": backend, "precision": precision, "data_dir": data_dir}
        choices: list[dict[str, bool]] = [{}]
        if backend in COMPILERS and getattr(selection, COMPILERS[backend]):
            choices.append({COMPILERS[backend]: True})
        for compiler in choices:
            assignments = selection.assignments
            first = resolve(task=task, recipe=selection.recipe, flags=flags | compiler, assignments=assignments)
            configs += [replace(first, seed=first.seed + number) for number in range(selection.seeds)]
    return configs


def _tasks_with_data(selection: Selection, data_dir: str | None) -> tuple[list[str], list[str]]:
    """Return the names of the tasks whose files exist, and a sentence about each task that is left out."""
    if selection.has_own_files:
        return [*selection.tasks], []
    present, skipped = [], []
    for task in map(get_task, selection.tasks):
        if task.train is None:
            raise ConfigError(f"{task.title} has no training set: --predict-test predicts it after MNLI.")
        missing = _first_missing(task, data_dir)
        if missing is None:
            present.append(task.name)
        elif selection.skip_missing:
            skipped.append(f"{task.title} is left out: {missing} is not there.")
        else:
            raise ConfigError(f"{task.title}: {missing} is not there; leave the task out, or name another --data-dir.")
    if not present:
        raise ConfigError(f"None of the tasks has its files in {data_dir}: name a directory in GLUE's layout.")
    return present, skipped


def _first_missing(task: Task, data_dir: str | None) -> Path | None:
    """Return the first train or dev file of a task that does not exist; None if all exist or come from elsewhere."""
    if data_dir is None or task.name == "demo":
        return None
    assert task.train is not None
    files = [Path(data_dir) / task.folder / split.file for split in (task.train, *task.dev)]
    return next((file for file in files if not file.is_file()), None)


def test_sets(config: TrainConfig) -> dict[str, tuple[str, str]]:
    """Return the test sets whose files exist: name in a result's `predictions` -> names of task and split.

    Those of other tasks that the model predicts have the task's name: `ax`.
    """
    if config.has_own_data:
        return {"test": (config.task, "test")} if config.test_file or config.dataset else {}
    return {
        task.name if task.predicted_by else split.name: (task.name, split.name)
        for task in predicted_with(config.task)
        for split in task.test
        if config.data_dir is None or (Path(config.data_dir) / task.folder / split.file).is_file()
    }


def left_to_do(plan: Plan, results: Sequence[RunResult], directory: Path) -> list[PlannedRun]:
    """Return the runs that lack something: the result, test predictions that are asked for, or a model.

    A model is missing if it is to be kept, or if a run that is left starts from it.
    """
    finished = {run_key(result.config, result.start_from): result for result in results}
    sources = [run.start_from for run in plan.runs]
    incomplete = []
    for run in plan.runs:
        result = finished.get(run.key)
        test_predictions = test_sets(run.config).keys() if run.predict_test else set()
        is_done = result is not None and test_predictions <= result.predictions.keys()
        is_kept = run.keep_model and run not in sources  # a model that only other runs need is written again for them
        if not is_done or (is_kept and not run.has_model_in(directory)):
            incomplete.append(run)
    needed_sources = [run.start_from for run in incomplete]
    return [run for run in plan.runs if run in incomplete or (run in needed_sources and not run.has_model_in(directory))]
