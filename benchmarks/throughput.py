"""Training speed of isinglass and of its peers, the sides alternating in one sitting on the same examples.

All sides train on the same 640 examples, drawn from the task's training set by a fixed seed, with the same weights,
batch 32 and every dropout on; each measurement is a process of its own, and each tool's own clock is read (it covers the
steps with their input, not imports, tokenizing or evaluation). Every measurement is one line appended to
`benchmarks/results/throughput.jsonl`; compare within a sitting only.

PyTorch sides train one epoch: `isinglass`; `dynamic`, `transformers`' Trainer at its best (padded to the batch's longest,
grouped by length); `padded`, the Trainer as the classic example scripts run it (padded to 128). TensorFlow sides train
two and the second counts, so that tracing and compiling do not: `tensorflow`, `tensorflow-xla`; `kerashub`,
`kerashub-xla`, KerasHub's `fit` (padded to 128).

    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python --tasks mrpc --rounds 5
    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python \\
        --sides tensorflow tensorflow-xla kerashub kerashub-xla
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from isinglass.tasks import get_task

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "throughput.jsonl"
EXAMPLES = 640

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
parser.add_argument("--peer-python", required=True)
parser.add_argument("--tasks", nargs="+", default=["mrpc"])
parser.add_argument("--sides", nargs="+", default=["isinglass", "dynamic", "padded"])
parser.add_argument("--precision", default="fp32", help="of all sides")
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()


def sample(task, directory):
    """The task with EXAMPLES of its training rows and 64 of its dev rows."""
    folder = directory / task.folder
    folder.mkdir()
    for split, count in ((task.train, EXAMPLES), (task.dev[0], 64)):
        content = (args.data_dir / task.folder / split.file).read_bytes().removeprefix(b"\xef\xbb\xbf")
        lines = content.removesuffix(b"\n").split(b"\n")
        header, rows = (lines[:1], lines[1:]) if split.has_header else ([], lines)
        rows = random.Random(0).sample(rows, min(count, len(rows)))
        (folder / split.file).write_bytes(b"\n".join(header + rows) + b"\n")


def command_of(side, task, data_dir):
    ours = [sys.executable, "-m", "isinglass", "train", task, "--json", "--output-dir", f"{tempfile.mkdtemp()}/run"]
    trainer = [args.peer_python, str(HERE / "peer_trainer.py"), "--task", task, "--epochs", "1", "--padding"]
    kerashub = [args.peer_python, str(HERE / "peer_kerashub.py"), "--task", task]
    commands = {
        "isinglass": [*ours, "--epochs", "1"],
        "dynamic": [*trainer, "dynamic"],
        "padded": [*trainer, "max_length"],
        "tensorflow": [*ours, "--epochs", "2", "--backend", "tensorflow"],
        "tensorflow-xla": [*ours, "--epochs", "2", "--backend", "tensorflow", "--xla"],
        "kerashub": kerashub,
        "kerashub-xla": [*kerashub, "--xla"],
    }
    return [*commands[side], "--data-dir", str(data_dir), "--precision", args.precision]


def measure(side, task, data_dir):
    command = command_of(side, task, data_dir)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    found = json.loads(finished.stdout.splitlines()[-1])
    if side.startswith("tensorflow"):
        found["examples_per_second"] = EXAMPLES / found["epoch_seconds"][1]
    return found


sitting = time.strftime("%Y-%m-%dT%H:%M:%S")
with tempfile.TemporaryDirectory() as name:
    for task in map(get_task, args.tasks):
        sample(task, pathlib.Path(name))
    for task in args.tasks:
        device = None
        for number in range(args.rounds):
            for side in args.sides:
                found = measure(side, task, name)
                device = found.get("device", device)
                row = {"sitting": sitting, "round": number, "task": task, "side": side, "precision": args.precision}
                row |= {k: found[k] for k in ("examples_per_second", "peak_memory_bytes")} | {"device": device}
                with open(RESULTS, "a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
