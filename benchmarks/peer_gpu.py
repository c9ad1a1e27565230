"""Train a random BERT with `transformers`' Trainer on pairs that gpu.py wrote, and print one JSON line.

It is the peer of the sides of gpu.py: same sizes, pairs, batch, dropout, clipping and schedule. It imports nothing from
isinglass. Run it in an environment of its own:

    pip install torch==2.13.0 transformers==5.23 accelerate

`--padding padded` pads every pair to 128, as the classic example scripts do. `--padding best` pads each batch to its longest
pair, groups pairs by length, prepares batches in four processes, and does not read the loss after each step
(`logging_nan_inf_filter`), which would wait for the device. `--padding compiled` is the same, but pads to a multiple of 64:
there are two shapes, for which `torch_compile` makes CUDA graphs (`reduce-overhead`) before the clock starts. All use fused
AdamW, PyTorch's attention and pinned memory.
"""

import argparse
import json
import os
import resource
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

MAX_LENGTH, LABELS = 128, 3

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True)
parser.add_argument("--padding", choices=["padded", "best", "compiled"], required=True)
parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
for name in ("batch", "layers", "hidden", "heads", "vocabulary", "warm-up", "steps"):
    parser.add_argument(f"--{name}", type=int, required=True)
args = parser.parse_args()
on_gpu, compiled = torch.cuda.is_available(), args.padding == "compiled"
best = compiled or args.padding == "best"
multiple = {"padded": MAX_LENGTH, "best": 1, "compiled": 64}[args.padding]
NAMES = ("input_ids", "token_type_ids")
found = dict(np.load(args.data))
pairs = [
    {**{name: found[name][start:stop] for name in NAMES}, "labels": int(label)}
    for start, stop, label in zip(found["offsets"][:-1], found["offsets"][1:], found["labels"], strict=True)
]


def collate(examples):
    lengths = np.array([len(example["input_ids"]) for example in examples])
    padded = np.zeros((2, len(examples), -(-lengths.max() // multiple) * multiple), np.int64)
    for row, example in enumerate(examples):
        for i, name in enumerate(NAMES):
            padded[i, row, : lengths[row]] = example[name]
    mask = (np.arange(padded.shape[2]) < lengths[:, None]).astype(np.int64)
    labels = np.array([example["labels"] for example in examples])
    arrays = zip((*NAMES, "attention_mask", "labels"), (*padded, mask, labels), strict=True)
    return {name: torch.from_numpy(array) for name, array in arrays}


class Clock(TrainerCallback):
    seconds = 0.0

    def on_step_end(self, _arguments, state, _control, **_):
        if state.global_step in (args.warm_up, args.warm_up + args.steps):
            if on_gpu:
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.seconds


config = BertConfig(
    vocab_size=args.vocabulary,
    hidden_size=args.hidden,
    num_hidden_layers=args.layers,
    num_attention_heads=args.heads,
    intermediate_size=4 * args.hidden,
    num_labels=LABELS,
)
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=args.batch,
    max_steps=args.warm_up + args.steps,
    learning_rate=2e-5,
    lr_scheduler_type="linear",
    optim="adamw_torch_fused",
    report_to=[],
    save_strategy="no",
    logging_strategy="no",
    disable_tqdm=True,
    bf16=args.precision == "bf16",
    use_cpu=not on_gpu,
    dataloader_pin_memory=on_gpu,
    remove_unused_columns=False,
    **({"train_sampling_strategy": "group_by_length", "logging_nan_inf_filter": False} if best else {}),
    **({"dataloader_num_workers": 4} if best and on_gpu else {}),
    **({"torch_compile": True, "torch_compile_mode": "reduce-overhead"} if compiled else {}),
)
clock = Clock()
model = BertForSequenceClassification(config)
Trainer(model, arguments, train_dataset=pairs, data_collator=collate, callbacks=[clock]).train()
memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"examples_per_second": args.batch * args.steps / clock.seconds, "peak_memory_bytes": memory}))
