"""Named benches, as values: the two tables of the classic text-classification README, and all of GLUE.

Settings come from that README and its scripts. `amp` is fp16 on a GPU and bf16 on a CPU, and tables say which ran.
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
    """Which runs to make: every combination of these.

    Attributes:
        tasks, models, backends, precisions: names.
        xla, compile: for the backends that know them, also with the compiler.
        seeds: how many, counted up from the configured one.
        recipe: the settings to begin with; `settings`, then `assignments` (`field=value`) go before it.
        start_from: RTE, MRPC and STS-B begin with the weights of this task's run of the same seed.
        predict_test: predict the test sets too, AX after MNLI: what a submission needs.
        keep_models: keep every model, not only those that others start from.
        table: how the results are shown.
        skip_missing: leave tasks out whose files are not there, saying so; else they are an error.
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


def get_preset(name: str) -> Selection:
    """The preset of that name.

    Raises:
        ConfigError: there is none; the message offers the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}{did_you_mean(name, PRESETS)}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def select(preset: str | None, *, assignments: tuple[str, ...] = (), **chosen: Any) -> Selection:
    """A preset, or the plain selection of `tasks`, with what was chosen (None: not) in the place of its own.

    Args:
        assignments: `field=value`, settings of all runs.

    Raises:
        ConfigError: neither preset nor tasks, or an unknown preset.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    if preset is None and "tasks" not in given:
        raise ConfigError(f"Name a --preset ({', '.join(PRESETS)}), --tasks, or a --train-file of your own.")
    base = Selection(tasks=()) if preset is None else get_preset(preset)
    if "tasks" in given:
        given["skip_missing"] = False
    return replace(base, **given, assignments=assignments)


def select_own(
    task: str,
    own: Mapping[str, Any],
    *,
    preset: str | None,
    published: bool = False,
    assignments: tuple[str, ...] = (),
    **chosen: Any,
) -> Selection:
    """The plain selection of the user's own files, with what was chosen (None: not) in the place of the defaults.

    Args:
        task: the name that the files go by.
        own: the settings that name the files and say how to read them; None: not given.
        preset, published, chosen: what else was asked for; what is for GLUE's tasks only is refused.

    Raises:
        ConfigError: it was chosen.
    """
    own = {name: value for name, value in own.items() if value is not None}
    for_glue = {"preset": preset, "tasks": chosen.pop("tasks", None), "start_from": chosen.get("start_from")}
    for name, value in (for_glue | {"published": published or None}).items():
        if value is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} is for GLUE's tasks and --train-file for your own: leave one of them out."
            )
    if chosen.get("predict_test") and "test_file" not in own:
        raise ConfigError("--predict-test predicts a test set: name it with --test-file.")
    return select(None, tasks=(task,), settings=own, assignments=assignments, **chosen)
