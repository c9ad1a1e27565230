"""Measure the speed of isinglass and of other tools, the sides alternating in one sitting on the same examples.

All sides train on the same 640 examples (448 of WNLI's 635), a fixed random sample of the task's training set, with the same
weights, batch 32 and all dropout active. Each measurement is a process of its own, timed by the tool itself: the steps with
their input, without imports, tokenization and evaluation. Each measurement appends one line to
`benchmarks/results/throughput.jsonl`. Compare within one sitting only. A side runs in `--precision`, or in the precision
that it names (`isinglass@bf16`).

PyTorch sides train one epoch:
    isinglass           `isinglass train`
    before              the same with the source tree that --before names: an earlier version
    dynamic             `transformers`' Trainer at its best: padded to the batch's longest example, grouped by length
    padded              Trainer as the classic example scripts run it: padded to 128
TensorFlow sides train two epochs, of which the second is timed, without tracing and compiling:
    tensorflow, tensorflow-xla
    kerashub, kerashub-xla      KerasHub's `fit`, padded to 128
Sides that predict 2,000 examples:
    isinglass-predict   `isinglass evaluate`
    before-predict      the same with the source tree that --before names
    dynamic-predict     `Trainer.predict` at its best: batches of 64, sorted by length beforehand, after a warm-up

    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python --rounds 5 \\
        --sides isinglass dynamic padded isinglass@bf16 dynamic@bf16 padded@bf16
    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python --rounds 5 \\
        --sides isinglass-predict dynamic-predict isinglass-predict@bf16 dynamic-predict@bf16
    python benchmarks/throughput.py --data-dir GLUE_DIR --peer-python PEER_ENV/bin/python \\
        --sides tensorflow tensorflow-xla kerashub kerashub-xla
    python benchmarks/throughput.py --data-dir GLUE_DIR --before ../before/src --rounds 3 \\
        --sides isinglass before isinglass@bf16 before@bf16
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isinglass.tasks import get_task

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "throughput.jsonl"
EXAMPLES, BATCH = 640, 32
PREDICTED = 2000
SIDES_THAT_PREDICT = ("isinglass-predict", "before-predict")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--peer-python", help="of the environment that has the other tools")
    parser.add_argument("--before", type=Path, help="the `src` directory of an earlier version")
    parser.add_argument("--tasks", nargs="+", default=["mrpc"])
    parser.add_argument("--sides", nargs="+", default=["isinglass", "dynamic", "padded"])
    parser.add_argument("--precision", default="fp32", help="of the sides that name none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to append to")
    return parser.parse_args()


def write_sample(task, source: Path, target: Path) -> None:
    """Write EXAMPLES of the task's training rows, three quarters at most, and PREDICTED others as its dev set."""
    folder = target / task.folder
    folder.mkdir()
    content = (source / task.folder / task.train.file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = content.removesuffix(b"\n").split(b"\n")
    header, rows = (lines[:1], lines[1:]) if task.train.has_header else ([], lines)
    random.Random(0).shuffle(rows)
    count = min(EXAMPLES, len(rows) * 3 // 4 // BATCH * BATCH)
    for split, chosen in ((task.train, rows[:count]), (task.dev[0], rows[count:][:PREDICTED])):
        (folder / split.file).write_bytes(b"\n".join(header + chosen) + b"\n")


def command_of(side: str, task: str, data_dir: Path, peer_python: str) -> list[str]:
    """Return the command that runs a side."""
    isinglass = [sys.executable, "-m", "isinglass"]
    train = [*isinglass, "train", task, "--json", "--output-dir", f"{tempfile.mkdtemp()}/run"]
    evaluate = [*isinglass, "evaluate", str(data_dir / f"run-{task}"), "--json"]
    trainer = [peer_python, str(HERE / "peer_trainer.py"), "--task", task, "--epochs", "1", "--padding"]
    kerashub = [peer_python, str(HERE / "peer_kerashub.py"), "--task", task]
    commands = {
        "isinglass": [*train, "--epochs", "1"],
        "before": [*train, "--epochs", "1"],
        "dynamic": [*trainer, "dynamic", "--no-evaluation"],
        "padded": [*trainer, "max_length", "--no-evaluation"],
        "isinglass-predict": evaluate,
        "before-predict": evaluate,
        "dynamic-predict": [*trainer, "dynamic", "--predict"],
        "tensorflow": [*train, "--epochs", "2", "--backend", "tensorflow"],
        "tensorflow-xla": [*train, "--epochs", "2", "--backend", "tensorflow", "--xla"],
        "kerashub": kerashub,
        "kerashub-xla": [*kerashub, "--xla"],
    }
    return [*commands[side], "--data-dir", str(data_dir)]


def run(command: list[str], source: Path | None = None) -> dict:
    """Return the JSON object in the last line that a command prints; `source` is the `src` directory to import from."""
    environment = os.environ if source is None else {**os.environ, "PYTHONPATH": str(source.resolve())}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if finished.returncode:
        sys.exit(f"{' '.join(command)}\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def measure(side: str, precision: str, task: str, data_dir: Path, options) -> dict:
    """Run a side once, and return what it reports with its `examples_per_second`."""
    command = command_of(side, task, data_dir, options.peer_python)
    report = run([*command, "--precision", precision], options.before if side.startswith("before") else None)
    if side.startswith("tensorflow"):
        report["examples_per_second"] = report["examples"]["train"] / report["epoch_seconds"][1]
    if side in SIDES_THAT_PREDICT:
        report["examples_per_second"] = report["examples"]["dev"] / report["evaluation_seconds"]
    return report


def main() -> None:
    options = parse_options()
    sitting = time.strftime("%Y-%m-%dT%H:%M:%S")
    sides = [(side, precision or options.precision) for side, _, precision in (s.partition("@") for s in options.sides)]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for task in options.tasks:
            write_sample(get_task(task), options.data_dir, directory)
            if any(side in SIDES_THAT_PREDICT for side, _ in sides):
                train = command_of("isinglass", task, directory, "")
                # by the earlier version, if any: both versions can read its runs
                run([*train, "--overwrite", "--output-dir", str(directory / f"run-{task}")], options.before)
        for task, number, (side, precision) in itertools.product(options.tasks, range(options.rounds), sides):
            report = measure(side, precision, task, directory, options)
            row = {"sitting": sitting, "round": number, "task": task, "side": side, "precision": precision}
            row |= {key: report.get(key) for key in ("examples_per_second", "peak_memory_bytes", "device")}
            with open(options.results, "a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
