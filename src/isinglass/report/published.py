"""The published figures that a user may want beside his own: values, and how they were got."""

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "the text-classification README of transformers (examples)"


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """A row of the PyTorch table: scores in points (MNLI: matched, mismatched), times in seconds."""

    task: str
    scores: tuple[float, ...]
    train_seconds: int
    fp16_scores: tuple[float, ...]
    fp16_train_seconds: int


PYTORCH: Final = (
    PublishedTask(
        task="mnli",
        scores=(83.91, 84.10),
        train_seconds=2 * 3600 + 35 * 60 + 23,
        fp16_scores=(84.04, 84.06),
        fp16_train_seconds=1 * 3600 + 17 * 60 + 6,
    ),
    PublishedTask(
        task="qnli",
        scores=(90.66,),
        train_seconds=40 * 60 + 57,
        fp16_scores=(90.96,),
        fp16_train_seconds=20 * 60 + 16,
    ),
    PublishedTask(task="rte", scores=(65.70,), train_seconds=57, fp16_scores=(65.34,), fp16_train_seconds=29),
    PublishedTask(task="wnli", scores=(56.34,), train_seconds=24, fp16_scores=(56.34,), fp16_train_seconds=12),
)
PYTORCH_FACTS: Final = (
    "bert-base-cased, one run of each, on one Titan RTX, every example padded to 128 tokens; "
    "3 epochs, WNLI 5, in batches of 32 at a learning rate of 2e-5"
)


@dataclass(frozen=True, kw_only=True)
class PublishedMode:
    """A row of the TensorFlow table: MRPC's second epoch in seconds, accuracy of each of three runs (none: not given)."""

    gpu: str
    mode: str
    epoch_seconds: int
    accuracies: tuple[float, ...]


TENSORFLOW: Final = (
    PublishedMode(gpu="Titan V", mode="FP32", epoch_seconds=41, accuracies=(0.8438, 0.8281, 0.8333)),
    PublishedMode(gpu="Titan V", mode="AMP", epoch_seconds=26, accuracies=(0.8281, 0.8568, 0.8411)),
    PublishedMode(gpu="V100", mode="FP32", epoch_seconds=35, accuracies=(0.8646, 0.8359, 0.8464)),
    PublishedMode(gpu="V100", mode="AMP", epoch_seconds=22, accuracies=(0.8646, 0.8385, 0.8411)),
    PublishedMode(gpu="1080 Ti", mode="FP32", epoch_seconds=55, accuracies=()),
)
TENSORFLOW_EXAMPLES: Final = 408  # in MRPC's validation set
TENSORFLOW_SCORED: Final = 384  # of these: six whole batches of 64
TENSORFLOW_FACTS: Final = (
    "bert-base-cased, every example padded to 128 tokens; 3 epochs in batches of 32 at a constant learning rate of 3e-5; "
    "AMP is fp16"
)
