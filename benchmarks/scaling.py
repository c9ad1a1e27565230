"""Estimate how long the nine GLUE tasks, and a sweep over them, take on 1 to 1,024 devices.

NOTHING about GPUs here is measured. A step's time is computed from the assumptions of `clusters()`, whose sources are in
SOURCES. The clusters of CPU machines take the time of a step from runs measured on one of them (the bench in
`results/seed-pytorch`); only their network is assumed. Lengths of texts come from the same bench if it has the task, else
they are assumed. `results/scaling.jsonl` is replaced; `make docs` writes its tables into docs/scaling.md.

    python benchmarks/scaling.py [--set 'a100-*.fixed_seconds=0.004' ...] [--output FILE]
"""

import argparse
import dataclasses
import fnmatch
import functools
import heapq
import json
import math
import pathlib
import sys

import numpy as np

from isinglass.bench.harness import OVERHEAD_SECONDS
from isinglass.bench.plan import PRESETS
from isinglass.config import resolve
from isinglass.packing import num_steps, plan_epoch, shard_step
from isinglass.report.published import PYTORCH
from isinglass.results import read_records
from isinglass.tasks import TASKS

RESULTS = pathlib.Path(__file__).parent / "results"
GLUE = PRESETS["glue"].tasks
DEVICES = tuple(2**i for i in range(11))
WIDTHS = (1, 2, 4, 8, 16, 32)  # devices that share a step of 32 examples
BATCHES = (32, 256, 1024, 4096)
LARGE_BATCH, ENOUGH_STEPS = 1024, 100  # a task is shown at the large batch if it has that many steps
SEEDS, PRECISIONS = 5, ("fp32", "bf16")
ASSUMED_LENGTHS = {"sst2": 13, "qqp": 30, "mnli": 39, "qnli": 50}  # mean tokens of an example
SPREAD_LIKE = "rte"  # the four assumed tasks get its spread of lengths, the widest measured
BUCKET_BYTES = 25 * 2**20  # of DistributedDataParallel; the reduction of the last bucket overlaps with nothing
SMALL_EXCHANGES = 4  # in a step, too: counts and ids of the updated rows, the loss, whether a signal came
TITAN_RTX = {"fp32": 16.3e12, "fp16": 130.5e12}  # peak FLOP/s (data sheet) of the GPU of the published runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A BERT: its size, and the number of operations to train on one token."""

    layers: int
    hidden: int
    vocabulary: int = 30522

    @property
    def shared(self):
        """Return the number of parameters whose gradients are reduced in full: all but the word embedding."""
        H = self.hidden
        return (512 + 2 + 2) * H + self.layers * (12 * H + 13) * H + (H + 1) * H

    def flops(self, length):
        """Return the operations for a token of an example of `length`, both passes: 72 H^2 (1 + length / 6H) a layer.

        Source: Narayanan et al. 2021 (Megatron-LM): 24 H^2 + 4 length H forward, twice that backward.
        """
        return 3 * self.layers * (24 * self.hidden**2 + 4 * length * self.hidden)


BERT_BASE, MINILM = Model(layers=12, hidden=768), Model(layers=6, hidden=384)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices, their number in a node, and what connects them. Bandwidths are in bytes/s for a device, in one direction."""

    model: Model
    peak_flops: float
    utilisation: float
    fixed_seconds: float
    node_devices: int
    node_bandwidth: float
    network_bandwidth: float
    link_efficiency: float = 0.8
    node_latency: float = 3e-6
    network_latency: float
    gradient_bytes: float = 4
    overlap: float


SOURCES = {
    "peak_flops": "A100 SXM data sheet: dense bf16 on tensor cores; fp32 without TF32. CPU: MEASURED (fitted)",
    "utilisation": "ASSUMED share of the peak; for comparison, what published runs reach stands below",
    "fixed_seconds": "ASSUMED: about a thousand kernel launches, AdamW's passes over memory. CPU: MEASURED (fitted)",
    "node_devices": "DGX A100: 8 GPUs. A CPU machine is one device of 2 threads",
    "node_bandwidth": "A100 data sheet: NVLink, 600 GB/s in both directions together. CPU: not used",
    "network_bandwidth": "a100: DGX A100 data sheet, 200 Gbit/s InfiniBand for each GPU. ethernet: ASSUMED, 100 Gbit/s for "
    "the 8 GPUs of a node. cpu: ASSUMED, 10 Gbit/s",
    "link_efficiency": "ASSUMED share of these bandwidths that a reduction gets",
    "node_latency": "ASSUMED, of each message within a node",
    "network_latency": "ASSUMED, of each message between nodes",
    "gradient_bytes": "of each weight's gradient as it is sent: isinglass sends fp32, 4",
    "overlap": "ASSUMED share of the backward pass behind which the reduction hides. CPU: none, both need the same threads",
}


def clusters():
    """Return the clusters by name. The speed of the CPU machines is fitted to the result files."""
    bf16 = Cluster(
        model=BERT_BASE,
        peak_flops=312e12,
        utilisation=0.3,
        fixed_seconds=0.008,
        node_devices=8,
        node_bandwidth=300e9,
        network_bandwidth=25e9,
        network_latency=10e-6,
        overlap=1,
    )
    fp32 = dataclasses.replace(bf16, peak_flops=19.5e12, utilisation=0.5)
    found = {"a100-fp32": fp32, "a100-bf16": bf16}
    for precision, one in (("fp32", fp32), ("bf16", bf16)):
        found[f"ethernet-{precision}"] = dataclasses.replace(one, network_bandwidth=100e9 / 8 / 8, network_latency=30e-6)
    for precision in PRECISIONS:
        rate, fixed = fit(measured_steps(precision))
        cpu = {"node_bandwidth": 1.25e9, "network_bandwidth": 1.25e9, "network_latency": 50e-6, "overlap": 0}
        found[f"cpu-{precision}"] = Cluster(
            model=MINILM, peak_flops=rate, utilisation=1, fixed_seconds=fixed, node_devices=1, **cpu
        )
    return found


@functools.cache
def bench():
    return read_records(RESULTS / "seed-pytorch").results


@functools.cache
def lengths(task):
    """Return the tokens of each training example: measured, or those of SPREAD_LIKE scaled to the assumed mean."""
    counts = next((one.train_lengths for one in bench() if one.task == task), None)
    if counts is None:
        like = lengths(SPREAD_LIKE)
        return like * (ASSUMED_LENGTHS[task] / like.mean())
    return np.repeat(np.arange(len(counts)), counts).astype(float)


def measured_steps(precision):
    """Return file, task, operations of a step and seconds of a step, measured on one CPU machine."""
    rows = []
    for one in bench():
        if one.precision == precision:
            steps = one.config["epochs"] * num_steps(one.examples["train"], one.config["batch_size"])
            rows.append(("seed-pytorch", one.task, one.train_seconds / steps))
    return [(source, task, 32 * operations(MINILM, task), seconds) for source, task, seconds in rows]


def fit(steps):
    """Return FLOP/s and fixed seconds: the line with the least relative errors at the measured steps."""
    _, _, flops, seconds = zip(*steps, strict=True)
    slope, fixed = np.polyfit(flops, seconds, 1, w=1 / np.array(seconds))
    return 1 / slope, fixed


def operations(model, task):
    """Return the mean number of operations of an example."""
    mean = float(lengths(task).mean())
    return mean * model.flops(mean)


def all_reduce_bytes(size, ranks):
    """Return the bytes that each rank sends in a ring: 2 (n - 1) / n of `size`, the minimum (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) / ranks * size


def exchange_seconds(one, ranks, size):
    """Return the seconds of an all-reduce: rings within and between nodes, latencies of a tree (NCCL since 2.4)."""
    inner, nodes = min(ranks, one.node_devices), -(-ranks // one.node_devices)
    within = all_reduce_bytes(size, inner) / (one.node_bandwidth * one.link_efficiency)
    between = all_reduce_bytes(size / inner, nodes) / (one.network_bandwidth * one.link_efficiency)
    return within + between + 2 * (inner - 1) * one.node_latency + 2 * math.ceil(math.log2(nodes)) * one.network_latency


def step_parts(one, task, batch, devices):
    """Return the seconds of each part of a step on the device with the most tokens. Devices beyond the batch size stay idle.

    Of the word embedding only the rows that the step updates are sent, at most one for each token: an all-gather, half of
    an all-reduce.
    """
    ranks = min(devices, batch)
    compute = batch / ranks * unevenness(task, batch, ranks) * operations(one.model, task)
    compute /= one.peak_flops * one.utilisation
    size = one.model.shared * one.gradient_bytes
    reduction = exchange_seconds(one, ranks, size)
    last = reduction * min(1, BUCKET_BYTES / size)
    tokens = min(batch / ranks * lengths(task).mean(), one.model.vocabulary) * ranks
    rows = exchange_seconds(one, ranks, tokens * one.model.hidden * one.gradient_bytes / 2)
    waits = max(last, reduction - one.overlap * compute * 2 / 3) + rows + SMALL_EXCHANGES * exchange_seconds(one, ranks, 0)
    return {"compute": compute, "fixed": one.fixed_seconds, "all_reduce": reduction, "rows": rows, "waits": waits}


def steps_of(task, batch):
    return resolve(task=task).epochs * num_steps(TASKS[task].train.rows, batch)


def run_seconds(one, task, batch, devices):
    """Return the seconds of all training steps of a task's classic recipe."""
    parts = step_parts(one, task, batch, devices)
    return steps_of(task, batch) * (parts["compute"] + parts["fixed"] + parts["waits"])


@functools.cache
def unevenness(task, batch, ranks, by_tokens=True):
    """Return the tokens of the rank that has most, divided by the mean of the ranks, averaged over steps.

    Steps are planned as isinglass does, and are split by tokens, as it does, or into equal numbers of examples. Batches
    larger than 32 are sampled three times.
    """
    tokens = lengths(task).round().astype(int)
    steps = [np.random.default_rng(i).integers(0, len(tokens), batch) for i in range(3)]
    if batch == 32:
        steps = [step for epoch in range(3) for step in plan_epoch(len(tokens), batch, seed=42, epoch=epoch)[:-1]][:300]
    fullest = 0
    for step in steps:
        parts = shard_step(tokens[step], ranks) if by_tokens else np.array_split(np.arange(batch), ranks)
        fullest += max(tokens[step][part].sum() for part in parts)
    return fullest * ranks / sum(tokens[step].sum() for step in steps)


def schedule(jobs, devices):
    """Give each job (seconds, width), in order, the `width` devices that are free first, and return when each ends its work.

    Example: `schedule([(3, 1), (2, 1), (2, 1)], 2)` is [3, 4]: the third job follows the second.
    """
    free = [0.0] * devices
    for seconds, width in jobs:
        taken = [heapq.heappop(free) for _ in range(width)]
        for _ in taken:
            heapq.heappush(free, taken[-1] + seconds)
    return sorted(free)


def longest_first(jobs):
    return sorted(jobs, reverse=True)


def lower_bound(jobs, devices):
    """Return the earliest possible end: all the work shared evenly, and not before the longest job."""
    return max(sum(seconds * width for seconds, width in jobs) / devices, max(seconds for seconds, _ in jobs))


def share_out(times, devices):
    """Return jobs (seconds, width), each with the fewest devices to end within T, for the T whose schedule ends first.

    Args:
        times: for each run: width -> seconds. A run that cannot end within T gets the width with which it ends first.
    """
    found = []
    for within in {seconds for by_width in times for seconds in by_width.values()}:
        widths = [next((w for w in one if one[w] <= within), min(one, key=one.get)) for one in times]
        jobs = longest_first([(one[width], width) for one, width in zip(times, widths, strict=True)])
        found.append((schedule(jobs, devices)[-1], sum(seconds * width for seconds, width in jobs), jobs))
    return min(found)[-1]


def sweep(fp32, bf16, devices):
    """Return when the last run of nine tasks, five seeds and two precisions ends, in different orders, and the bounds."""
    times = []
    for task in GLUE:
        for one in (fp32, bf16):
            by_width = {w: run_seconds(one, task, 32, w) + OVERHEAD_SECONDS for w in WIDTHS if w <= devices}
            times += [by_width] * SEEDS
    single = [(by_width[1], 1) for by_width in times]
    shared = share_out(times, devices)
    return {
        "bound_single": lower_bound(single, devices),
        "submitted": schedule(single, devices)[-1],
        "longest_first": schedule(longest_first(single), devices)[-1],
        "bound": max(sum(s for s, _ in single) / devices, max(min(by_width.values()) for by_width in times)),
        "shared": schedule(shared, devices)[-1],
        "widest": max(width for _, width in shared),
    }


def rows(found):
    """Yield all lines of the result file."""
    for field, source in SOURCES.items():
        yield {"table": "assumption", "field": field, "source": source} | {n: getattr(c, field) for n, c in found.items()}
    for task in GLUE:
        figures = {"mean": lengths(task).mean(), "measured": task in {one.task for one in bench()}}
        yield {"table": "lengths", "task": task, "examples": TASKS[task].train.rows, "steps": steps_of(task, 32)} | figures
    for precision in PRECISIONS:
        one = found[f"cpu-{precision}"]
        for source, task, flops, seconds in measured_steps(precision):
            figures = {"seconds": seconds, "fitted": one.fixed_seconds + flops / one.peak_flops / one.utilisation}
            yield {"table": "measured", "source": source, "task": task, "precision": precision} | figures
    for task, (_, seconds, _, fp16_seconds) in PYTORCH.items():
        for precision, clock in {"fp32": seconds, "fp16": fp16_seconds}.items():
            hours, minutes, rest = [0, *map(int, clock.split(":"))][-3:]
            rate = resolve(task=task).epochs * TASKS[task].train.rows / (3600 * hours + 60 * minutes + rest)
            figures = {"examples_per_second": rate, "share": rate * 128 * BERT_BASE.flops(128) / TITAN_RTX[precision]}
            yield {"table": "published", "task": task, "precision": precision} | figures
    for name, one in found.items():
        for task in GLUE:
            for batch in (32, LARGE_BATCH) if steps_of(task, LARGE_BATCH) >= ENOUGH_STEPS else (32,):
                seconds = {n: run_seconds(one, task, batch, n) for n in DEVICES}
                yield {"table": "run", "cluster": name, "task": task, "batch": batch, "seconds": seconds}
        for batch in BATCHES:
            for n in (n for n in DEVICES if n <= batch):
                halved = exchange_seconds(one, n, 2 * one.model.shared)
                figures = step_parts(one, "mnli", batch, n) | {"all_reduce_bf16": halved}
                figures["run"] = run_seconds(one, "mnli", batch, n)
                yield {"table": "floor", "cluster": name, "batch": batch, "devices": n} | figures
    for task in ("mrpc", "rte"):
        for ranks in WIDTHS:
            figures = {kind: unevenness(task, 32, ranks, kind == "tokens") for kind in ("tokens", "counts")}
            yield {"table": "balance", "task": task, "ranks": ranks} | figures
    for hardware in ("a100", "cpu"):
        for n in DEVICES:
            figures = sweep(found[f"{hardware}-fp32"], found[f"{hardware}-bf16"], n)
            yield {"table": "sweep", "hardware": hardware, "devices": n} | figures


def rounded(value):
    """Return the value rounded to four digits, so that the file is the same on every machine."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def changed(found, assignment):
    """Return the clusters with `CLUSTERS.FIELD=NUMBER` applied; CLUSTERS is a name or a pattern."""
    pattern, _, rest = assignment.partition(".")
    field, _, value = rest.partition("=")
    names = fnmatch.filter(found, pattern)
    least = 0 if field in ("fixed_seconds", "node_latency", "network_latency", "overlap") else sys.float_info.min
    kinds = {one.name: one.type for one in dataclasses.fields(Cluster)}
    try:
        number = kinds[field](value) if field in SOURCES else math.nan
    except ValueError:
        number = math.nan
    if not names or not least <= number < math.inf:
        sys.exit(f"--set {assignment}: expected CLUSTER.FIELD=NUMBER, of {', '.join(found)} and of {', '.join(SOURCES)}.")
    return found | {name: dataclasses.replace(found[name], **{field: number}) for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="CLUSTER.FIELD=NUMBER", help="another assumption")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "scaling.jsonl")
    args = parser.parse_args()
    lines = [json.dumps(rounded(row)) for row in rows(functools.reduce(changed, args.set, clusters()))]
    args.output.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} lines in {args.output}")


if __name__ == "__main__":
    main()
