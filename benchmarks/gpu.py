"""Measure training speed on one GPU, of isinglass and of `transformers`' Trainer: BERT-base on as many pairs as MNLI has.

Random weights (12 layers, 768, 3072, vocabulary 30522), batch 32, every dropout on, AdamW, clipping, the linear schedule.
392,702 pairs of random ids. A pair has 3 special tokens and two texts, whose lengths are drawn from log-normal
distributions of mean 24 and standard deviation 16, and mean 12.2 and 5 (150 real pairs of MNLI's dev sets have 25 and 16,
13 and 5), each at least 1; pairs are truncated at 128 tokens. The mean is 39 tokens. Tokenization is not timed.

isinglass runs its own training loop (plan, packing, step, schedule). The clock starts after a warm-up, and starts and stops
with the device idle. It includes compiling and recording where a shape occurs for the first time after the warm-up
(`compile_seconds_timed` is then above 0). The side `bf16-whole` times all steps of the three epochs from the first on, with
everything that is done once. It runs once, and only if `--sides` names it. Trainer runs in the environment of
`--peer-python` (see peer_gpu.py): padded to 128, in its best settings, and compiled. Each measurement is a process of its
own, and the sides alternate. Each round begins with the peak of the device: bf16 products of two square matrices.
`share_of_peak` is the number of operations of all real tokens in all layers, divided by what that peak would do in the same
time. `mnli_seconds` is how long three epochs take at this speed, without evaluation. Each measurement appends one line to
`benchmarks/results/gpu.jsonl`. Compare within one sitting only.

For comparison, the classic example's published times of the three epochs, on one Titan RTX, padded to 128: 2:35:23 in FP32
and 1:17:06 in FP16.

    python benchmarks/gpu.py --peer-python PEER_ENV/bin/python --rounds 5
    python benchmarks/gpu.py --rehearse      # a tiny model on the CPU, nothing is written
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import typing

import numpy as np
import torch

from isinglass.backends.protocol import Objective, create_backend
from isinglass.config import Precision, TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.families.bert import BERT
from isinglass.results import installed_versions
from isinglass.training.loop import Loop
from isinglass.training.preparation import Packer, PreparedSplit
from scaling import Model

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "gpu.jsonl"
MNLI, EPOCHS, BATCH, MAX_LENGTH, LABELS = 392_702, 3, 32, 128, 3
SPECIALS, TEXTS = 3, ((24, 16), (12.2, 5))  # mean and standard deviation of each text's tokens
PRECISIONS = tuple(name for name in ("fp32", "tf32", "bf16", "fp16") if name in typing.get_args(Precision))
OURS = tuple(f"{precision}{how}" for precision in PRECISIONS for how in ("", "-compile"))
WHOLE = "bf16-whole"
PEERS = ("trainer-padded-fp32", "trainer-padded-bf16", "trainer-best-bf16", "trainer-compiled-bf16")


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of the model and of the measurement."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    examples: int
    warm_up: int
    steps: int
    peer_warm_up: int
    peer_steps: int
    peak: int


GPU = Size(12, 768, 12, 30522, MNLI, warm_up=1000, steps=1000, peer_warm_up=100, peer_steps=300, peak=8192)
TINY = Size(2, 32, 2, 500, examples=400, warm_up=1, steps=3, peer_warm_up=1, peer_steps=3, peak=128)


def draw_lengths(rng, count):
    """Return the number of tokens of each of `count` pairs."""
    total = np.full(count, SPECIALS)
    for mean, deviation in TEXTS:
        variance = np.log(1 + (deviation / mean) ** 2)
        drawn = rng.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)
        total += np.maximum(1, np.rint(drawn)).astype(np.int64)
    return np.minimum(total, MAX_LENGTH)


def data(size):
    """Return tokenized pairs and their labels. Ids are random, without special ones; the last third is the second text."""
    rng = np.random.default_rng(0)
    lengths = draw_lengths(rng, size.examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    tokens = TokenizedTexts(
        input_ids=rng.integers(size.vocabulary // 25, size.vocabulary, offsets[-1], np.int32),
        token_type_ids=(3 * within >= 2 * np.repeat(lengths, lengths)).astype(np.uint8),
        offsets=offsets,
        truncated=0,
    )
    return tokens, rng.integers(0, LABELS, size.examples)


def random_bert(size):
    values = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.hidden,
    }
    blueprint = BERT.blueprint(values, "random")
    rng = np.random.default_rng(0)
    weights = {}
    for parameter in (parameter for module in blueprint.modules(LABELS) for parameter in module.parameters):
        if parameter.depth > blueprint.num_hidden_layers:
            continue  # the head is new
        if parameter.decays:
            drawn = rng.standard_normal(parameter.shape, np.float32)
            weights[parameter.name] = drawn * np.float32(blueprint.initializer_range)
        else:
            weights[parameter.name] = np.full(parameter.shape, parameter.role == "norm", np.float32)
    return Checkpoint(
        origin="random",
        blueprint=blueprint,
        config_json={"model_type": "bert"},
        weights=weights,
        label_names=None,
        tokenizer_json="",
        tokenizer_config=None,
    )


def ours(side, size):
    """Time steps of the training loop."""
    precision, _, how = side.partition("-")
    config = TrainConfig(
        precision=precision, compile=how == "compile", epochs=EPOCHS, batch_size=BATCH, max_length=MAX_LENGTH
    )
    checkpoint, (tokens, labels) = random_bert(size), data(size)
    backend = create_backend(config, checkpoint, Objective(kind="classification", num_outputs=LABELS))
    split = PreparedSplit(name="train", examples=None, tokens=tokens, labels=labels)
    loop = Loop(config, backend, Packer(config, checkpoint), split)
    steps = loop.run()

    def run(count):
        for _ in itertools.islice(steps, count):
            pass
        backend.synchronize()
        return time.perf_counter(), loop.state.tokens, backend.compile_seconds

    warm_up, count = (0, loop.total_steps) if side == WHOLE else (size.warm_up, size.steps)
    before = run(warm_up)
    seconds, trained, compiling = (b - a for a, b in zip(before, run(count), strict=True))
    examples = EPOCHS * size.examples if side == WHOLE else BATCH * count
    return {
        "examples_per_second": examples / seconds,
        "seconds": seconds,
        "steps": count,
        "tokens_per_second": trained / seconds,
        "peak_memory_bytes": backend.peak_memory_bytes(),
        "compile_seconds": before[2],
        "compile_seconds_timed": compiling,
        "compilations": backend.compilations,
        "notes": [*backend.notes, *loop.state.notes],
    }


def peak(size):
    """Return the FLOP/s of bf16 products: the median of 20, after a warm-up of 5."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(2, size.peak, size.peak, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(25):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"flops": 2 * size.peak**3 / statistics.median(seconds[5:])}


def theirs(side, size, python):
    """Time the same number of steps by Trainer, on the first of the same pairs."""
    _, padding, precision = side.split("-")
    tokens, labels = data(size)
    count = min(size.examples, BATCH * (size.peer_warm_up + size.peer_steps))
    used = int(tokens.offsets[count])
    with tempfile.TemporaryDirectory() as name:
        np.savez(
            f"{name}/data.npz",
            input_ids=tokens.input_ids[:used],
            token_type_ids=tokens.token_type_ids[:used],
            offsets=tokens.offsets[: count + 1],
            labels=labels[:count],
        )
        options = {"--data": f"{name}/data.npz", "--padding": padding, "--precision": precision, "--batch": BATCH}
        options |= {"--layers": size.layers, "--hidden": size.hidden, "--heads": size.heads}
        options |= {"--vocabulary": size.vocabulary, "--warm-up": size.peer_warm_up, "--steps": size.peer_steps}
        return spawn([python, str(HERE / "peer_gpu.py"), *(str(word) for pair in options.items() for word in pair)])


def spawn(command):
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter with transformers and accelerate; default: no peers")
    parser.add_argument(
        "--sides", nargs="+", choices=(*OURS, WHOLE, *PEERS), help="default: all; with --rehearse: fp32 and bf16"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rehearse", action="store_true", help="try the command: a tiny model on the CPU, no results")
    parser.add_argument(
        "--only", choices=("peak", *OURS, WHOLE), help=argparse.SUPPRESS
    )  # what a process of its own measures
    args = parser.parse_args()
    if not args.rehearse and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU on this machine: run this where there is one, or try the command with --rehearse.")
    size, rounds = (TINY, 1) if args.rehearse else (GPU, args.rounds)
    if args.only:
        print(json.dumps(peak(size) if args.only == "peak" else ours(args.only, size)))
        return
    peers = PEERS if args.peer_python else ()
    sides = args.sides or (("fp32", "bf16") if args.rehearse else PRECISIONS) + peers
    if not args.peer_python and any(side in PEERS for side in sides):
        parser.error("Trainer's sides need --peer-python.")
    own = [sys.executable, __file__, *(["--rehearse"] if args.rehearse else []), "--only"]
    lengths = data(size)[0].lengths
    model = Model(layers=size.layers, hidden=size.hidden, vocabulary=size.vocabulary)
    flops = float(np.mean(lengths * model.flops(lengths)))  # of an example
    shared = {
        "sitting": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "device": "CPU (rehearsal)" if args.rehearse else torch.cuda.get_device_name(),
        "mean_tokens": float(lengths.mean()),
        "versions": installed_versions(),
    }
    for number in range(rounds):
        top = spawn([*own, "peak"])["flops"]
        for side in sides:
            if side == WHOLE and number > 0:
                continue
            found = theirs(side, size, args.peer_python) if side in PEERS else spawn([*own, side])
            speed = found["examples_per_second"]
            found = {"tokens_per_second": speed * float(lengths.mean())} | found
            row = {"round": number, "side": side, **found, "peak_flops": top, "share_of_peak": speed * flops / top}
            row |= {"mnli_seconds": EPOCHS * MNLI / speed, **shared}
            if not args.rehearse:
                with open(RESULTS, "a") as lines:
                    lines.write(json.dumps(row) + "\n")
            print(json.dumps({key: value for key, value in row.items() if key != "versions"}), flush=True)


if __name__ == "__main__":
    main()
