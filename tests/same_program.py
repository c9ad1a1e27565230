"""Train a fixed set of small runs with one source tree, and print the sha256 of what each leaves.

A refactoring must not change a bit of it: compare the sums of two trees on the same machine.

    python tests/same_program.py --source src > new.txt
    git worktree add ../before c92ef4c
    python tests/same_program.py --source ../before/src > old.txt
    diff old.txt new.txt

Only the command line is used, whose options every version keeps. Sums depend on the processor and on PyTorch's version,
so that none are checked in.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = (
    "the a cat dog man woman house river reads sleeps runs sings quickly slowly never always big small red blue and or "
    "not in on under with without his her rain snow music book city road is was will be good bad true false"
).split()
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIALS, *WORDS, *(f"w{i}" for i in range(60)))
COMPARED = ("model/model.safetensors", "steps.jsonl", "predictions-*.tsv")

OWN = ("--train-file", "{own}/texts.csv", "--text-column", "text")
SHORT = ("--max-length", "40", "--batch-size", "16", "--epochs", "2", "--learning-rate", "1e-3")
PAIRS = ("mrpc", "--data-dir", "{glue}")
ROWS = ("--set", "layout=rows")

# name of a run -> (model, what `isinglass train` is given)
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pairs-fp32": ("bert", PAIRS),
    "pairs-bf16": ("bert", (*PAIRS, "--precision", "bf16")),
    "pairs-rows-fp32": ("bert", (*PAIRS, *ROWS)),
    "pairs-rows-bf16": ("bert", (*PAIRS, *ROWS, "--precision", "bf16")),
    "roberta": ("roberta", PAIRS),
    "distilbert": ("distilbert", PAIRS),
    "electra": ("electra", PAIRS),
    "electra-rows": ("electra", (*PAIRS, *ROWS)),
    "regression": ("bert", ("stsb", "--data-dir", "{glue}")),
    "texts": ("bert", (*OWN, "--label-column", "label")),
    "several-labels": ("bert", (*OWN, "--label-column", "topics", "--label-delimiter", "|")),
    "several-labels-weighted": (
        "bert",
        (
            *OWN,
            "--label-column",
            "topics",
            "--label-delimiter",
            "|",
            "--class-weights",
            "balanced",
            "--label-smoothing",
            "0.1",
        ),
    ),
    "windows": ("bert", (*OWN, "--label-column", "label", "--max-length", "16", "--long-texts", "windows")),
    "class-weights": ("bert", (*OWN, "--label-column", "label", "--class-weights", "balanced")),
    "label-smoothing": ("bert", (*OWN, "--label-column", "label", "--label-smoothing", "0.1")),
    "layer-decay": ("bert", (*PAIRS, "--layer-decay", "0.8")),
    "frozen-embeddings": ("bert", (*PAIRS, "--freeze-embeddings")),
    "frozen-layers": ("bert", (*PAIRS, "--freeze-layers", "1")),
    "weight-decay": ("bert", (*PAIRS, "--set", "weight_decay=0.01", "--set", "warmup_ratio=0.2", "--set", "dropout=0.2")),
    "best-epoch": ("bert", (*PAIRS, "--keep-best", "--epochs", "3")),
    "early-stopping": ("bert", (*PAIRS, "--early-stopping", "1", "--epochs", "4")),
    "few-rows": ("bert", (*PAIRS, "--max-train-examples", "30")),
    "two-streams-fp32": ("bert", (*PAIRS, "--batch-size", "64")),
    "two-streams-bf16": ("bert", (*PAIRS, "--batch-size", "64", "--precision", "bf16")),
    "compiled": ("bert", (*PAIRS, "--compile", "--max-train-examples", "32", "--epochs", "1")),
    "tensorflow-fp32": ("bert", (*PAIRS, "--backend", "tensorflow")),
    "tensorflow-bf16": ("electra", (*PAIRS, "--backend", "tensorflow", "--precision", "bf16")),
    "tensorflow-xla": ("distilbert", (*PAIRS, "--backend", "tensorflow", "--xla", "--max-train-examples", "32")),
    "tensorflow-several-labels": (
        "roberta",
        (*OWN, "--label-column", "topics", "--label-delimiter", "|", "--backend", "tensorflow", "--layer-decay", "0.8"),
    ),
    "tensorflow-regression": ("bert", ("stsb", "--data-dir", "{glue}", "--backend", "tensorflow", "--freeze-layers", "1")),
    "jax-fp32": ("bert", (*PAIRS, "--backend", "jax", "--max-train-examples", "32")),
    "jax-bf16": ("electra", (*PAIRS, "--backend", "jax", "--max-train-examples", "32", "--precision", "bf16")),
}


def write_model(directory: Path, family: str) -> None:
    """Write a tiny random encoder of a family, with its tokenizer, by `transformers`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoModel, BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig

    common = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 80, "pad_token_id": int(family == "roberta")}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    drawn = {"initializer_range": 0.3}
    config = {
        "bert": lambda: BertConfig(**common, **sizes, **drawn, layer_norm_eps=1e-5),
        "roberta": lambda: RobertaConfig(**common, **sizes, **drawn, type_vocab_size=1),
        "electra": lambda: ElectraConfig(**common, **sizes, **drawn, embedding_size=16),
        "distilbert": lambda: DistilBertConfig(**common, **drawn, dim=24, n_layers=2, n_heads=3, hidden_dim=40),
    }[family]()
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(directory)
    order = [*VOCABULARY]
    if family == "roberta":
        order[0], order[1] = order[1], order[0]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(order)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    second = 0 if family == "roberta" else 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair=f"[CLS]:0 $A:0 [SEP]:0 $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **specials}))


def sentence(rng: np.random.Generator) -> str:
    """Return two to seventeen random words."""
    return " ".join(rng.choice(WORDS, int(rng.integers(2, 18))))


def write_data(glue: Path, own: Path) -> None:
    """Write MRPC and STS-B in GLUE's layout, and a CSV with a label and several topics a row."""
    rng = np.random.default_rng(0)
    (glue / "MRPC").mkdir(parents=True)
    (glue / "STS-B").mkdir()
    own.mkdir()
    for name, rows in (("train", 96), ("dev", 40), ("test", 24)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for i in range(rows):
            first = sentence(rng)
            label = i if name == "test" else len(first.split()[0]) % 2
            lines.append(f"{label}\t1\t2\t{first}\t{sentence(rng)}")
        head = lines[0].replace("Quality", "index") if name == "test" else lines[0]
        (glue / "MRPC" / f"{name}.tsv").write_text("\n".join([head, *lines[1:]]) + "\n")
        columns = [
            "index",
            "genre",
            "filename",
            "year",
            "old_index",
            "source1",
            "source2",
            "sentence1",
            "sentence2",
            "score",
        ]
        table = ["\t".join(columns if name != "test" else columns[:-1])]
        for i in range(rows):
            first = sentence(rng)
            score = [] if name == "test" else [f"{len(first) % 6:.3f}"]
            table.append("\t".join([str(i), "g", "f", "y", "0", "s", "s", first, sentence(rng), *score]))
        (glue / "STS-B" / f"{name}.tsv").write_text("\n".join(table) + "\n")
    lines = ["text,label,topics"]
    for _ in range(150):
        text = sentence(rng)
        words = text.split()
        topics = "|".join(topic for topic, word in (("animal", "cat"), ("place", "city"), ("art", "music")) if word in words)
        lines.append(f"{text},{('short', 'middle', 'long')[min(len(words) // 6, 2)]},{topics or 'place'}")
    (own / "texts.csv").write_text("\n".join(lines) + "\n")


def digest(run: Path) -> str:
    """Return the sha256 of the files of a run that must not change."""
    found = hashlib.sha256()
    for pattern in COMPARED:
        for path in sorted(run.glob(pattern)):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:32]


def killed_and_resumed(command: list[str], output: Path, environment: dict[str, str]) -> None:
    """Kill the run after its first checkpoint, and resume it with the same command."""
    command = [*command, "--checkpoint-every", "2steps", "--resume"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not [*output.glob("checkpoints/step-*.safetensors")]:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src", help="the tree to run")
    parser.add_argument("--only", default="", help="names of runs, separated by commas; all of them without it")
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    environment = {
        **os.environ,
        "PYTHONPATH": str(options.source.resolve()),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": "2",
    }
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        environment["ISINGLASS_CACHE"] = str(work / "cache")
        for family in sorted({family for family, _ in RUNS.values()}):
            (work / "models" / family).mkdir(parents=True)
            write_model(work / "models" / family, family)
        write_data(work / "glue", work / "own")

        def command(run: str, output: Path) -> list[str]:
            family, given = RUNS[run]
            task = given[:1] if not given[0].startswith("-") else ()
            asked = (*task, *SHORT, *given[len(task) :], "--model", work / "models" / family, "--output-dir", output)
            filled = [str(part).format(glue=work / "glue", own=work / "own") for part in asked]
            return [sys.executable, "-m", "isinglass", "train", *filled]

        def show(run: str, output: Path) -> None:
            print(run, digest(output), flush=True)

        for run in RUNS:
            if not wanted or run in wanted:
                done = subprocess.run(command(run, work / "runs" / run), env=environment, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{run} failed: {done.stderr}")
                show(run, work / "runs" / run)
        for run in ("pairs-fp32", "best-epoch", "two-streams-bf16", "tensorflow-fp32"):
            resumed = f"{run}-resumed"
            if not wanted or resumed in wanted:
                killed_and_resumed(command(run, work / "runs" / resumed), work / "runs" / resumed, environment)
                show(resumed, work / "runs" / resumed)
        if not wanted or "two-processes" in wanted:
            python, *rest = command("pairs-fp32", work / "runs" / "two-processes")
            launcher = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *rest]
            subprocess.run(launcher, env={**environment, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
            show("two-processes", work / "runs" / "two-processes")


if __name__ == "__main__":
    main()
