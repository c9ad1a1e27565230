"""Measure which share of a training step, and of a prediction, its matrix products take.

One process for each precision, in which these alternate: training steps of 32 examples with MRPC's lengths and vocabulary
(of 640 examples and the dev set), all-MiniLM-L6-v2, every dropout on; predictions for as many batches of 32 as run in
parallel; the matrix products of each alone, for the real tokens, in the last layer for the first tokens; and a square
product, for the peak. Each kind of work appends one line to `benchmarks/results/share.jsonl`.

    python benchmarks/share.py [fp32] [bf16]
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np
import torch

from isinglass.backends.protocol import Objective, create_backend
from isinglass.backends.torch.cpu.linear import linear
from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.source import load_model
from isinglass.models.vocabulary import Vocabulary, trim_vocabulary
from isinglass.training.preparation import Packer

RESULTS = pathlib.Path(__file__).parent / "results" / "share.jsonl"
ROUNDS, WARM_UP, BATCH, SQUARE, WORDS = 40, 10, 32, 2048, 6652


def batches_of(rng, packer, parts, labelled=True):
    """Return 32 examples, packed, with about MRPC's lengths (mean 53 tokens, standard deviation 17)."""
    lengths = np.clip(np.rint(rng.normal(53, 17, BATCH)), 12, 128).astype(np.int64)
    tokens = TokenizedTexts(
        input_ids=rng.integers(1, WORDS, lengths.sum()).astype(np.int32),
        token_type_ids=np.zeros(lengths.sum(), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=0,
    )
    return packer.pack_parts(tokens, np.arange(BATCH), rng.integers(0, 2, BATCH) if labelled else None, parts)


def shapes(blueprint, tokens):
    """Return (rows, in, out) of each product of the encoder's layers."""
    H, F = blueprint.hidden_size, blueprint.blocks[0].inner_size
    layer = [(H, 3 * H), (H, H), (H, F), (F, H)]
    whole = [(tokens, *sides) for sides in layer] * (blueprint.num_hidden_layers - 1)
    return [*whole, (tokens, H, 2 * H), *((BATCH, *sides) for sides in [(H, H), *layer[1:]])]


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def operands(blueprint, dtype, tokens):
    """Yield input, weight, bias and the gradient of the result of each product."""
    for rows, width, out in shapes(blueprint, tokens):
        x, weight, bias = (torch.randn(*shape).to(dtype).requires_grad_() for shape in ((rows, width), (out, width), (out,)))
        yield x, weight, bias, torch.randn(rows, out).to(dtype)


def forward_and_backward(products):
    for x, weight, bias, grad in products:
        torch.autograd.grad(linear(x, weight, bias), (x, weight), grad)


@torch.inference_mode()
def forward(products):
    for x, weight, bias, _ in products:
        linear(x, weight, bias)


def measure(precision):
    config, checkpoint = TrainConfig(precision=precision), load_model("demo")
    met = np.arange(checkpoint.blueprint.embeddings.vocab_size) < WORDS
    vocabulary = Vocabulary(np.flatnonzero(met), np.where(met, np.cumsum(met) - 1, 0).astype(np.int32))
    checkpoint = trim_vocabulary(checkpoint, vocabulary)
    backend = create_backend(config, checkpoint, Objective(kind="classification", num_outputs=2))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    packer, rng = Packer(config, checkpoint), np.random.default_rng(0)
    square = torch.randn(2, SQUARE, SQUARE).to(dtype)
    seconds_of, flops = defaultdict(list), defaultdict(list)
    for step in range(WARM_UP + ROUNDS):
        training = batches_of(rng, packer, backend.parallel_batches)
        predicted = [one for _ in range(backend.parallel_batches) for one in batches_of(rng, packer, 1, labelled=False)]
        work = {
            "training": (
                training,
                6,
                forward_and_backward,
                lambda b, s=step: backend.train_step(b, step=s, learning_rate=0),
            ),
            "prediction": (predicted, 2, forward, backend.predict),
        }
        for name, (batches, operations, compute, whole) in work.items():
            batched = [batches] if name == "training" else [[one] for one in batches]  # a training step is one piece of work
            pieces = [[*operands(checkpoint.blueprint, dtype, sum(b.num_tokens for b in some))] for some in batched]
            for piece in pieces:
                compute(piece)  # warm up, as the backend has done
            if name == "prediction":
                whole(batches)  # the first prediction after a step casts the weights
            seconds_of[name].append(seconds(lambda: whole(batches)))
            seconds_of[f"{name} products"].append(sum(seconds(lambda p=piece: compute(p)) for piece in pieces))
            flops[name].append(
                sum(operations * x.shape[0] * weight.numel() for piece in pieces for x, weight, _, _ in piece)
            )
        seconds_of["square"].append(seconds(lambda: linear(square[0], square[1], square[0, 0])))
    middle = {name: statistics.median(some[WARM_UP:]) for name, some in seconds_of.items()}
    for name, counted in flops.items():
        yield {
            "precision": precision,
            "work": name,
            "step_seconds": middle[name],
            "products_seconds": middle[f"{name} products"],
            "flops": statistics.median(counted[WARM_UP:]),
            "peak_flops": 2 * SQUARE**3 / middle["square"],
            "device": backend.device,
            "torch": torch.__version__,
        }


if "--one" in sys.argv:
    for row in measure(sys.argv[-1]):
        print(json.dumps(row))
    sys.exit()
for name in sys.argv[1:] or ["fp32", "bf16"]:
    rows = subprocess.check_output([sys.executable, __file__, "--one", name], text=True)
    with open(RESULTS, "a") as lines:
        lines.write(rows)
    print(rows, end="")
