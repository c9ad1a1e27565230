"""Named benches as values: the two tables of the classic text-classification README, and all of GLUE.

Settings come from that README and its scripts. `amp` is fp16 on a GPU and bf16 on a CPU; tables say which of them ran.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from isinglass.errors import ConfigError
from isinglass.names import did_you_mean

TableKind = Literal["pytorch", "tensorflow", "scores"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs a bench consists of: every combination of these values.

    Attributes:
        tasks, models, backends, precisions: names.
        xla, compile: with the compiler too, for the backends that know it.
        seeds: number of seeds, counted up from the setting `seed`.
        recipe: the settings to start from. `settings` and then `assignments` (`setting=value`) take precedence over it.
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
    recipe: str = "classic"
    settings: Mapping[str, Any] = field(default_factory=dict)
    assignments: tuple[str, ...] = ()
    start_from: str | None = None
    predict_test: bool = False
    keep_models: bool = False
    table: TableKind = "scores"
    skip_missing: bool = False

    @property
    def has_own_files(self) -> bool:
        """Return whether the runs are on your own files instead of published tasks."""
        return "train_file" in self.settings


PRESETS: Final[Mapping[str, Selection]] = MappingProxyType(
    {
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
)


def select(preset: str | None, **changes: Any) -> Selection:
    """Return a preset, or the default selection of `tasks`, with some values changed.

    Args:
        changes: field of a selection -> value; None leaves it as it is.

    Raises:
        ConfigError: neither preset nor tasks are named, or the preset is unknown; the message offers the nearest name.
    """
    changes = _without_none(changes)
    if preset is None and "tasks" not in changes:
        raise ConfigError(f"Name a --preset ({', '.join(PRESETS)}), --tasks, or a --train-file of your own.")
    if preset is not None and preset not in PRESETS:
        hint = did_you_mean(preset, PRESETS)
        raise ConfigError(f"There is no preset {preset!r}{hint}; there are {', '.join(PRESETS)}.")
    base = Selection(tasks=()) if preset is None else PRESETS[preset]
    if "tasks" in changes:
        changes["skip_missing"] = False
    return replace(base, **changes)


def select_own(
    task: str, own_files: Mapping[str, Any], *, preset: str | None, published: bool = False, **changes: Any
) -> Selection:
    """Return the default selection for your own files, with some values changed.

    Args:
        task: the name of the task that the files make.
        own_files: the settings that name the files and say how to read them; None: not given.
        preset, published: must not be given: they are for GLUE's tasks.
        changes: as for `select`.

    Raises:
        ConfigError: something that is only for GLUE's tasks is given.
    """
    settings = _without_none(own_files)
    tasks = changes.pop("tasks", None)
    for_glue = {"preset": preset, "tasks": tasks, "start_from": changes.get("start_from"), "published": published or None}
    for name in _without_none(for_glue):
        raise ConfigError(
            f"--{name.replace('_', '-')} is for GLUE's tasks and --train-file for your own: leave one of them out."
        )
    if changes.get("predict_test") and "test_file" not in settings:
        raise ConfigError("--predict-test predicts a test set: name it with --test-file.")
    return select(None, tasks=(task,), settings=settings, **changes)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
