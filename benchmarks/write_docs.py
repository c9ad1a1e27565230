"""Write the figures of README.md and docs/ from the result files in `benchmarks/results`; `--check` only compares.

A generated block stands between `<!-- figures: NAME -->` and `<!-- end -->`; NAME is a function of FIGURES.

    python benchmarks/write_docs.py [--check]
"""

import dataclasses
import inspect
import json
import pathlib
import re
import statistics
import sys
from collections import defaultdict

from scipy.stats import ttest_ind

from isinglass.config import RECIPES, TrainConfig, resolve
from isinglass.report.tables import pytorch_table, tensorflow_table
from isinglass.results import read_records
from isinglass.tasks import TASKS
from isinglass.training.timing import CLOCK

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SOAK = ROOT / "soak" / "results"
DOCUMENTS = ("docs/reliability.md", "README.md", "docs/benchmarks.md", "docs/experiments.md", "docs/guide.md")
TRAINER = "transformers Trainer"
SIDES = {
    "isinglass": "isinglass, PyTorch",
    "dynamic": "Trainer at its best",
    "padded": "Trainer, padded to 128",
    "tensorflow": "isinglass, TensorFlow",
    "tensorflow-xla": "isinglass, TensorFlow with XLA",
    "kerashub": "KerasHub",
    "kerashub-xla": "KerasHub with XLA",
}
OWN = ("isinglass", "tensorflow", "tensorflow-xla")


def read(name, directory=RESULTS):
    path = directory / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def mean_and_spread(values):
    """`mean ± standard deviation (n)` in hundredths."""
    if not values:
        return "not run"
    points = [100 * value for value in values]
    spread = f" ± {statistics.stdev(points):.2f}" if len(points) > 1 else ""
    return f"{statistics.mean(points):.2f}{spread} ({len(points)})"


def accuracy(recipe):
    """Dev scores of both tools over seeds, one row for each metric and precision."""
    scores = defaultdict(dict)  # (task, metric, precision) -> tool -> values
    majority = {}
    for row in read("accuracy"):
        if row["recipe"] == recipe:
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
                rows.append(
                    [
                        task.title,
                        metric,
                        precision,
                        "-" if constant is None else f"{100 * constant:.2f}",
                        mean_and_spread(ours),
                        mean_and_spread(theirs),
                        difference,
                        chance,
                    ]
                )
    header = ["task", "metric", "precision", "majority", "isinglass", "Trainer", "difference", "p"]
    return table(header, rows)


def learning_rate():
    """Scores on the held-out fifth of train, by learning rate."""
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
    """(sitting, task, precision) -> side -> examples/s of each round, and its rows."""
    groups = defaultdict(lambda: defaultdict(list))
    for row in read("throughput"):
        groups[row["sitting"], row["task"], row["precision"]][row["side"]].append(row)
    return groups


def speed(row_of=None):
    """Medians of examples per second within each sitting, and how many times faster isinglass is."""
    rows = []
    for (sitting, task, precision), sides in sittings().items():
        if row_of is not None and row_of != task:
            continue
        medians = {side: statistics.median(row["examples_per_second"] for row in found) for side, found in sides.items()}
        peak = {side: max(row["peak_memory_bytes"] for row in found) / 2**20 for side, found in sides.items()}
        device = next(row["device"] for found in sides.values() for row in found if row["device"])
        own = max((side for side in medians if side in OWN), key=medians.get)  # the faster of isinglass' own sides
        train = TASKS[task].train.rows * resolve(task=task).epochs
        for side in SIDES:
            if side in medians:
                values = [row["examples_per_second"] for row in sides[side]]
                minutes, seconds = divmod(round(train / medians[side]), 60)
                rows.append(
                    [
                        TASKS[task].title,
                        precision,
                        SIDES[side],
                        f"{medians[side]:.1f} ({min(values):.1f} to {max(values):.1f}, {len(values)} rounds)",
                        "-" if side in OWN else f"{medians[own] / medians[side]:.2f}",
                        f"{minutes}:{seconds:02}",
                        f"{peak[side]:.0f}",
                        f"{device}, {sitting}",
                    ]
                )
    header = ["task", "precision", "tool", "examples/s", "isinglass is faster by", "recipe takes", "peak MiB", "sitting"]
    return table(header, rows)


def large_set():
    """Seconds of each part and peak memory, cold and warm; the newest pass of each."""
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
    """Seconds and peak memory from a user's file to data that training could start on; the newest line of each format."""
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
    """The table of a bench preset, from the records that `isinglass bench` left in `results/NAME`."""
    if not (RESULTS / name / "results.jsonl").exists():
        return "Not run yet."
    records = read_records(RESULTS / name)
    if name == "seed-pytorch":
        shown = pytorch_table(records.results, records.failed, clock=CLOCK, with_published=True)
    else:
        shown = tensorflow_table(records.results, records.failed, with_published=True)
    return shown.to_markdown().strip()


def tricks():
    """Each trick's time without and with it, medians of the newest measurement."""
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
    """Runs killed and resumed, and how they ended: the newest line of each kind."""
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
    """Hostile inputs by reader: the newest line of each target."""
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


def settings():
    """Every setting of a run, its default and what it means, from TrainConfig's own docstring."""
    text = re.sub(r"\n {8,}", " ", inspect.getdoc(TrainConfig).split("Attributes:")[1])
    meaning = {}
    for line in text.splitlines():
        names, colon, words = line.strip().partition(": ")
        if colon:
            meaning |= {name.strip(): words for name in names.split(",")}
    rows = [[f"`{f.name}`", f"`{f.default}`", meaning[f.name]] for f in dataclasses.fields(TrainConfig)]
    changed = "; ".join(
        f"`{name}`: {', '.join(f'{k} {v:g}' for k, v in values.items())}" for name, values in RECIPES.items()
    )
    return table(["setting", "default", "meaning"], rows) + f"\n\nRecipes change: {changed}. WNLI trains 5 epochs in both."


FIGURES = {
    "accuracy of the recipe classic": lambda: accuracy("classic"),
    "accuracy of the recipe small": lambda: accuracy("small"),
    "learning rate": learning_rate,
    "speed": speed,
    "speed on MRPC": lambda: speed("mrpc"),
    "large set": large_set,
    "own data": own_data,
    "seed-pytorch": lambda: preset("seed-pytorch"),
    "seed-tensorflow": lambda: preset("seed-tensorflow"),
    "tricks": tricks,
    "kills": kills,
    "fuzz": fuzz,
    "settings": settings,
}


def rendered(text):
    def block(match):
        return f"<!-- figures: {match[1]} -->\n{FIGURES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (.*?) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main():
    stale = []
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = rendered(text)
        if new != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: figures differ from benchmarks/results; run `make docs`.")


main()
