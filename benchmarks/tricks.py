"""Time single tricks of the CPU path against the plain way, alternating in one process; medians of 30 rounds.

Each trick is one line appended to `benchmarks/results/tricks.jsonl`.

    python benchmarks/tricks.py
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from isinglass.backends.torch.backend import _describe
from isinglass.backends.torch.dropout import DropoutMasks
from isinglass.backends.torch.memory import keep_freed_memory

RESULTS = pathlib.Path(__file__).parent / "results" / "tricks.jsonl"
CPU = torch.device("cpu")
ROUNDS = 30
TOKENS, HIDDEN, VOCABULARY = 1700, 384, 30522  # a step of MRPC on all-MiniLM-L6-v2


def milliseconds(work):
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def alternate(before, after):
    times = ([], [])
    for _ in range(ROUNDS + 3):
        for work, kept in zip((before, after), times, strict=True):
            kept.append(milliseconds(work))
    return [statistics.median(kept[3:]) for kept in times]


def dropout_masks():
    shape, masks = (TOKENS, 4 * HIDDEN), DropoutMasks(1, 1, CPU)
    return alternate(lambda: torch.empty(shape).bernoulli_(0.9), lambda: masks.draw(shape, 0.1, torch.float32))


def word_gradients():
    """The gradient of the word embedding: all of the vocabulary zeroed anew, or only this step's rows cleared."""
    word = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    ids = torch.randint(0, VOCABULARY, (TOKENS,))
    gradient = torch.randn(TOKENS, HIDDEN)
    kept = torch.zeros(VOCABULARY, HIDDEN)

    def dense():
        word.grad = None
        F.embedding(ids, word).backward(gradient)

    def rows():
        words = word.detach()[ids].requires_grad_()
        (words * 1).backward(gradient)
        kept.index_add_(0, ids, words.grad)
        kept.index_fill_(0, ids, 0)

    return alternate(dense, rows)


def copies():
    """Eight copies of 11 MB held at once and freed: what one step's activations do to the allocator."""
    source = torch.randn(TOKENS, 4 * HIDDEN)

    def work():
        _ = [source.clone() for _ in range(8)]

    return statistics.median([milliseconds(work) for _ in range(ROUNDS + 3)][3:])


def kept_memory():
    """In two processes, because the allocator's settings cannot be taken back."""
    command = [sys.executable, __file__, "--copies"]
    return [float(subprocess.check_output([*command, *flag], text=True)) for flag in ((), ("--keep",))]


if "--copies" in sys.argv:
    if "--keep" in sys.argv:
        keep_freed_memory()
    print(copies())
    sys.exit()
for trick, measured in {
    "dropout mask of 1700 x 1536: bernoulli_, or thresholds on 16 random bits": dropout_masks,
    "gradient of the word embedding, 1700 tokens: dense, or this step's rows": word_gradients,
    "eight copies of 10 MB, memory given back or kept": kept_memory,
}.items():
    before, after = measured()
    row = {"trick": trick, "before_ms": before, "after_ms": after, "device": _describe(CPU), "torch": torch.__version__}
    with open(RESULTS, "a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row))
