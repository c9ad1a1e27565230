"""Every setting of a run, in groups; each is declared here and nowhere else."""

import codecs
import math
from typing import Final, Literal

from isinglass.config.setting import Limits, Settings, setting
from isinglass.errors import ConfigError

Precision = Literal["fp32", "tf32", "bf16", "fp16", "amp"]
KindChoice = Literal["auto", "classification", "regression", "multilabel"]

AT_LEAST_1: Final = Limits("at least 1", lambda value: value >= 1)
NOT_NEGATIVE: Final = Limits("0 or above", lambda value: 0 <= value < math.inf)
POSITIVE: Final = Limits("above 0", lambda value: 0 < value < math.inf)
ZERO_TO_BELOW_1: Final = Limits("from 0 to below 1", lambda value: 0 <= value < 1)
BETWEEN_0_AND_1: Final = Limits("between 0 and 1", lambda value: 0 < value < 1)
ABOVE_0_TO_1: Final = Limits("above 0, and at most 1", lambda value: 0 < value <= 1)
SEED: Final = Limits("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)


def _is_text_codec(name: str) -> bool:
    try:
        codec = codecs.lookup(name)
        is_text = codec._is_text_encoding  # Python's own mark: `base64` and `rot13` are codecs too
        return is_text and codecs.getincrementaldecoder(name)().decode(b"") == ""
    except (LookupError, ValueError):
        return False


ENCODING: Final = Limits("an encoding that Python knows, such as utf-8, utf-16, cp1252, latin-1 or gb18030", _is_text_codec)


class TableSettings(Settings):
    """Your own files, or a data set of the Hugging Face hub: where they are, and what their columns mean."""

    train_file: tuple[str, ...] = setting((), panel="Most used", metavar="FILE", is_path_of_data=True)
    """Your own training data: a CSV, TSV, JSON, JSON Lines or Parquet file, compressed or not, or a pattern (`*.csv`).
    Repeat the option for several files.
    """
    validation_file: tuple[str, ...] = setting(
        (), unset="a share of the training rows", panel="Most used", metavar="FILE", is_path_of_data=True
    )
    """Your own data that score the model while you choose settings."""
    test_file: tuple[str, ...] = setting((), panel="Data", metavar="FILE", is_path_of_data=True)
    """Your own data that score the model in the end or, without labels, are predicted."""
    dataset: str | None = setting(None, panel="Most used", metavar="NAME")
    """Data set on the Hugging Face hub (USER/NAME or USER/NAME@COMMIT), in the place of files. A file that is named too
    replaces its split.
    """
    subset: str | None = setting(None, unset="the only one or its default", panel="Data", metavar="NAME")
    """Subset of the data set that `dataset` names."""
    validation_fraction: float = setting(0.1, BETWEEN_0_AND_1, panel="Data")
    """Share of the training rows that is held out for validation without a validation file. Each label keeps its share."""
    text_column: str | None = setting(None, unset="guessed, if only one column fits", panel="Data", metavar="NAME")
    """Column of the text, or of the first text of a pair."""
    text_column2: str | None = setting(None, unset="as --text-column", panel="Data", metavar="NAME")
    """Column of the second text of a pair."""
    label_column: str | None = setting(None, unset="as --text-column", panel="Data", metavar="NAME")
    """Column of the label."""
    delimiter: str | None = setting(None, unset="found in the header", panel="Data")
    """Character between the columns of CSV and TSV files."""
    encoding: str = setting("utf-8", ENCODING, panel="Data", metavar="NAME")
    """Encoding of your own files but Parquet, such as utf-16, cp1252 or latin-1; a byte order mark is skipped."""
    kind: KindChoice = setting("auto", panel="Data")
    """Kind of task; `auto` decides by the labels: names and whole numbers are classes, numbers with a fraction are scores,
    and where whole numbers may be either it asks for the kind.
    """
    label_delimiter: str | None = setting(None, panel="Data")
    """Character between several labels of one example; it makes the task multi-label."""
    positive_label: str | None = setting(None, panel="Data")
    """Which of two labels F1 counts as positive."""
    drop_incomplete: bool = setting(False, panel="Data")
    """Leave out rows without a text or a label, and count them, instead of refusing them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.has_own_data and (self.validation_file or self.test_file):
            raise ConfigError("validation_file and test_file belong to a train_file or a dataset: name that too.")
        if self.subset is not None and self.dataset is None:
            raise ConfigError("subset is a part of a data set on the hub: name that with --dataset.")

    @property
    def has_own_data(self) -> bool:
        """Return whether the data are files or a data set of the user's choice, not a task that `isinglass tasks` lists."""
        return bool(self.train_file or self.dataset)


class DataSettings(TableSettings):
    """The task, where its data lie, and how texts become tokens."""

    task: str = setting("demo")
    """Name of a task that `isinglass tasks` lists or, with `train_file`, a name for your own."""
    data_dir: str | None = setting(None, unset="the Hugging Face hub", panel="Data", metavar="DIR", is_path_of_data=True)
    """Directory in GLUE's layout (holds MRPC/train.tsv ...)."""
    max_train_examples: int | None = setting(None, AT_LEAST_1, unset="all", panel="Data")
    """Number of training rows to use, drawn by `split_seed`."""
    split_seed: int = setting(42, SEED)
    """Seed that draws the validation rows and the rows of `max_train_examples`. The seed of training can change alone."""
    max_length: int = setting(128, AT_LEAST_1, panel="Most used")
    """Maximum number of tokens of an example, special tokens included."""
    long_texts: Literal["truncate", "windows"] = setting("truncate", panel="Data")
    """How to handle longer texts: `truncate` them, or train on `windows` of `max_length` tokens, each with the label of its
    text, and average their logits.
    """
    window_overlap: int | None = setting(None, unset="a quarter of max_length")
    """Number of tokens that a window shares with the one before it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        overlap = self.window_overlap
        if overlap is not None and not 0 <= overlap < self.max_length:
            raise ConfigError(f"window_overlap is {overlap}; it must be from 0 to below max_length.")
        if self.has_own_data and self.data_dir is not None:
            name = "train_file for your own tables" if self.train_file else "dataset for a data set of the hub"
            raise ConfigError(f"data_dir is for GLUE's layout and {name}: leave one of them out.")

    @property
    def overlap(self) -> int | None:
        """Return the number of tokens that consecutive windows share; None where long texts are truncated."""
        if self.long_texts == "truncate":
            return None
        return self.max_length // 4 if self.window_overlap is None else self.window_overlap


class ModelSettings(Settings):
    """The checkpoint to start from, and which parts of it are trained."""

    model: str = setting("demo", panel="Most used", metavar="NAME")
    """Checkpoint directory, name on the Hugging Face hub (USER/NAME or USER/NAME@COMMIT), or `demo`."""
    dropout: float | None = setting(None, ZERO_TO_BELOW_1, unset="the rates of the model's config")
    """Rate of all three dropouts."""
    freeze_embeddings: bool = setting(False, panel="Model")
    """Do not train the embeddings."""
    freeze_layers: int = setting(0, NOT_NEGATIVE, panel="Model")
    """Number of layers, from the lowest up, that are not trained. The embeddings are then frozen too."""


class TrainingSettings(Settings):
    """The course of training: epochs, batches, loss, and which epoch is kept."""

    recipe: str = setting("classic", unset="auto for your own data, else classic", panel="Most used", metavar="NAME")
    """Values to start from: `auto` (chosen by model and data), `classic` (of the GLUE example script) or `small` (for models
    of MiniLM's size).
    """
    chosen: tuple[str, ...] = setting(())
    """Settings whose values the recipe `auto` chooses by the model and the data: those that you do not set."""
    head_start: Literal["random", "solved"] = setting("random", panel="Training")
    """Weights that a new head starts with: `random` ones, or those of a regression that is `solved` on the vectors of the
    untouched encoder.
    """
    epochs: int = setting(3, AT_LEAST_1, panel="Most used")
    """Number of passes over the training set."""
    batch_size: int = setting(32, AT_LEAST_1, panel="Most used")
    """Number of examples in a step, however many tokens they have."""
    class_weights: str | None = setting(None, unset="all alike", panel="Training")
    """Weights of the classes in the loss: `balanced`, or a JSON file of label -> weight, or such an object as text. They are
    scaled to a mean of 1 over the training examples.
    """
    label_smoothing: float = setting(0.0, ZERO_TO_BELOW_1, panel="Training")
    """Share of each label's probability that is spread evenly over all classes."""
    keep_best: bool = setting(False, panel="Training")
    """Score the dev sets after each epoch, and keep the weights of the best epoch instead of the last."""
    early_stopping: int | None = setting(None, AT_LEAST_1, unset="train all epochs", panel="Training")
    """Keep the best epoch and stop after N epochs without improvement."""
    best_metric: str | None = setting(None, unset="the task's first", panel="Training", metavar="NAME")
    """Metric that decides which epoch is the best, averaged over the dev sets."""
    tune_threshold: bool = setting(False, panel="Training")
    """Choose on the dev sets, by `best_metric`, the probability above which a text of a multi-label task has a label, and
    save it with the model; otherwise it is 0.5.
    """
    baselines: bool | None = setting(None, unset="with your own data", panel="Training")
    """Train simple models on the same rows and show their scores beside the result: linear models on TF-IDF weights, and on
    the encoder without fine-tuning.
    """
    seed: int = setting(42, SEED, panel="Training")
    """Seed of batches, dropout and a new head."""

    @property
    def picks_best(self) -> bool:
        """Return whether the dev sets are scored after each epoch to keep the best one."""
        return self.keep_best or self.early_stopping is not None


class OptimizerSettings(Settings):
    """AdamW and its learning rate."""

    learning_rate: float = setting(2e-5, POSITIVE, panel="Most used")
    """Peak learning rate."""
    schedule: Literal["linear", "constant"] = setting("linear")
    """Learning rate after the warm-up: `linear` falls to 0 at the last step, `constant` stays at its peak."""
    warmup_ratio: float = setting(0.0, ZERO_TO_BELOW_1)
    """Share of the steps in which the learning rate rises linearly from 0."""
    weight_decay: float = setting(0.0, NOT_NEGATIVE)
    """Decoupled weight decay of all weights but biases and LayerNorms."""
    adam_beta1: float = setting(0.9, ZERO_TO_BELOW_1)
    """Decay of AdamW's mean of the gradients, with bias correction."""
    adam_beta2: float = setting(0.999, ZERO_TO_BELOW_1)
    """Decay of AdamW's mean of the squared gradients, with bias correction."""
    adam_epsilon: float = setting(1e-8, POSITIVE)
    """Number that AdamW adds to its denominator."""
    max_grad_norm: float = setting(1.0, POSITIVE)
    """Maximum 2-norm of the gradient; a larger gradient is scaled down to it."""
    layer_decay: float = setting(1.0, ABOVE_0_TO_1, panel="Training")
    """Learning rate of each layer, as a multiple of that of the layer above it."""


class ExecutionSettings(Settings):
    """What computes, and how fast: backend, precision, compiler, layout."""

    backend: Literal["torch", "tensorflow", "jax"] = setting("torch", panel="Speed")
    """Framework that computes."""
    precision: Precision = setting("fp32", panel="Most used")
    """Precision of the matrix products; weights, optimizer and loss stay in fp32. tf32 (torch) and fp16 need a GPU; amp is
    fp16 on a GPU and bf16 on a CPU.
    """
    compile: bool = setting(False, panel="Speed")
    """Compile the model by torch.compile, for a few fixed shapes (torch only)."""
    xla: bool = setting(False, panel="Speed")
    """Compile the training step by XLA (tensorflow only; jax always does)."""
    layout: Literal["auto", "flat", "rows"] = setting("auto")
    """Layout of packed batches. `auto` is `flat` for torch, and `rows` when compiling and for the other backends."""
    eval_tokens: int = setting(4096, AT_LEAST_1)
    """Maximum number of tokens of an evaluation batch."""

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
        refused = {
            "tf32": "tf32 is a way in which GPUs multiply fp32 numbers: on a CPU use --precision fp32 or bf16.",
            "fp16": "fp16 does not run on a CPU (no fast products, no loss scaling): use --precision bf16.",
        }
        if device == "cpu" and self.precision in refused:
            raise ConfigError(refused[self.precision])
        return self.precision


class SavingSettings(Settings):
    """How a run is saved while it is trained, and what may stand in its directory before; not part of its configuration."""

    overwrite: bool = setting(False, panel="Output")
    """Replace the run in --output-dir."""
    resume: bool = setting(False, panel="Output")
    """Resume the run in --output-dir from its last checkpoint."""
    checkpoint_every: str = setting("10min", panel="Output", metavar="INTERVAL")
    """Time between checkpoints: 200steps, 1epoch, 5min, or never."""
    keep_checkpoints: int = setting(2, AT_LEAST_1, panel="Output")
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise ConfigError("--resume continues a run and --overwrite replaces it: leave one of them out.")


class ClusterSettings(Settings):
    """Which cluster performs runs, and with which resources; without `on` it is this machine, and the others have no use."""

    on: str | None = setting(None, panel="Cluster", metavar="ADDRESS")
    """Run on a Ray cluster, several runs at once: `ray` (at RAY_ADDRESS, or on this machine) or ray://HOST:PORT."""
    cpus_per_run: int | None = setting(None, AT_LEAST_1, panel="Cluster", unset="those of a node, shared among its GPUs")
    """With --on: CPUs of each run."""
    gpus_per_run: float | None = setting(None, panel="Cluster", unset="1 if nodes have GPUs")
    """With --on: GPUs of each run, such as 0.5."""
    storage: str | None = setting(None, panel="Cluster", unset="OUTPUT, for a local Ray", metavar="DIR")
    """With --on: a directory that all nodes see, or a URL, for checkpoints."""
    checkpoint_every: str = setting("5min", panel="Cluster", metavar="INTERVAL")
    """With --on: time between the checkpoints from which a lost run resumes: 200steps, 1epoch, 5min, never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, declared in self.declared().items():
            if self.on is None and getattr(self, name) != declared.default:
                raise ConfigError(f"{declared.flag} is for runs on a cluster: name it with --on ray.")


class TrainConfig(ExecutionSettings, OptimizerSettings, TrainingSettings, ModelSettings, DataSettings):
    """All settings of a training run, checked when created. `docs/reference.md` lists and explains them.

    The fields of the last base class come first.
    """


SETTINGS: Final = TrainConfig.declared()
