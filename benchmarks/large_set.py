"""Time reading, tokenizing and planning a training set of MNLI's size: 392,702 synthetic pairs, cold and warm.

Each pass is a process of its own over the same files: `cold` begins with an empty token cache, `warm` finds the cache of
`cold`. The clock covers reading the TSV file, the labels, the tokens and the plan of three epochs. Imports are timed
separately. Each pass appends one line to `benchmarks/results/large_set.jsonl`.

    python benchmarks/large_set.py
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

RESULTS = pathlib.Path(__file__).parent / "results" / "large_set.jsonl"
ROWS = 392702
EPOCHS = 3


def write_mnli(folder, rows=ROWS):
    """Write MNLI's twelve columns. Texts are 4 to 36 and 2 to 18 random English-like words: about 39 tokens a pair."""
    import numpy as np

    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "un")]
    words = ["".join(rng.choice(syllables, n)) for n in rng.integers(1, 3, 4000)]
    common = ["the", "of", "and", "a", "to", "in", "is", "was", "he", "that", "it", "his", "her", "you", "with", "as"]
    labels = ("contradiction", "entailment", "neutral")

    def text(low, high):
        count = int(rng.integers(low, high))
        pick = rng.integers(0, len(words), count)
        is_common = rng.random(count) < 0.6
        return " ".join(common[i % len(common)] if c else words[i] for i, c in zip(pick, is_common, strict=True))

    (folder / "MNLI").mkdir()
    parses = ["sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
    names = ["index", "promptID", "pairID", "genre", *parses, "sentence1", "sentence2", "label1", "gold_label"]
    with open(folder / "MNLI" / "train.tsv", "w", encoding="utf-8") as lines:
        lines.write("\t".join(names) + "\n")
        for i in range(rows):
            label = labels[i % 3]
            unread = ["-"] * 7
            lines.write("\t".join([str(i), *unread, text(4, 37), text(2, 19), label, label]) + "\n")


def measure(folder):
    """Run one pass in this process, and print its figures."""
    started = time.perf_counter()
    from isinglass.backends.cpu import peak_resident_bytes
    from isinglass.data.examples import encode_labels
    from isinglass.data.glue import PublishedFiles
    from isinglass.data.tokenization import tokenize
    from isinglass.models.source import demo_directory
    from isinglass.packing import plan_epoch
    from isinglass.tasks import get_task

    task = get_task("mnli")
    tokenizer_json = (demo_directory() / "tokenizer.json").read_text(encoding="utf-8")
    imported = time.perf_counter()
    examples = PublishedFiles(task=task, data_dir=pathlib.Path(folder)).read(task.train)
    labels = encode_labels(examples, task, task.labels)
    read = time.perf_counter()
    tokens = tokenize(examples, tokenizer_json, 128)
    tokenized = time.perf_counter()
    steps = sum(len(plan_epoch(len(tokens), 32, seed=42, epoch=epoch)) for epoch in range(EPOCHS))
    done = time.perf_counter()
    assert len(labels) == len(tokens)
    figures = {
        "examples": len(tokens),
        "tokens": int(tokens.offsets[-1]),
        "steps": steps,
        "import_seconds": imported - started,
        "read_seconds": read - imported,
        "tokenize_seconds": tokenized - read,
        "plan_seconds": done - tokenized,
        "total_seconds": done - imported,
        "peak_memory_mib": peak_resident_bytes() / 2**20,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(figures))


def main():
    from isinglass.results import installed_versions

    with tempfile.TemporaryDirectory() as name:
        write_mnli(pathlib.Path(name))
        environment = {**os.environ, "ISINGLASS_CACHE": f"{name}/cache", "TOKENIZERS_PARALLELISM": "true"}
        for state in ("cold", "warm"):
            command = [sys.executable, __file__, "--measure", name]
            found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            row = {"pass": state, **json.loads(found.stdout), "versions": installed_versions()}
            with open(RESULTS, "a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2])
    else:
        main()
