"""Write the files of this folder with the version at commit c92ef4c, the last one without `schema_version` in its results.

    git worktree add ../before c92ef4c
    PYTHONPATH=../before/src:. python tests/saved_before/make.py

All runs use relative paths and one small random BERT, so that a test can copy the folder and work in the copy.
The checksums in `sums.json` are those of one CPU.
A test compares them only where today's version gives the same checksums for a new run.
"""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from isinglass.tasks import TASKS
from tests.tiny import save_tiny, sentence, write_glue

HERE = Path(__file__).parent
ISINGLASS = (sys.executable, "-m", "isinglass")
SHORT = ("--model", "model", "--max-length", "30", "--batch-size", "8", "--epochs", "2", "--learning-rate", "1e-2")
GLUE = ("--data-dir", "glue")
OWN = ("--train-file", "texts.csv", "--validation-fraction", "0.25", "--text-column", "text", "--test-file", "test.csv")
UNFINISHED = {"unfinished-torch": (), "unfinished-tensorflow": ("--backend", "tensorflow")}
KEEP_BEST = ("--epochs", "6", "--keep-best", "--keep-checkpoints", "1", "--checkpoint-every", "2steps")


def main() -> None:
    os.chdir(HERE)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ISINGLASS_CACHE": "/tmp/saved-before-cache"}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    for name in ("model", "glue", "runs", "bench", "bench-own", "expected"):
        shutil.rmtree(name, ignore_errors=True)
    save_tiny(Path("model"), hidden_size=8, num_attention_heads=2, intermediate_size=12, max_position_embeddings=32)
    for task in ("mrpc", "stsb", "rte"):
        write_glue(TASKS[task], Path("glue"), rows={"train": 48, "dev": 20, "test": 12})
    write_own_data()
    run("train", "mrpc", *GLUE, *SHORT, "--output-dir", "runs/glue")
    run("train", "stsb", *GLUE, *SHORT, "--output-dir", "runs/regression")
    run("train", "own", *OWN, *SHORT, "--label-column", "label", "--class-weights", "balanced", "--output-dir", "runs/own")
    topics = ("--label-column", "topics", "--label-delimiter", "|")
    run("train", "topics", *OWN, *SHORT, *topics, "--output-dir", "runs/multilabel")
    sums = {}
    for name, backend in UNFINISHED.items():
        command = ("train", "mrpc", *GLUE, *SHORT, *KEEP_BEST, *backend, "--output-dir")
        run(*command, "runs/complete")
        weights = Path("runs/complete/model/model.safetensors")
        sums[name] = hashlib.sha256(weights.read_bytes()).hexdigest()
        shutil.rmtree("runs/complete")
        kill_after_step(20, *command, f"runs/{name}")
    Path("sums.json").write_text(json.dumps({"cpu": cpu(), "model.safetensors": sums}, indent=2) + "\n")
    write_benches()
    write_expected()
    for lock in Path().rglob("*.lock"):
        lock.unlink()


def run(*arguments: str) -> str:
    done = subprocess.run((*ISINGLASS, *arguments), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}")
    return done.stdout


def kill_after_step(step: int, *arguments: str) -> None:
    checkpoints = Path(arguments[-1]) / "checkpoints"
    with subprocess.Popen((*ISINGLASS, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not any(path.stem >= f"step-{step:09}" for path in checkpoints.glob("step-*.safetensors")):
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    for older in sorted(checkpoints.glob("step-*.safetensors"))[:-1]:
        older.unlink()


def write_own_data() -> None:
    rng = np.random.default_rng(0)
    for name, rows in (("texts.csv", 60), ("test.csv", 12)):
        lines = ["text,label,topics"]
        for _ in range(rows):
            text = sentence(rng, int(rng.integers(2, 12)))
            label = "short" if len(text.split()) < 6 else "long"
            topics = [word for word in ("cat", "rain", "the") if word in text.split()] or ["none"]
            lines.append(f"{text},{label},{'|'.join(topics)}")
        Path(name).write_text("\n".join(lines) + "\n")


def write_benches() -> None:
    rte = Path("glue/RTE/train.tsv")
    good = rte.read_text()
    rte.write_text(good.replace("\tentailment\n", "\tperhaps\n"))
    settings = [
        part for name in ("max_length=30", "batch_size=8", "epochs=2", "learning_rate=0.01") for part in ("--set", name)
    ]
    bench = ("bench", "--models", "model", "--seeds", "2", *settings)
    tasks = ("--tasks", "mrpc,stsb,rte", "--predict-test")
    subprocess.run((*ISINGLASS, *bench, *tasks, *GLUE, "--output", "bench"), check=False)
    rte.write_text(good)
    own = ("--train-file", "texts.csv", "--text-column", "text", "--label-column", "label")
    run(*bench, *own, "--validation-file", "test.csv", "--output", "bench-own")


def write_expected() -> None:
    expected = Path("expected")
    expected.mkdir()
    (expected / "pairs.txt").write_text("the cat sleeps\ta dog reads\nrain and snow\tthe river\n")
    (expected / "texts.txt").write_text("the cat sleeps\nrain and snow on the road\n")
    for name, texts in (("glue", "pairs"), ("regression", "pairs"), ("own", "texts"), ("multilabel", "texts")):
        data = GLUE if texts == "pairs" else ()
        (expected / f"{name}.json").write_text(run("evaluate", f"runs/{name}", *data, "--json"))
        (expected / f"{name}.tsv").write_text(run("predict", f"runs/{name}", "--input", f"expected/{texts}.txt"))


def cpu() -> str:
    info = Path("/proc/cpuinfo").read_text()
    lines = (line.partition(":") for line in info.split("\n\n")[0].splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    return f"{platform.machine()}, {values['vendor_id']} family {values['cpu family']} model {values['model']}"


if __name__ == "__main__":
    main()
