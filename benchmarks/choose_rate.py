"""Choose the recipe `small`'s learning rate on TRAIN alone: a fifth of each training set is held out and scored.

The dev sets are not used. Each run appends one line to `benchmarks/results/choose_rate.jsonl`. Runs that the file already
has are skipped.

    python benchmarks/choose_rate.py --data-dir GLUE_DIR
"""

import argparse
import itertools
import json
import pathlib
import random
import subprocess
import sys
import tempfile

from isinglass.tasks import get_task

RESULTS = pathlib.Path(__file__).parent / "results" / "choose_rate.jsonl"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
parser.add_argument("--tasks", nargs="+", default=["rte", "mrpc"])
parser.add_argument("--rates", nargs="+", type=float, default=[2e-5, 5e-5, 1e-4, 2e-4])
parser.add_argument("--seeds", nargs="+", type=int, default=[1])
parser.add_argument("--precision", default="bf16")
args = parser.parse_args()


def hold_out(task, directory):
    """Write the task with a fifth of its training rows, drawn by a fixed seed, as the dev set."""
    folder = directory / task.folder
    folder.mkdir()
    lines = (args.data_dir / task.folder / task.train.file).read_bytes().removesuffix(b"\n").split(b"\n")
    header, rows = lines[:1], lines[1:]
    random.Random(0).shuffle(rows)
    cut = len(rows) // 5
    for file, part in ((task.train.file, rows[cut:]), (task.dev[0].file, rows[:cut])):
        (folder / file).write_bytes(b"\n".join(header + part) + b"\n")


def is_done(task, seed, rate):
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    wanted = (task, args.precision, seed, rate)
    return any(tuple(row[k] for k in ("task", "precision", "seed", "learning_rate")) == wanted for row in rows)


with tempfile.TemporaryDirectory() as name:
    held_out = pathlib.Path(name)
    for task in map(get_task, args.tasks):
        hold_out(task, held_out)
    for task, seed, rate in itertools.product(args.tasks, args.seeds, args.rates):
        if is_done(task, seed, rate):
            continue
        command = [sys.executable, "-m", "isinglass", "train", task, "--json", "--data-dir", str(held_out)]
        command += ["--precision", args.precision, "--seed", str(seed), "--learning-rate", str(rate)]
        command += ["--output-dir", f"{name}/{task}-{seed}-{rate}"]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        row = {k: found[k] for k in ("task", "precision", "seed", "metrics", "majority", "examples")}
        row |= {"learning_rate": rate, "epochs": found["config"]["epochs"]}
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
