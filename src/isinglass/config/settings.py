"""Every setting of a run, in groups; each is declared here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from isinglass.config.setting import (
    ABOVE_0_TO_1,
    AT_LEAST_1,
    BETWEEN_0_AND_1,
    NOT_NEGATIVE,
    POSITIVE,
    UNSIGNED_63_BITS,
    ZERO_TO_BELOW_1,
    Panel,
    Settings,
    Switch,
    setting,
    settings_of,
)
from isinglass.errors import ConfigError

Backend = Literal["torch", "tensorflow", "jax"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "amp"]
Layout = Literal["auto", "flat", "rows"]
Schedule = Literal["linear", "constant"]
KindChoice = Literal["auto", "classification", "regression", "multilabel"]
LongTexts = Literal["truncate", "windows"]


@dataclass(frozen=True, kw_only=True)
class TableSettings(Settings):
    """Your own files: where they are, and what their columns mean."""

    train_file: tuple[str, ...] = setting(
        (),
        "Your own training data: a CSV, TSV, JSON Lines or Parquet file, compressed or not, or a pattern (`*.csv`). Repeat "
        "the option for several files.",
        panel=Panel.MOST_USED,
        metavar="FILE",
        is_path_of_data=True,
    )
    validation_file: tuple[str, ...] = setting(
        (),
        "Your own data that score the model while you choose settings.",
        unset="a share of the training rows",
        panel=Panel.MOST_USED,
        metavar="FILE",
        is_path_of_data=True,
    )
    test_file: tuple[str, ...] = setting(
        (),
        "Your own data that score the model in the end or, without labels, are predicted.",
        panel=Panel.DATA,
        metavar="FILE",
        is_path_of_data=True,
    )
    validation_fraction: float = setting(
        0.1,
        "Share of the training rows that is held out for validation without a validation file. Each label keeps its share.",
        limits=BETWEEN_0_AND_1,
        panel=Panel.DATA,
    )
    text_column: str | None = setting(
        None,
        "Column of the text, or of the first text of a pair.",
        unset="guessed, if only one column fits",
        panel=Panel.DATA,
        metavar="NAME",
    )
    text_column2: str | None = setting(
        None, "Column of the second text of a pair.", unset="as --text-column", panel=Panel.DATA, metavar="NAME"
    )
    label_column: str | None = setting(
        None, "Column of the label.", unset="as --text-column", panel=Panel.DATA, metavar="NAME"
    )
    delimiter: str | None = setting(
        None, "Character between the columns of CSV and TSV files.", unset="found in the header", panel=Panel.DATA
    )
    kind: KindChoice = setting("auto", "Kind of task; `auto` decides by the labels.", panel=Panel.DATA)
    label_delimiter: str | None = setting(
        None,
        "Character between several labels of one example; it makes the task multi-label.",
        panel=Panel.DATA,
    )
    positive_label: str | None = setting(None, "Which of two labels F1 counts as positive.", panel=Panel.DATA)
    drop_incomplete: bool = setting(
        False, "Leave out rows without a text or a label, and count them, instead of refusing them.", panel=Panel.DATA
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_file and (self.validation_file or self.test_file):
            raise ConfigError("validation_file and test_file belong to a train_file of your own: name that too.")


@dataclass(frozen=True, kw_only=True)
class DataSettings(TableSettings):
    """The task, where its data lie, and how texts become tokens."""

    task: str = setting("demo", "Name of a task that `isinglass tasks` lists or, with `train_file`, a name for your own.")
    data_dir: str | None = setting(
        None,
        "Directory in GLUE's layout (holds MRPC/train.tsv ...).",
        unset="the Hugging Face hub",
        panel=Panel.DATA,
        metavar="DIR",
        is_path_of_data=True,
    )
    max_train_examples: int | None = setting(
        None, "Number of training rows to use, drawn by `split_seed`.", unset="all", limits=AT_LEAST_1, panel=Panel.DATA
    )
    split_seed: int = setting(
        42,
        "Seed that draws the validation rows and the rows of `max_train_examples`. The seed of training can change alone.",
        limits=UNSIGNED_63_BITS,
    )
    max_length: int = setting(
        128, "Maximum number of tokens of an example, special tokens included.", limits=AT_LEAST_1, panel=Panel.MOST_USED
    )
    long_texts: LongTexts = setting(
        "truncate",
        "How to handle longer texts: `truncate` them, or train on `windows` of `max_length` tokens, each with the label of "
        "its text, and average their logits.",
        panel=Panel.DATA,
    )
    window_overlap: int | None = setting(
        None, "Number of tokens that a window shares with the one before it.", unset="a quarter of max_length"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        overlap = self.window_overlap
        if overlap is not None and not 0 <= overlap < self.max_length:
            raise ConfigError(f"window_overlap is {overlap}; it must be from 0 to below max_length.")
        if self.train_file and self.data_dir is not None:
            raise ConfigError("data_dir is for GLUE's layout and train_file for your own tables: leave one of them out.")

    @property
    def overlap(self) -> int | None:
        """Return the number of tokens that consecutive windows share; None where long texts are truncated."""
        if self.long_texts == "truncate":
            return None
        return self.max_length // 4 if self.window_overlap is None else self.window_overlap


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The checkpoint to start from, and which parts of it are trained."""

    model: str = setting(
        "demo",
        "Checkpoint directory, name on the Hugging Face hub (USER/NAME or USER/NAME@COMMIT), or `demo`.",
        panel=Panel.MOST_USED,
        metavar="NAME",
    )
    dropout: float | None = setting(
        None, "Rate of all three dropouts.", unset="the rates of the model's config", limits=ZERO_TO_BELOW_1
    )
    freeze_embeddings: bool = setting(False, "Do not train the embeddings.", panel=Panel.MODEL)
    freeze_layers: int = setting(
        0,
        "Number of layers, from the lowest up, that are not trained. The embeddings are then frozen too.",
        limits=NOT_NEGATIVE,
        panel=Panel.MODEL,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The course of training: epochs, batches, loss, and which epoch is kept."""

    recipe: str = setting(
        "classic",
        "Values to start from: `classic` (of the GLUE example script) or `small` (for encoders of MiniLM's size).",
        panel=Panel.MOST_USED,
        metavar="NAME",
    )
    epochs: int = setting(3, "Number of passes over the training set.", limits=AT_LEAST_1, panel=Panel.MOST_USED)
    batch_size: int = setting(
        32, "Number of examples in a step, however many tokens they have.", limits=AT_LEAST_1, panel=Panel.MOST_USED
    )
    class_weights: str | None = setting(
        None,
        "Weights of the classes in the loss: `balanced`, or a JSON file of label -> weight, or such an object as text. They "
        "are scaled to a mean of 1 over the training examples.",
        unset="all alike",
        panel=Panel.TRAINING,
    )
    label_smoothing: float = setting(
        0.0,
        "Share of each label's probability that is spread evenly over all classes.",
        limits=ZERO_TO_BELOW_1,
        panel=Panel.TRAINING,
    )
    keep_best: bool = setting(
        False,
        "Score the dev sets after each epoch, and keep the weights of the best epoch instead of the last.",
        panel=Panel.TRAINING,
    )
    early_stopping: int | None = setting(
        None,
        "Keep the best epoch and stop after N epochs without improvement.",
        unset="train all epochs",
        limits=AT_LEAST_1,
        panel=Panel.TRAINING,
    )
    best_metric: str | None = setting(
        None,
        "Metric that decides which epoch is the best, averaged over the dev sets.",
        unset="the task's first",
        panel=Panel.TRAINING,
        metavar="NAME",
    )
    seed: int = setting(42, "Seed of batches, dropout and a new head.", limits=UNSIGNED_63_BITS, panel=Panel.TRAINING)

    @property
    def picks_best(self) -> bool:
        """Return whether the dev sets are scored after each epoch to keep the best one."""
        return self.keep_best or self.early_stopping is not None


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """AdamW and its learning rate."""

    learning_rate: float = setting(2e-5, "Peak learning rate.", limits=POSITIVE, panel=Panel.MOST_USED)
    schedule: Schedule = setting(
        "linear", "Learning rate after the warm-up: `linear` falls to 0 at the last step, `constant` stays at its peak."
    )
    warmup_ratio: float = setting(
        0.0, "Share of the steps in which the learning rate rises linearly from 0.", limits=ZERO_TO_BELOW_1
    )
    weight_decay: float = setting(
        0.0, "Decoupled weight decay of all weights but biases and LayerNorms.", limits=NOT_NEGATIVE
    )
    adam_beta1: float = setting(0.9, "Decay of AdamW's mean of the gradients, with bias correction.", limits=ZERO_TO_BELOW_1)
    adam_beta2: float = setting(
        0.999, "Decay of AdamW's mean of the squared gradients, with bias correction.", limits=ZERO_TO_BELOW_1
    )
    adam_epsilon: float = setting(1e-8, "Number that AdamW adds to its denominator.", limits=POSITIVE)
    max_grad_norm: float = setting(
        1.0, "Maximum 2-norm of the gradient; a larger gradient is scaled down to it.", limits=POSITIVE
    )
    layer_decay: float = setting(
        1.0,
        "Learning rate of each layer, as a multiple of that of the layer above it.",
        limits=ABOVE_0_TO_1,
        panel=Panel.TRAINING,
    )


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings(Settings):
    """What computes, and how fast: backend, precision, compiler, layout."""

    backend: Backend = setting("torch", "Framework that computes.", panel=Panel.SPEED)
    precision: Precision = setting(
        "fp32",
        "Precision of the matrix products; weights, optimizer and loss stay in fp32. tf32 (torch) and fp16 need a GPU; amp "
        "is fp16 on a GPU and bf16 on a CPU.",
        panel=Panel.MOST_USED,
        switch=Switch("USE_AMP", "amp"),
    )
    compile: bool = setting(
        False, "Compile the model by torch.compile, for a few fixed shapes (torch only).", panel=Panel.SPEED
    )
    xla: bool = setting(
        False,
        "Compile the training step by XLA (tensorflow only; jax always does).",
        panel=Panel.SPEED,
        switch=Switch("USE_XLA", True),
    )
    layout: Layout = setting(
        "auto",
        "Layout of packed batches. `auto` is `flat` for torch, and `rows` when compiling and for the other backends.",
    )
    eval_tokens: int = setting(4096, "Maximum number of tokens of an evaluation batch.", limits=AT_LEAST_1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "tf32" and self.backend != "torch":
            raise ConfigError(f"tf32 is served by the backend torch; for the backend {self.backend} use --precision bf16.")
        if self.compile and self.backend != "torch":
            raise ConfigError(f"compile is torch's; for the backend {self.backend} use --xla.")
        if self.xla and self.backend == "torch":
            raise ConfigError("xla is not available in the backend torch: use --compile, or --backend tensorflow.")
        if self.layout == "flat" and self._needs_fixed_shapes:
            reason = "compiling" if self.compile else f"the backend {self.backend}"
            raise ConfigError(f"layout is 'flat', but {reason} needs the fixed shapes of 'rows': leave the layout out.")

    @property
    def _needs_fixed_shapes(self) -> bool:
        return self.compile or self.backend != "torch"

    @property
    def uses_rows(self) -> bool:
        """Return whether batches are packed in the `rows` layout."""
        return self.layout == "rows" or (self.layout == "auto" and self._needs_fixed_shapes)

    def precision_on(self, device: Literal["cpu", "gpu"]) -> Precision:
        """Return the precision that runs on the device, with `amp` resolved.

        Raises:
            ConfigError: fp16 or tf32 on a CPU.
        """
        if self.precision == "amp":
            return "bf16" if device == "cpu" else "fp16"
        if self.precision == "tf32" and device == "cpu":
            raise ConfigError("tf32 is a way in which GPUs multiply fp32 numbers: on a CPU use --precision fp32 or bf16.")
        if self.precision == "fp16" and device == "cpu":
            raise ConfigError("fp16 does not run on a CPU (no fast products, no loss scaling): use --precision bf16.")
        return self.precision


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ExecutionSettings, OptimizerSettings, TrainingSettings, ModelSettings, DataSettings):
    """All settings of a training run, checked when created. `docs/reference.md` lists and explains them.

    The fields stand in the order of `GROUPS`: those of the last base class come first.
    """


SETTINGS: Final = settings_of(TrainConfig)
GROUPS: Final[Mapping[str, type[Settings]]] = {
    "Your own files": TableSettings,
    "Data": DataSettings,
    "Model": ModelSettings,
    "Training": TrainingSettings,
    "Optimizer": OptimizerSettings,
    "Execution": ExecutionSettings,
}
