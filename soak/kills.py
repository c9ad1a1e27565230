"""Kill training runs at random moments until they finish, and compare each with one that was never stopped, bit by bit.

    python soak/kills.py [--kills 50] [--seed 1] [--kinds "torch fp32" ...]

The model is tiny and random, and the sentences are random words: this tests how runs are saved and resumed. Each kind of
run (framework and precision) is killed by SIGKILL at a random moment after its start or after a checkpoint, again and
again: in its first steps, in later epochs, while it writes a checkpoint, evaluates or writes its result. Each kind appends
one line to `soak/results/kills.jsonl`.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from isinglass.results import RunResult, installed_versions

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from isinglass.tasks import TASKS
from tests.tiny import save_tiny, write_glue

KINDS = {
    "torch fp32": (),
    "torch bf16": ("--precision", "bf16"),
    "tensorflow fp32": ("--backend", "tensorflow"),
    "tensorflow bf16": ("--backend", "tensorflow", "--precision", "bf16"),
}
COMPARED = ("model/model.safetensors", "steps.jsonl", "predictions-dev.tsv")


def command(data, model, output, options):
    flags = ("--data-dir", data, "--model", model, "--max-length", 40, "--batch-size", 16, "--epochs", 60)
    given = ("train", "mrpc", *flags, "--learning-rate", 1e-3, "--output-dir", output, *options)
    return [sys.executable, "-m", "isinglass", *map(str, given)]


def checkpoints(output):
    return sorted(path.name for path in (output / "checkpoints").glob("step-*"))


def killed_run(arguments, output, kills, rng):
    """Start and kill a run `kills` times, then let it end. Return the step of the last checkpoint at each kill."""
    steps = []
    while len(steps) < kills:
        before = checkpoints(output)
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if rng.random() < 0.8:  # else it is killed while it starts
            while process.poll() is None and checkpoints(output) == before:
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        if process.wait() == 0:
            break
        steps.append(int((checkpoints(output) or ["step-0."])[-1].split("-")[1].split(".")[0]))
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="number of kills of all kinds of run together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    differ = 0
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        data = write_glue(TASKS["mrpc"], place / "glue", rows=100)
        model = save_tiny(place / "model")
        for number, (kind, options) in enumerate((kind, KINDS[kind]) for kind in chosen.kinds):
            kills = chosen.kills // len(chosen.kinds) + (number < chosen.kills % len(chosen.kinds))
            whole, output = place / f"whole {number}", place / f"killed {number}"
            subprocess.run(
                command(data, model, whole, options), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            often = (*options, "--checkpoint-every", "3steps", "--resume")
            started = time.monotonic()
            steps = killed_run(command(data, model, output, often), output, kills, rng)
            different = [name for name in COMPARED if (whole / name).read_bytes() != (output / name).read_bytes()]
            same_scores = RunResult.read(whole / "result.json").metrics == RunResult.read(output / "result.json").metrics
            differ += bool(different) or not same_scores
            row = {
                "kind": kind,
                "kills": len(steps),
                "last_checkpoint_at_kill": steps,
                "steps_of_run": 60 * 7,
                "differing_files": different,
                "same_scores": same_scores,
                "seed": chosen.seed,
                "seconds": round(time.monotonic() - started, 1),
                "versions": installed_versions(),
            }
            print(json.dumps(row), flush=True)
            with open(ROOT / "soak" / "results" / "kills.jsonl", "a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
    sys.exit(1 if differ else 0)


main()
