"""Write the figures of README.md and docs/ from the result files in `benchmarks/results`; `--check` only compares.

A generated block stands between `<!-- figures: NAME -->` and `<!-- end -->`; NAME is a key of FIGURES. Files in WHOLE_FILES
are generated as a whole.

    python benchmarks/write_docs.py [--check]
"""

import contextlib
import json
import pathlib
import re
import statistics
import sys
from collections import Counter, defaultdict

from scipy.stats import ttest_ind

from isinglass.config import resolve
from isinglass.report.bench import groups_of
from isinglass.report.tables import pytorch_table, tensorflow_table
from isinglass.results import read_records
from isinglass.tasks import TASKS
from reference import reference

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SOAK = ROOT / "soak" / "results"
DOCUMENTS = (
    "docs/reliability.md",
    "README.md",
    "docs/benchmarks.md",
    "docs/experiments.md",
    "docs/guide.md",
    "docs/scaling.md",
)
TRAINER = "transformers Trainer"
SIDES = {
    "isinglass": "isinglass, PyTorch",
    "dynamic": "Trainer at its best",
    "padded": "Trainer, padded to 128",
    "compiled": "Trainer, compiled",
    "isinglass-predict": "isinglass, PyTorch",
    "dynamic-predict": "Trainer.predict at its best",
    "tensorflow": "isinglass, TensorFlow",
    "tensorflow-xla": "isinglass, TensorFlow with XLA",
    "kerashub": "KerasHub",
    "kerashub-xla": "KerasHub with XLA",
}
GPU_PEERS = {
    "trainer-best-bf16": "dynamic",
    "trainer-compiled-bf16": "compiled",
    "trainer-padded-bf16": "padded",
    "trainer-padded-fp32": "padded",
}
OWN = ("isinglass", "isinglass-predict", "tensorflow", "tensorflow-xla")
PRECISIONS = ("fp32", "bf16")


def read(name, directory=RESULTS):
    path = directory / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def mean_and_spread(values):
    """Return `mean ± standard deviation (n)`, in percent."""
    if not values:
        return "not run"
    points = [100 * value for value in values]
    spread = f" ± {statistics.stdev(points):.2f}" if len(points) > 1 else ""
    return f"{statistics.mean(points):.2f}{spread} ({len(points)})"


def accuracy(recipe):
    """Return the dev scores of both tools over seeds, one row for each metric and precision."""
    scores = defaultdict(dict)  # (task, metric, precision) -> tool -> values
    collapsed = Counter()  # runs that predict one label only, by task, precision and tool
    majority = {}
    for row in read("accuracy"):
        grouped = row["tool"] == TRAINER and not row.get("shuffled")  # by length, which changes the scores
        if row["recipe"] == recipe and not grouped:
            collapsed[row["task"], row["precision"], row["tool"]] += row["collapsed"]
            for metric, value in row["metrics"].items():
                scores[row["task"], metric, row["precision"]].setdefault(row["tool"], []).append(value)
            majority |= {(row["task"], metric): value for metric, value in row.get("majority", {}).items()}
    rows = []
    for task in TASKS.values():
        for metric in task.metrics:
            for precision in ("fp32", "bf16"):
                found = scores.get((task.name, metric, precision))
                if found is None:
                    continue
                ours, theirs = found.get("isinglass", []), found.get(TRAINER, [])
                difference = chance = "-"
                if ours and theirs:
                    difference = f"{100 * (statistics.mean(ours) - statistics.mean(theirs)):+.2f}"
                if min(len(ours), len(theirs)) >= 3:
                    chance = f"{ttest_ind(ours, theirs, equal_var=False).pvalue:.2f}"
                constant = majority.get((task.name, metric))
                counts = [collapsed[task.name, precision, tool] for tool in ("isinglass", TRAINER)]
                fallen = [f", {count} collapsed" if count else "" for count in counts]
                rows.append(
                    [
                        task.title,
                        metric,
                        precision,
                        "-" if constant is None else f"{100 * constant:.2f}",
                        mean_and_spread(ours) + fallen[0],
                        mean_and_spread(theirs) + fallen[1],
                        difference,
                        chance,
                    ]
                )
    header = ["task", "metric", "precision", "majority", "isinglass", "Trainer", "difference", "p"]
    return table(header, rows)


def learning_rate():
    """Return the scores on the held-out fifth of the training set, by learning rate."""
    found = defaultdict(list)
    for row in read("choose_rate"):
        for metric, value in row["metrics"].items():
            found[row["task"], metric, row["precision"], row["learning_rate"]].append(value)
    rates = sorted({key[3] for key in found})
    rows = [
        [
            TASKS[task].title,
            metric,
            precision,
            *(mean_and_spread(found.get((task, metric, precision, rate))) for rate in rates),
        ]
        for task, metric, precision in sorted({key[:3] for key in found})
    ]
    return table(["task", "metric", "precision", *(f"{rate:g}" for rate in rates)], rows)


def sittings():
    """Return (sitting, task) -> (side, precision) -> rows."""
    groups = defaultdict(lambda: defaultdict(list))
    for row in read("throughput"):
        groups[row["sitting"], row["task"]][row["side"], row["precision"]].append(row)
    return groups


def speed(kind="train", row_of=None):
    """Return the median speed of each side in its newest sitting, and how many times faster isinglass was in that sitting.

    Args:
        kind: `train` or `predict`.
    """
    rows = []
    newest = {(task, *key): sitting for (sitting, task), found in sorted(sittings().items()) for key in found}
    by_backend = sorted(sittings().items(), key=lambda one: min(list(SIDES).index(side) for side, _ in one[1]))
    for (sitting, task), found in by_backend:
        sides = {key: of for key, of in found.items() if key[0].endswith("-predict") == (kind == "predict")}
        if not sides or (row_of is not None and row_of != task):
            continue
        medians = {key: statistics.median(row["examples_per_second"] for row in of) for key, of in sides.items()}
        device = next(row["device"] for of in sides.values() for row in of if row["device"])
        train = TASKS[task].train.rows * resolve(task=task).epochs
        for side, precision in sorted(sides, key=lambda key: (list(SIDES).index(key[0]), PRECISIONS.index(key[1]))):
            if newest[task, side, precision] != sitting:
                continue
            median, of = medians[side, precision], sides[side, precision]
            values = [row["examples_per_second"] for row in of]
            faster = []
            for own_precision in PRECISIONS:
                own = [medians[key] for key in medians if key[0] in OWN and key[1] == own_precision]
                faster.append(f"{max(own) / median:.2f}" if own and side not in OWN else "-")
            minutes, seconds = divmod(round(train / median), 60)
            rows.append(
                [
                    TASKS[task].title,
                    SIDES[side],
                    precision,
                    f"{median:.1f} ({min(values):.1f} to {max(values):.1f}, {len(values)} rounds)",
                    *faster,
                    *([f"{minutes}:{seconds:02}"] if kind == "train" else []),
                    f"{max(row['peak_memory_bytes'] for row in of) / 2**20:.0f}",
                    f"{device}, {sitting}",
                ]
            )
    header = ["task", "tool", "precision", "examples/s", *(f"isinglass in {p} is faster by" for p in PRECISIONS)]
    return table([*header, *(["recipe takes"] if kind == "train" else []), "peak MiB", "sitting"], rows)


def kerashub():
    """Return our median and KerasHub's fastest round, in the newest sitting of each precision and mode."""
    rows = {}
    for (sitting, _), found in sorted(sittings().items()):
        for (side, precision), of in found.items():
            peer = found.get((side.replace("tensorflow", "kerashub"), precision))
            if side.startswith("tensorflow") and peer:
                own = statistics.median(row["examples_per_second"] for row in of)
                speeds = [row["examples_per_second"] for row in peer]
                each = ", ".join(f"{speed:.1f}" for speed in speeds)
                rows[side, precision] = [SIDES[side], precision, f"{own:.1f}", each, f"{own / max(speeds):.2f}", sitting]
    header = ["tool", "precision", "examples/s", "KerasHub's rounds", "faster than its fastest by", "sitting"]
    return table(header, rows.values())


def share():
    """Return the newest times of a training step and a prediction, of their matrix products alone, and at the peak."""
    newest = {(row.get("work", "training"), row["precision"]): row for row in read("share")}
    rows = [
        [
            work,
            precision,
            f"{1000 * row['step_seconds']:.0f}",
            f"{1000 * row['products_seconds']:.0f}",
            f"{row['products_seconds'] / row['step_seconds']:.0%}",
            f"{row['peak_flops'] / 1e9:.0f}",
            f"{row['flops'] / row['peak_flops'] / row['step_seconds']:.0%}",
            f"{row['device']}, torch {row['torch']}",
        ]
        for (work, precision), row in newest.items()
    ]
    header = [
        "work",
        "precision",
        "time (ms)",
        "products alone (ms)",
        "their share",
        "square product (GFLOP/s)",
        "share at that speed",
    ]
    return table([*header, "device"], rows)


def gpu(*, beside_trainer=False):
    """Return the median speeds of each sitting on a GPU, and how many times faster isinglass in bf16 was in that sitting.

    Args:
        beside_trainer: only the newest sitting with sides of Trainer.
    """
    sides = defaultdict(list)
    found = read("gpu")
    if beside_trainer:
        newest = max(row["sitting"] for row in found if row["side"] in GPU_PEERS)
        found = [row for row in found if row["sitting"] == newest]
    for row in found:
        sides[row["sitting"], row["side"]].append(row)
    medians = {key: statistics.median(row["examples_per_second"] for row in rows) for key, rows in sides.items()}
    rows = []
    for (sitting, side), found in sides.items():
        median, own = medians[sitting, side], medians.get((sitting, "bf16"))
        tool = SIDES.get(GPU_PEERS.get(side, ""), "isinglass, PyTorch")
        rows.append(
            [
                tool,
                side.rpartition("-")[2] if side in GPU_PEERS else side.replace("-whole", ", all their steps"),
                f"{median:,.0f}",
                str(len(found)),
                f"{own / median:.1f}" if own and side in GPU_PEERS else "-",
                duration(found[0]["mnli_seconds"] * found[0]["examples_per_second"] / median),
                f"{100 * statistics.median(row['share_of_peak'] for row in found):.1f} %",
                f"{max(row['peak_memory_bytes'] for row in found) / 2**20:.0f}",
                f"{found[0]['device']}, torch {found[0]['versions']['torch']}, {sitting}",
            ]
        )
    header = ["tool", "precision", "examples/s", "rounds", "isinglass in bf16 is faster by", "MNLI's three epochs take"]
    return table([*header, "share of the peak", "peak MiB", "sitting"], rows)


def large_set():
    """Return the seconds of each part and the peak memory of the newest cold and warm pass."""
    newest = {row["pass"]: row for row in read("large_set")}
    parts = ("read", "tokenize", "plan", "total")
    rows = [
        [
            name,
            f"{row['examples']:,}",
            f"{row['tokens']:,}",
            *(f"{row[f'{part}_seconds']:.2f}" for part in parts),
            f"{row['peak_memory_mib']:.0f}",
            row["cores"],
        ]
        for name, row in newest.items()
    ]
    return table(["pass", "pairs", "tokens", *(f"{part} (s)" for part in parts), "peak MiB", "cores"], rows)


def own_data():
    """Return seconds and peak memory of reading and checking a user's file; the newest line of each format."""
    newest = {row["format"]: row for row in read("own_data")}
    parts = ("import", "read", "inspect", "total")
    rows = [
        [
            name,
            f"{row['rows']:,}",
            f"{row['file_mb']:.0f}",
            *(f"{row[f'{part}_seconds']:.1f}" for part in parts),
            f"{row['peak_memory_mib']:.0f}",
            row["cores"],
        ]
        for name, row in newest.items()
    ]
    return table(["format", "rows", "MB", *(f"{part} (s)" for part in parts), "peak MiB", "cores"], rows)


def preset(name):
    """Return the table of a bench preset, from the records that `isinglass bench` wrote to `results/NAME`."""
    if not (RESULTS / name / "results.jsonl").exists():
        return "Not run yet."
    records = read_records(RESULTS / name)
    groups = groups_of(records.results, records.failed)
    if name == "seed-pytorch":
        shown = pytorch_table(groups, with_published=True)
    else:
        shown = tensorflow_table(groups, with_published=True)
    return shown.to_markdown().strip()


def tricks():
    """Return the time without and with each optimization, in its newest measurement."""
    newest = {row["trick"]: row for row in read("tricks")}
    rows = [
        [
            name,
            f"{row['before_ms']:.2f}",
            f"{row['after_ms']:.2f}",
            f"{row['before_ms'] / row['after_ms']:.1f}",
            row["device"],
        ]
        for name, row in newest.items()
    ]
    return table(["what", "before (ms)", "after (ms)", "ratio", "device"], rows)


def kills():
    """Return how runs ended that were killed and resumed: the newest line of each kind."""
    newest = {row["kind"]: row for row in read("kills", SOAK)}
    rows = [
        [
            kind,
            row["kills"],
            f"{min(row['last_checkpoint_at_kill'])} to {max(row['last_checkpoint_at_kill'])} of {row['steps_of_run']}",
            "none" if row["same_scores"] and not row["differing_files"] else f"DIFFERENT: {row['differing_files']}",
            next(f"{name} {found}" for name, found in row["versions"].items() if name.startswith(kind.split()[0])),
        ]
        for kind, row in newest.items()
    ]
    return table(["run", "kills survived", "last checkpoint at a kill, step", "what differed in the end", "package"], rows)


def fuzz():
    """Return the number of hostile inputs of each reader, from its newest line."""
    newest = {row["target"]: row for row in read("fuzz", SOAK)}
    rows = [
        [
            target,
            f"{row['inputs']:,}",
            f"{row['accepted']:,}",
            f"{row['refused']:,}",
            row["escaped"],
            f"{row['slowest_seconds']:.2f}",
            f"{row['peak_memory_mib']:.0f}",
        ]
        for target, row in newest.items()
    ]
    header = ["reader", "inputs", "accepted", "refused by a sentence", "anything else", "slowest (s)", "peak MiB"]
    return table(header, rows)


def scaling(kind, **wanted):
    """Return the lines of one table of results/scaling.jsonl."""
    return [row for row in read("scaling") if row["table"] == kind and all(row[k] == v for k, v in wanted.items())]


def shared_scores():
    """Return the dev accuracy of runs that two processes shared, and of the same seeds in one process."""
    alone = {
        row["seed"]: row["metrics"]["accuracy"]
        for row in read("accuracy")
        if (row["tool"], row["task"], row["recipe"], row["precision"]) == ("isinglass", "rte", "classic", "fp32")
    }
    shared = read("processes")
    pairs = [(row["seed"], alone[row["seed"]], row["metrics"]["accuracy"], row["device"]) for row in shared]
    rows = [[seed, f"{100 * one:.2f}", f"{100 * several:.2f}", device] for seed, one, several, device in pairs]
    both = [mean_and_spread([pair[i] for pair in pairs]) for i in (1, 2)]
    p = ttest_ind(*([pair[i] for pair in pairs] for i in (1, 2)), equal_var=False).pvalue
    last = ["mean ± sd (runs)", *both, f"Welch's test over seeds: p = {p:.2f}"]
    return table(["seed", "one process", "two", "the two on"], [*rows, last])


def duration(seconds):
    """Return `4.6 s`, `5:51` (minutes and seconds) or `7:10:10` (with hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def scaling_assumptions():
    rows = scaling("assumption")
    names = [name for name in rows[0] if name not in ("table", "field", "source")]
    cells = [[f"`{row['field']}`", *(f"{row[name]:.4g}" for name in names), row["source"]] for row in rows]
    return table(["", *(f"`{name}`" for name in names), "source"], cells)


def scaling_lengths():
    rows = [
        [
            TASKS[row["task"]].title,
            f"{row['examples']:,}",
            f"{row['steps']:,}",
            f"{row['mean']:.1f}",
            "measured" if row["measured"] else "ASSUMED",
        ]
        for row in scaling("lengths")
    ]
    return table(["task", "examples", "steps at batch 32", "tokens of an example, mean", ""], rows)


def scaling_measured():
    rows = [
        [
            TASKS[row["task"]].title,
            row["precision"],
            f"`{row['source']}`",
            f"{1000 * row['seconds']:.0f}",
            f"{1000 * row['fitted']:.0f}",
            f"{100 * (row['fitted'] / row['seconds'] - 1):+.0f} %",
        ]
        for row in scaling("measured")
    ]
    return table(["task", "precision", "from", "measured (ms)", "the fitted line (ms)", "difference"], rows)


def scaling_published():
    rows = [
        [TASKS[row["task"]].title, row["precision"], f"{row['examples_per_second']:.0f}", f"{row['share']:.2f}"]
        for row in scaling("published")
    ]
    return table(["task", "precision", "examples/s", "share of the peak"], rows)


def scaling_tasks(cluster, batch):
    """Return the time of each task's training steps by number of devices."""
    columns = (1, 2, 4, 8, 16, 32) if batch == 32 else (1, 8, 32, 128, 512, 1024)
    rows = [
        [TASKS[row["task"]].title, *(duration(row["seconds"][str(n)]) for n in columns)]
        for row in scaling("run", cluster=cluster, batch=batch)
    ]
    return table(["task", *columns], rows)


def scaling_floor(cluster):
    """Return the parts of a step of MNLI at batch 32, in milliseconds."""
    found = scaling("floor", cluster=cluster, batch=32)
    parts = ("compute", "fixed", "all_reduce", "all_reduce_bf16", "rows", "waits")
    rows = [
        [
            row["devices"],
            *(f"{1000 * row[part]:.2f}" for part in parts),
            duration(row["run"]),
            f"{found[0]['run'] / row['run']:.2f}",
        ]
        for row in found
    ]
    reductions = ("all-reduce, fp32", "all-reduce, were it bf16")
    return table(["devices", "compute", "fixed", *reductions, "rows of words", "waits", "3 epochs", "times faster"], rows)


def scaling_limits():
    """Return where the all-reduce exceeds the compute, the shortest run and its parts, for each cluster and batch."""
    rows = []
    for cluster in ("a100-fp32", "a100-bf16", "ethernet-bf16", "cpu-fp32"):
        for batch in (32, 256, 1024, 4096):
            found = scaling("floor", cluster=cluster, batch=batch)
            exceeds = next((row["devices"] for row in found if row["all_reduce"] > row["compute"]), "never")
            worthwhile = [row for row, before in zip(found[1:], found) if before["run"] / row["run"] > 1.5]
            best = min(found, key=lambda row: row["run"])
            parts = {part: best[part] for part in ("compute", "fixed", "waits")}
            shares = ", ".join(f"{name} {100 * value / sum(parts.values()):.0f} %" for name, value in parts.items())
            last = worthwhile[-1]["devices"] if worthwhile else 1
            rows.append(
                [f"`{cluster}`", f"{batch:,}", exceeds, last, f"{duration(best['run'])} on {best['devices']:,}", shares]
            )
    header = [
        "",
        "batch",
        "all-reduce exceeds compute from",
        "a doubling gains half again up to",
        "shortest run",
        "its step",
    ]
    return table(header, rows)


def scaling_balance():
    rows = [
        [TASKS[row["task"]].title, row["ranks"], *(f"{100 * (row[cut] - 1):.1f} %" for cut in ("counts", "tokens"))]
        for row in scaling("balance")
    ]
    return table(["task", "processes", "most tokens over mean, split by examples", "split by tokens"], rows)


def scaling_sweep(hardware):
    rows = [
        [
            f"{row['devices']:,}",
            *(duration(row[name]) for name in ("submitted", "longest_first", "bound_single")),
            f"{row['longest_first'] / row['bound_single']:.3f}",
            duration(row["shared"]),
            row["widest"],
            duration(row["bound"]),
            f"{row['shared'] / row['bound']:.3f}",
        ]
        for row in scaling("sweep", hardware=hardware)
    ]
    one = ["in submission order", "longest first", "bound", "over it"]
    return table(["devices", *one, "longest first, shared runs", "most devices of a run", "bound", "over it"], rows)


@contextlib.contextmanager
def svg(name, size):
    """Yield a figure, and a function that returns its SVG after the block. Equal figures give equal texts."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    written = io.StringIO()
    style = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with mpl.rc_context(mpl.rcParamsDefault | style):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, lambda: re.sub(r" +$", "", written.getvalue(), flags=re.MULTILINE)
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def plot_sweep():
    """Return both sweeps against the number of devices, as SVG."""
    from matplotlib.ticker import LogLocator

    lines = {  # column -> label, style
        "submitted": ("a device each, as submitted", {"color": "#d55e00", "marker": "o"}),
        "longest_first": ("a device each, longest first", {"color": "#0072b2", "marker": "o"}),
        "shared": ("long runs shared, longest first", {"color": "#009e73", "marker": "o"}),
        "bound": ("no schedule ends before", {"color": "#444444", "linestyle": "--"}),
    }
    with svg("scaling", (8, 3.2)) as (figure, text):
        titles = {"a100": "A100s: computed from assumptions", "cpu": "CPU machines: from measured steps"}
        for axes, (hardware, title) in zip(figure.subplots(1, 2), titles.items()):
            rows = scaling("sweep", hardware=hardware)
            for column, (label, look) in lines.items():
                axes.plot(
                    [row["devices"] for row in rows], [row[column] / 3600 for row in rows], label=label, markersize=3, **look
                )
            axes.set(title=title, xlabel="devices", ylabel="hours until the last run ends", xscale="log", yscale="log")
            axes.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"], minor=False)
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.grid(alpha=0.2)
        figure.axes[0].legend(frameon=False)
    return text()


def growth(against):
    """Return the newest point at each value of what grows."""
    key = "examples" if against == "rows" else against
    points = {(row[key], row.get("pass", "")): row for row in read("growth") if row["against"] == against}
    return [points[at] for at in sorted(points)]


def growth_of_training(against):
    rows = [
        [
            row[against],
            f"{row['tokens']:,}",
            f"{1000 * row['step_seconds']:,.0f}",
            f"{row['batch'] / row['step_seconds']:.1f}",
            f"{row['tokens'] / row['step_seconds']:,.0f}",
            row["steps"],
            row["device"],
        ]
        for row in growth(against)
    ]
    named = {"length": "tokens of each example", "batch": "examples in a step", "width": "hidden size"}
    return table([named[against], "tokens in a step", "step (ms)", "examples/s", "tokens/s", "steps", "device"], rows)


def growth_of_rows():
    rows = [
        [
            f"{row['examples']:,}",
            row["pass"],
            f"{row['read_seconds']:.2f}",
            f"{row['tokenize_seconds']:.2f}",
            f"{row['plan_seconds']:.2f}",
            f"{1e6 * row['total_seconds'] / row['examples']:.1f}",
            f"{row['peak_memory_mib']:.0f}",
        ]
        for row in growth("rows")
    ]
    return table(["pairs", "pass", "read (s)", "tokenize (s)", "plan (s)", "total, µs a pair", "peak MiB"], rows)


def plot_growth():
    """Return plots of speed against length, batch size and width, and of seconds and memory against rows, as SVG."""
    axes_of = {"length": "tokens of each example", "batch": "examples in a step", "width": "hidden size"}
    with svg("growth", (9, 5.2)) as (figure, text):
        (length, batch, width), (seconds, memory, empty) = figure.subplots(2, 3)
        empty.axis("off")
        for axes, (against, label) in zip((length, batch, width), axes_of.items()):
            rows = growth(against)
            per_second = [row["tokens"] / row["step_seconds"] for row in rows]
            axes.plot([row[against] for row in rows], per_second, color="#0072b2", marker="o", markersize=3)
            axes.set(xlabel=label, ylabel="tokens/s in training", xscale="log", ylim=(0, None))
            axes.set_xticks([row[against] for row in rows], [str(row[against]) for row in rows], minor=False)
        for state, color in (("cold", "#d55e00"), ("warm", "#009e73")):
            rows = [row for row in growth("rows") if row["pass"] == state]
            pairs = [row["examples"] for row in rows]
            look = {"color": color, "marker": "o", "markersize": 3, "label": f"token cache {state}"}
            seconds.plot(pairs, [row["total_seconds"] for row in rows], **look)
            memory.plot(pairs, [row["peak_memory_mib"] for row in rows], **look)
        seconds.set(xlabel="pairs", ylabel="seconds until steps can begin", xscale="log", yscale="log")
        memory.set(xlabel="pairs", ylabel="peak memory (MiB)", xscale="log", ylim=(0, None))
        seconds.legend(frameon=False)
        for axes in figure.axes:
            axes.minorticks_off()
            axes.grid(alpha=0.2)
    return text()


WHOLE_FILES = {"docs/scaling-sweep.svg": plot_sweep, "docs/growth.svg": plot_growth, "docs/reference.md": reference}
FIGURES = {
    "accuracy of the recipe classic": lambda: accuracy("classic"),
    "accuracy of the recipe small": lambda: accuracy("small"),
    "learning rate": learning_rate,
    "speed": speed,
    "speed of prediction": lambda: speed("predict"),
    "share": share,
    "kerashub": kerashub,
    "gpu": gpu,
    "gpu beside Trainer": lambda: gpu(beside_trainer=True),
    "speed on MRPC": lambda: speed(row_of="mrpc"),
    "large set": large_set,
    "own data": own_data,
    "seed-pytorch": lambda: preset("seed-pytorch"),
    "seed-tensorflow": lambda: preset("seed-tensorflow"),
    "growth: length": lambda: growth_of_training("length"),
    "growth: batch": lambda: growth_of_training("batch"),
    "growth: width": lambda: growth_of_training("width"),
    "growth: rows": growth_of_rows,
    "tricks": tricks,
    "kills": kills,
    "fuzz": fuzz,
    "scaling: assumptions": scaling_assumptions,
    "scaling: lengths": scaling_lengths,
    "scaling: measured": scaling_measured,
    "scaling: published": scaling_published,
    "scaling: a100-fp32, batch 32": lambda: scaling_tasks("a100-fp32", 32),
    "scaling: a100-bf16, batch 32": lambda: scaling_tasks("a100-bf16", 32),
    "scaling: a100-bf16, batch 1024": lambda: scaling_tasks("a100-bf16", 1024),
    "scaling: cpu-fp32, batch 32": lambda: scaling_tasks("cpu-fp32", 32),
    "scaling: cpu-fp32, batch 1024": lambda: scaling_tasks("cpu-fp32", 1024),
    "scaling: floor, a100-bf16": lambda: scaling_floor("a100-bf16"),
    "scaling: floor, ethernet-bf16": lambda: scaling_floor("ethernet-bf16"),
    "scaling: floor, cpu-fp32": lambda: scaling_floor("cpu-fp32"),
    "scaling: limits": scaling_limits,
    "scaling: balance": scaling_balance,
    "scaling: scores": shared_scores,
    "scaling: sweep, a100": lambda: scaling_sweep("a100"),
    "scaling: sweep, cpu": lambda: scaling_sweep("cpu"),
}


def rendered(text):
    def block(match):
        return f"<!-- figures: {match[1]} -->\n{FIGURES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (.*?) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main():
    stale = []
    for name in (*DOCUMENTS, *WHOLE_FILES):
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        new = WHOLE_FILES[name]() if name in WHOLE_FILES else rendered(text)
        if new != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: figures differ from benchmarks/results; run `make docs`.")


main()
