"""Time the reading of a user's own large file before training: a CSV of 1,000,000 rows, about 100 MB.

The file is read (columns, labels and dev set are found) and checked in a process of its own, without tokenization. With
`--format` the same rows are written as JSON Lines or Parquet. Each pass prints one line and appends it to
`benchmarks/results/own_data.jsonl`.

    python benchmarks/own_data.py
"""

import argparse
import csv
import functools
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

RESULTS = pathlib.Path(__file__).parent / "results" / "own_data.jsonl"
ROWS = 1_000_000
FORMATS = ("csv", "csv.gz", "jsonl", "parquet")


def rows():
    """Yield an identifier, a text of 3 to 32 English-like words (some with quotes or line ends) and one of three labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "un")]
    words = ["".join(rng.choice(syllables, n)) for n in rng.integers(1, 4, 4000)] + ["of", "the", "a", "to"] * 1000
    words += ['"well,"', "said,\nand", "naïve", "😀"] * 20
    labels = ("negative", "neutral", "positive")
    for i in range(ROWS):
        pick = rng.integers(0, len(words), int(rng.integers(3, 33))).tolist()
        yield i, " ".join([words[place] for place in pick]), labels[i % 3]


def write(path):
    """Write the rows in the format of the path's ending."""
    names = ("id", "review", "sentiment")
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(dict(zip(names, zip(*rows(), strict=True), strict=True))), path)
        return
    opener = functools.partial(gzip.open, compresslevel=1) if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            stream.writelines(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows())
        else:
            writer = csv.writer(stream)
            writer.writerow(names)
            writer.writerows(rows())


def measure(path):
    """Run one pass in this process, and print its figures."""
    started = time.perf_counter()
    import isinglass.data.custom  # noqa: F401  # open_data imports it when needed
    from isinglass.backends.cpu import peak_resident_bytes
    from isinglass.config import TrainConfig
    from isinglass.data import open_data
    from isinglass.data.checks import inspect_data
    from isinglass.data.examples import encode_labels

    imported = time.perf_counter()
    data = open_data(TrainConfig(task="reviews", train_file=(path,)))
    splits = {split.name: data.read(split) for split in data.task.splits}
    labels = [encode_labels(examples, data.task, data.task.labels) for examples in splits.values()]
    read = time.perf_counter()
    facts = inspect_data(splits, data.task)
    lines = facts.lines()
    done = time.perf_counter()
    assert sum(map(len, labels)) == sum(facts.rows.values()) == ROWS
    assert lines
    figures = {
        "format": pathlib.Path(path).name.partition(".")[2],
        "rows": ROWS,
        "file_mb": pathlib.Path(path).stat().st_size / 1e6,
        "import_seconds": imported - started,
        "read_seconds": read - imported,
        "inspect_seconds": done - read,
        "total_seconds": done - started,
        "peak_memory_mib": peak_resident_bytes() / 2**20,
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS, action="append", help="default: csv; may be repeated")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    from isinglass.results import installed_versions, source_commit

    for ending in arguments.format or ["csv"]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / f"reviews.{ending}"
            write(path)
            command = [sys.executable, __file__, "--measure", str(path)]
            found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = {**json.loads(found.stdout), "versions": installed_versions(), "git_commit": source_commit()}
        with open(RESULTS, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
