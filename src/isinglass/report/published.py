"""The published figures that a user may want beside his own, as they are printed, and how they were got."""

from typing import Final

SOURCE: Final = "the text-classification README of transformers (examples)"
PYTORCH: Final = {  # task -> scores in points (MNLI: matched/mismatched) and training time; the same in fp16
    "mnli": ("83.91/84.10", "2:35:23", "84.04/84.06", "1:17:06"),
    "qnli": ("90.66", "40:57", "90.96", "20:16"),
    "rte": ("65.70", "00:57", "65.34", "00:29"),
    "wnli": ("56.34", "00:24", "56.34", "00:12"),
}
PYTORCH_FACTS: Final = (
    "bert-base-cased, one run of each, on one Titan RTX, every example padded to 128 tokens; "
    "3 epochs, WNLI 5, in batches of 32 at a learning rate of 2e-5"
)
TENSORFLOW: Final = (  # device, mode, time of MRPC's second epoch, accuracy of each of three runs (-: not given)
    ("Titan V (published)", "FP32", "41s", "0.8438/0.8281/0.8333"),
    ("Titan V (published)", "AMP", "26s", "0.8281/0.8568/0.8411"),
    ("V100 (published)", "FP32", "35s", "0.8646/0.8359/0.8464"),
    ("V100 (published)", "AMP", "22s", "0.8646/0.8385/0.8411"),
    ("1080 Ti (published)", "FP32", "55s", "-"),
)
TENSORFLOW_EXAMPLES, TENSORFLOW_SCORED = 408, 384  # of MRPC's validation set, scored were six whole batches of 64
TENSORFLOW_FACTS: Final = (
    "bert-base-cased, every example padded to 128 tokens; 3 epochs in batches of 32 at a constant learning rate of 3e-5; "
    "AMP is fp16"
)
