"""Time single optimizations of the CPU path against plain code, alternating in one process: medians of 30 rounds.

Each optimization appends one line to `benchmarks/results/tricks.jsonl`. WORDs select those whose names contain one.

    python benchmarks/tricks.py [WORD ...]
"""

import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from isinglass.backends import cpu
from isinglass.backends.cpu import describe_cpu, mkl_leaves_avx512_unused
from isinglass.backends.protocol import Objective, create_backend
from isinglass.backends.torch.cpu import attention
from isinglass.backends.torch.cpu import backend as cpu_backend
from isinglass.backends.torch.cpu.dropout import MaskDropout
from isinglass.backends.torch.cpu.linear import linear
from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.source import load_model
from isinglass.training.preparation import Packer

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
    shape, masks = (TOKENS, 4 * HIDDEN), MaskDropout(1, 1)
    return alternate(lambda: torch.empty(shape).bernoulli_(0.9), lambda: masks.draw(shape, 0.1, torch.float32))


def word_gradients():
    """Time the gradient of the word embedding: for the whole vocabulary, or for the rows of this step only."""
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


def backend_and_batches(precision="fp32", draw=0, parts=None):
    """Return all-MiniLM-L6-v2 and 32 packed examples of MRPC's lengths, drawn by the seed `draw`, in `parts` batches."""
    rng = np.random.default_rng(draw)
    lengths = rng.integers(24, 83, 32)
    tokens = TokenizedTexts(
        input_ids=rng.integers(1000, 30000, lengths.sum()).astype(np.int32),
        token_type_ids=np.zeros(lengths.sum(), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=0,
    )
    config, checkpoint = TrainConfig(precision=precision), load_model("demo")
    backend = create_backend(config, checkpoint, Objective(kind="classification", num_outputs=2))
    packer, labels = Packer(config, checkpoint), rng.integers(0, 2, 32)
    return backend, packer.pack_parts(tokens, np.arange(32), labels, parts or backend.parallel_batches)


def training_step(backend, batches, step):
    return milliseconds(lambda: backend.train_step(batches, step=step, learning_rate=0))


def training_steps():
    """Return the milliseconds of a training step: the median of ROUNDS."""
    backend, batches = backend_and_batches()
    return statistics.median([training_step(backend, batches, step) for step in range(ROUNDS + 3)][3:])


def steps_of_many_lengths():
    """Return the milliseconds of a bf16 step, where each step has other lengths, after as many steps of warm-up."""
    backend, _ = backend_and_batches("bf16")
    drawn = [backend_and_batches("bf16", draw)[1] for draw in range(2 * ROUNDS)]
    times = [training_step(backend, batches, step) for step, batches in enumerate(drawn)]
    return statistics.median(times[ROUNDS:])


def in_processes(*options):
    """Time what cannot be undone in processes of its own, without and with the optimization: medians of three."""
    commands = [[sys.executable, __file__, *some] for some in options]
    times = [[float(subprocess.check_output(command, text=True)) for command in commands] for _ in range(3)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def kept_memory():
    return in_processes(["--steps", "--give-back"], ["--steps"])


def few_shapes():
    return in_processes(["--lengths", "--as-they-come"], ["--lengths"])


def parallel_batches(precision):
    """Time a step as one batch on all threads, and as two parallel micro-batches; both draw their dropout masks."""
    backend, halves = backend_and_batches(precision)
    if backend.parallel_batches == 1:
        sys.exit("PyTorch has one thread here: batches cannot run in parallel.")
    _, whole = backend_and_batches(precision, parts=1)
    times = ([], [])
    for step in range(ROUNDS + 3):
        for batches, kept in zip((whole, halves), times, strict=True):
            kept.append(training_step(backend, batches, step))
    return [statistics.median(kept[3:]) for kept in times]


def fp32_products():
    if not mkl_leaves_avx512_unused():
        sys.exit("MKL uses all instructions of this CPU: there is nothing to compare.")
    x, weight, bias = torch.randn(TOKENS, HIDDEN), torch.randn(4 * HIDDEN, HIDDEN), torch.randn(4 * HIDDEN)
    return alternate(lambda: F.linear(x, weight, bias), lambda: linear(x, weight, bias))


def bf16_products():
    """Time bf16 steps on a CPU without bf16 instructions: three of each, because the plain ones take long."""
    backend, batches = backend_and_batches("bf16")
    widened = backend._products
    if isinstance(widened(), contextlib.nullcontext):
        sys.exit("This CPU has bf16 instructions: nothing is widened on it.")
    times = ([], [])
    for step in range(4):
        for products, kept in zip((contextlib.nullcontext, widened), times, strict=True):
            backend._products = products
            kept.append(training_step(backend, batches, step))
    return [statistics.median(kept[1:]) for kept in times]


if "--steps" in sys.argv:
    if "--give-back" in sys.argv:
        cpu.keep_freed_memory = lambda: None
    print(training_steps())
    sys.exit()
if "--lengths" in sys.argv:
    if "--as-they-come" in sys.argv:
        attention.GROUP_SIZES, attention.LENGTH_MULTIPLE = tuple(range(32, 0, -1)), 1
        cpu_backend.rounded_rows = lambda num_tokens, **_: num_tokens
    print(steps_of_many_lengths())
    sys.exit()
for trick, measured in {
    "dropout mask of 1700 x 1536: bernoulli_, or thresholds on 16 random bits": dropout_masks,
    "gradient of the word embedding, 1700 tokens: dense, or this step's rows": word_gradients,
    "training step, freed memory given back to the kernel or kept": kept_memory,
    "training step in fp32: one stream on all threads, or two": lambda: parallel_batches("fp32"),
    "training step in bf16: one stream on all threads, or two": lambda: parallel_batches("bf16"),
    "training step in bf16: shapes as the lengths come, or few": few_shapes,
    "product of 1700 x 384 and 384 x 1536 in fp32 on AMD: MKL, or oneDNN": fp32_products,
    "training step in bf16 without bf16 instructions: PyTorch's products, or fp32's rounded": bf16_products,
}.items():
    if len(sys.argv) > 1 and not any(word in trick for word in sys.argv[1:]):
        continue
    before, after = measured()
    row = {
        "trick": trick,
        "before_ms": before,
        "after_ms": after,
        "device": describe_cpu(torch.get_num_threads()),
        "torch": torch.__version__,
    }
    with open(RESULTS, "a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row))
