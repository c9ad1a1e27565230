"""Speed of isinglass and of its peers, the sides alternating in one sitting on the same examples.

All sides train on the same 640 examples (448 of WNLI's 635), drawn from the task's training set by a fixed seed, with the
same weights, batch 32 and every dropout on; each measurement is a process of its own, and each tool's own clock is read
(it covers the steps with their input, not imports, tokenizing or evaluation). Every measurement is one line appended to
`benchmarks/results/throughput.jsonl`; compare within a sitting only. A side runs in `--precision` or in its own,
`isinglass@bf16`.

PyTorch sides train one epoch: `isinglass`; `dynamic`, `transformers`' Trainer at its best (padded to the batch's longest,
grouped by length); `padded`, the Trainer as the classic example scripts run it (padded to 128). TensorFlow sides train
two and the second counts, so that tracing and compiling do not: `tensorflow`, `tensorflow-xla`; `kerashub`,
`kerashub-xla`, KerasHub's `fit` (padded to 128). Two sides predict instead, 2,000 examples: `isinglass-predict`, what
`isinglass evaluate` takes; `dynamic-predict`, `Trainer.predict` at its best (batches of 64, sorted by length beforehand,
warmed up).

    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python --rounds 5 \\
        --sides isinglass dynamic padded isinglass@bf16 dynamic@bf16 padded@bf16
    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python --rounds 5 \\
        --sides isinglass-predict dynamic-predict isinglass-predict@bf16 dynamic-predict@bf16
    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python \\
        --sides tensorflow tensorflow-xla kerashub kerashub-xla
"""

import argparse
import itertools
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
EXAMPLES, BATCH = 640, 32
PREDICTED = 2000

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=pathlib.Path, required=True)
parser.add_argument("--peer-python", required=True)
parser.add_argument("--tasks", nargs="+", default=["mrpc"])
parser.add_argument("--sides", nargs="+", default=["isinglass", "dynamic", "padded"])
parser.add_argument("--precision", default="fp32", help="of the sides that name none")
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()


def sample(task, directory):
    """The task with EXAMPLES of its training rows, three quarters at most, and PREDICTED others to score."""
    folder = directory / task.folder
    folder.mkdir()
    content = (args.data_dir / task.folder / task.train.file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = content.removesuffix(b"\n").split(b"\n")
    header, rows = (lines[:1], lines[1:]) if task.train.has_header else ([], lines)
    random.Random(0).shuffle(rows)
    count = min(EXAMPLES, len(rows) * 3 // 4 // BATCH * BATCH)
    for split, chosen in ((task.train, rows[:count]), (task.dev[0], rows[count:][:PREDICTED])):
        (folder / split.file).write_bytes(b"\n".join(header + chosen) + b"\n")


def command_of(side, task, data_dir):
    isinglass = [sys.executable, "-m", "isinglass"]
    ours = [*isinglass, "train", task, "--json", "--output-dir", f"{tempfile.mkdtemp()}/run"]
    trainer = [args.peer_python, str(HERE / "peer_trainer.py"), "--task", task, "--epochs", "1", "--padding"]
    kerashub = [args.peer_python, str(HERE / "peer_kerashub.py"), "--task", task]
    commands = {
        "isinglass": [*ours, "--epochs", "1"],
        "dynamic": [*trainer, "dynamic", "--no-evaluation"],
        "padded": [*trainer, "max_length", "--no-evaluation"],
        "isinglass-predict": [*isinglass, "evaluate", str(data_dir / f"run-{task}"), "--json"],
        "dynamic-predict": [*trainer, "dynamic", "--predict"],
        "tensorflow": [*ours, "--epochs", "2", "--backend", "tensorflow"],
        "tensorflow-xla": [*ours, "--epochs", "2", "--backend", "tensorflow", "--xla"],
        "kerashub": kerashub,
        "kerashub-xla": [*kerashub, "--xla"],
    }
    return [*commands[side], "--data-dir", str(data_dir)]


def run(command):
    """The object in the last line of what the command prints."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def measure(side, precision, task, data_dir):
    found = run([*command_of(side, task, data_dir), "--precision", precision])
    if side.startswith("tensorflow"):
        found["examples_per_second"] = found["examples"]["train"] / found["epoch_seconds"][1]
    if side == "isinglass-predict":
        found["examples_per_second"] = found["examples"]["dev"] / found["evaluation_seconds"]
    return found


sitting = time.strftime("%Y-%m-%dT%H:%M:%S")
with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    for task in args.tasks:
        sample(get_task(task), directory)
        if "isinglass-predict" in {side.partition("@")[0] for side in args.sides}:
            train = [
                *command_of("isinglass", task, directory),
                "--overwrite",
                "--output-dir",
                str(directory / f"run-{task}"),
            ]
            run(train)
    for task, number, wanted in itertools.product(args.tasks, range(args.rounds), args.sides):
        side, _, precision = wanted.partition("@")
        precision = precision or args.precision
        found = measure(side, precision, task, directory)
        row = {"sitting": sitting, "round": number, "task": task, "side": side, "precision": precision}
        row |= {k: found.get(k) for k in ("examples_per_second", "peak_memory_bytes", "device")}
        with open(RESULTS, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
