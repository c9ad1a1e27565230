"""Measure how cost grows: training with length, batch size and width; tokenization, planning and memory with rows.

Each point appends one line to `benchmarks/results/growth.jsonl`. Training: the demo model's shape in fp32, every dropout
on, examples of one length (with batch size: of MRPC's lengths), the median of the steps after the first. Rows: two
processes read the same TSV file as in `large_set.py`, the first with an empty cache.

    python benchmarks/growth.py [length] [batch] [width] [rows]
"""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import large_set
from isinglass.backends.protocol import Objective, create_backend, parts_of_step
from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.source import load_model
from isinglass.results import installed_versions
from isinglass.training.preparation import Packer

RESULTS = pathlib.Path(__file__).parent / "results" / "growth.jsonl"
LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
WIDTHS = (128, 256, 384, 512, 768)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
BATCH, LENGTH, WIDTH = 32, 64, 384  # while another of them grows
STEPS, SECONDS = 20, 12.0  # at least 3 steps; then the first limit that is reached


def of_width(checkpoint, width):
    """Return the demo model with another width, heads of 32, and random weights."""
    rng = np.random.default_rng(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    config_json = {**checkpoint.config_json, **sizes}
    blueprint = checkpoint.family.blueprint(config_json, checkpoint.origin)
    weights = {
        parameter.name: rng.normal(float(parameter.role == "norm"), 0.02, parameter.shape).astype(np.float32)
        for module in blueprint.modules(2)
        for parameter in module.parameters
        if parameter.name in checkpoint.weights
    }
    return dataclasses.replace(checkpoint, blueprint=blueprint, config_json=config_json, weights=weights)


def training(lengths, width=WIDTH):
    """Return the seconds of a step on examples of these lengths, and the number of timed steps."""
    rng = np.random.default_rng(0)
    checkpoint = load_model("demo")
    if width != WIDTH:
        checkpoint = of_width(checkpoint, width)
    tokens = TokenizedTexts(
        input_ids=rng.integers(1000, 30000, lengths.sum()).astype(np.int32),
        token_type_ids=np.zeros(lengths.sum(), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=0,
    )
    config = TrainConfig(max_length=512)
    backend = create_backend(config, checkpoint, Objective(kind="classification", num_outputs=2))
    labels = rng.integers(0, 2, len(lengths))
    parts = parts_of_step(int(lengths.sum()), backend.parallel_batches)
    batches = Packer(config, checkpoint).pack_parts(tokens, np.arange(len(lengths)), labels, parts)
    seconds, began = [], time.perf_counter()
    while len(seconds) < 4 or (len(seconds) <= STEPS and time.perf_counter() - began < SECONDS):
        started = time.perf_counter()
        backend.train_step(batches, step=len(seconds), learning_rate=2e-5)
        backend.take_losses()
        seconds.append(time.perf_counter() - started)
    return {
        "tokens": int(lengths.sum()),
        "step_seconds": statistics.median(seconds[1:]),
        "steps": len(seconds) - 1,
        "device": backend.device,
    }


def rows(count):
    """Yield the cost of reading, tokenizing and planning `count` pairs, cold and warm, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        large_set.write_mnli(pathlib.Path(name), count)
        environment = {**os.environ, "ISINGLASS_CACHE": f"{name}/cache", "TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, large_set.__file__, "--measure", name]
        for state in ("cold", "warm"):
            found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            yield {"pass": state, **json.loads(found.stdout)}


def points(kind):
    if kind == "length":
        for length in LENGTHS:
            yield {"length": length, "batch": BATCH, **training(np.full(BATCH, length))}
    elif kind == "batch":
        for batch in BATCHES:
            lengths = np.random.default_rng(0).normal(53, 13, batch).clip(15, 103).astype(np.int64)
            yield {"batch": batch, **training(lengths)}
    elif kind == "width":
        for width in WIDTHS:
            yield {"width": width, "batch": BATCH, **training(np.full(BATCH, LENGTH), width)}
    else:
        for count in ROWS:
            yield from rows(count)


def main():
    for kind in sys.argv[1:] or ("length", "batch", "width", "rows"):
        for point in points(kind):
            row = {"against": kind, **point, "versions": installed_versions()}
            with open(RESULTS, "a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps({key: value for key, value in row.items() if key != "versions"}), flush=True)


if __name__ == "__main__":
    main()
