"""Measure dev scores of isinglass and of `transformers`' Trainer: same weights, same recipe, one process for each run.

Each finished run appends one line to `benchmarks/results/accuracy.jsonl`. Runs that the file already has are skipped.

    python benchmarks/accuracy.py --data-dir GLUE_DIR --tasks rte mrpc --recipe classic --precisions fp32 bf16 --seeds 1 2 3
    python benchmarks/accuracy.py --data-dir GLUE_DIR ... --trainer-python PEER_ENV/bin/python      # the peer
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

from isinglass.config import resolve

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "accuracy.jsonl"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", required=True)
parser.add_argument("--tasks", nargs="+", default=["wnli", "rte", "mrpc", "stsb", "cola"])
parser.add_argument("--recipe", default="classic")
parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
parser.add_argument("--trainer-python", help="run the peer with this interpreter instead of isinglass")
parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
args = parser.parse_args()


def keys_of(row):
    return tuple(row.get(k) for k in ("tool", "task", "recipe", "precision", "seed", "learning_rate", "shuffled"))


def run(task, precision, seed):
    settings = resolve(task=task, recipe=args.recipe)
    row = {
        "tool": "transformers Trainer" if args.trainer_python else "isinglass",
        "task": task,
        "recipe": args.recipe,
        "precision": precision,
        "seed": seed,
        "learning_rate": settings.learning_rate,
        **({"shuffled": True} if args.trainer_python else {}),  # rows without this key grouped examples by length
        "epochs": settings.epochs,
    }
    done = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    if keys_of(row) in {keys_of(other) for other in done}:
        return
    if args.trainer_python:
        command = [args.trainer_python, str(HERE / "peer_trainer.py"), "--padding", "dynamic", "--shuffled"]
        command += ["--data-dir", args.data_dir]
        command += ["--task", task, "--learning-rate", str(settings.learning_rate), "--epochs", str(settings.epochs)]
    else:
        command = [sys.executable, "-m", "isinglass", "train", task, "--json", "--data-dir", args.data_dir]
        command += ["--recipe", args.recipe, "--output-dir", f"{tempfile.mkdtemp()}/run"]
    command += ["--precision", precision, "--seed", str(seed)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    found = json.loads(finished.stdout.splitlines()[-1])
    row |= {k: found[k] for k in ("metrics", "collapsed")}
    row |= {k: found[k] for k in ("majority", "device", "versions") if k in found}
    args.results.parent.mkdir(exist_ok=True)
    with open(args.results, "a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row)[:200], flush=True)


for seed, task, precision in itertools.product(args.seeds, args.tasks, args.precisions):
    run(task, precision, seed)
