"""The command as a user runs it: real processes, their output, exit status and files on disk."""

import csv
import fcntl
import json
import math
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from isinglass.tasks import TASKS
from tests.sample_bench import write_sample_run
from tests.tiny import FAMILIES, save_tiny, write_glue

ROWS = {"train": 24, "dev": 24, "test": 24, "dev_matched": 24, "dev_mismatched": 24, "test_matched": 7, "test_mismatched": 9}
QUICK = ("--max-length", "40", "--batch-size", "16", "--epochs", "1")
PROGRESS = re.compile(
    r"(train \d+/\d+, epoch \d+/\d+, loss \d+\.\d{3}, |evaluate \w+ \d+/\d+, )[\d,]+ tokens/s(, [\d a-z]+ left)?"
)
# variables that a user's shell may set and that would change the output
SWITCHES = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "PYTHONIOENCODING")
HEAVY = "torch tensorflow keras numpy sklearn scipy transformers pyarrow tokenizers safetensors rich huggingface_hub".split()


def environment(**changes: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in SWITCHES} | changes


@dataclass(frozen=True)
class Finished:
    """A finished process; `modules` are the modules that it imported, if they were requested."""

    status: int
    out: str
    err: str
    modules: frozenset[str] = frozenset()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "isinglass", *map(str, arguments)]


def isinglass(*arguments: object, cwd: Path, lists_modules: bool = False) -> Finished:
    """Run the command. With `lists_modules`, record the imported modules and remove Python's report of them from stderr."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**({"PYTHONPROFILEIMPORTTIME": "1"} if lists_modules else {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )
    lines = done.stderr.decode().splitlines(keepends=True)
    imports = [line for line in lines if line.startswith("import time:")]
    err = "".join(line for line in lines if not line.startswith("import time:"))
    modules = frozenset(line.rpartition("|")[2].strip() for line in imports)
    return Finished(done.returncode, done.stdout.decode(), err, modules)


def contents(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("glue")
    for name in ("mrpc", "wnli", "mnli", "ax"):
        task = TASKS[name]
        write_glue(task, directory, rows={split.name: ROWS[split.name] for split in task.splits})
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """Return a checkpoint with MNLI's labels that is not a run."""
    return save_tiny(tmp_path_factory.mktemp("models") / "mnli", labels=("contradiction", "entailment", "neutral"))


@pytest.fixture(scope="module")
def json_run(tmp_path_factory, glue: Path, model: Path) -> tuple[Path, Finished]:
    """Return the directory and the process of a run of MRPC, which tests of its output, `evaluate` and `predict` share."""
    place = tmp_path_factory.mktemp("json")
    options = ("--data-dir", glue, "--model", model, *QUICK, "--output-dir", "new/run", "--seed", 7, "--json")
    return place / "new" / "run", isinglass("train", "mrpc", *options, cwd=place)


@pytest.fixture
def run_dir(json_run: tuple[Path, Finished]) -> Path:
    directory, done = json_run
    assert done.status == 0, done.err
    return directory


def the_object(output: str) -> dict:
    """Return the single JSON object that `output` consists of. NaN and Infinity are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert output.endswith("}\n")
    assert output.count("\n") == 1
    return json.loads(output, parse_constant=refuse)


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


# --- results ---


def test_json_is_one_object_and_nothing_else_on_standard_output(json_run: tuple[Path, Finished], model: Path) -> None:
    """A note or a progress bar on standard output would break `isinglass train --json | jq`."""
    directory, done = json_run
    assert done.status == 0, done.err
    result = the_object(done.out)
    assert result.keys() >= set(
        "task split backend precision model seed metrics majority train_seconds epoch_seconds examples_per_second "
        "tokens_per_second device versions".split()
    )
    assert (result["task"], result["split"], result["seed"], result["model"]) == ("mrpc", "dev", 7, str(model))
    assert (result["backend"], result["precision"]) == ("torch", "fp32")
    for scores in (result["metrics"], result["majority"]):
        assert scores.keys() == {"f1", "accuracy"}
        assert all(0 <= value <= 1 for value in scores.values())
    assert all(math.isfinite(value) for value in numbers(result))
    assert len(result["epoch_seconds"]) == 1
    assert result["tokens_per_second"] > 0
    assert result["versions"].keys() >= {"python", "torch", "numpy"}
    assert result == json.loads((directory / "result.json").read_text()), "what is printed is what is kept"


def test_progress_off_a_terminal_is_plain_lines_on_standard_error(json_run: tuple[Path, Finished]) -> None:
    """A log file with carriage returns, colours or warnings of libraries is hard to read."""
    lines = json_run[1].err.splitlines()
    assert all(PROGRESS.fullmatch(line) for line in lines), lines
    assert lines[-2].startswith("train 2/2, epoch 1/1, loss ")
    assert lines[-1].startswith("evaluate dev 24/24, ")


def test_a_table_sets_the_result_beside_the_majority_and_wnli_is_warned_of(glue: Path, model: Path, tmp_path: Path) -> None:
    """A score without that of the majority baseline is easily mistaken for a good one, above all on WNLI."""
    options = ("--data-dir", glue, "--model", model, *QUICK, "--output-dir", "run")
    done = isinglass("train", "wnli", *options, cwd=tmp_path)
    assert done.status == 0, done.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    figures = (f"{100 * result[key]['accuracy']:.2f}" for key in ("metrics", "majority"))
    row = next(line for line in done.out.splitlines() if "accuracy" in line)
    assert re.findall(r"[\w.]+", row) == ["dev", "24", "accuracy", *figures]
    assert done.out.startswith(f"WNLI: {model}, fp32, seed 42\n")
    assert "Note: WNLI's dev set is adversarial" in done.out
    assert "Run written to run\n" in done.out
    assert "\x1b" not in done.out
    assert {str(path.relative_to(tmp_path)) for path in contents(tmp_path)} == {
        "run",
        "run/result.json",
        "run/steps.jsonl",
        "run/predictions-dev.tsv",
        "run/model",
        "run/model/config.json",
        "run/model/model.safetensors",
        "run/model/tokenizer.json",
        "run/model/tokenizer_config.json",
        "run/model/README.md",
    }
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [0, 1]
    with open(tmp_path / "run" / "predictions-dev.tsv", newline="") as file:
        found = [*csv.DictReader(file, delimiter="\t")]
    dev = [line.split("\t") for line in (glue / "WNLI" / "dev.tsv").read_text().splitlines()]
    read = [(row["row"], row["text"], row["text2"], row["label"]) for row in found]
    assert read == [(str(number), *row[1:]) for number, row in enumerate(dev[1:], 2)]
    plain = [[row[name] for name in ("index", "prediction", "probability:0", "probability:1")] for row in found]
    header = ["index", "prediction", "probability:0", "probability:1"]
    check_predictions("".join("\t".join(row) + "\n" for row in [header, *plain]), rows=24)


def check_predictions(output: str, rows: int) -> None:
    """Check predictions with the labels 0 and 1: a header, then index, label name and probabilities in each line."""
    header, *lines = (line.split("\t") for line in output.removesuffix("\n").split("\n"))
    assert header == ["index", "prediction", "probability:0", "probability:1"]
    assert [line[0] for line in lines] == [str(i) for i in range(rows)]
    for _, label, *chances in lines:
        zero, one = map(float, chances)
        assert zero + one == pytest.approx(1, abs=1e-5)
        assert label == ("0" if zero > one else "1")


def test_evaluate_gives_the_scores_of_the_run(run_dir: Path, tmp_path: Path) -> None:
    """Fails if a saved model scores differently because it was saved or loaded wrongly."""
    done = isinglass("evaluate", run_dir, "--json", cwd=tmp_path)
    assert done.status == 0, done.err
    found, kept = the_object(done.out), json.loads((run_dir / "result.json").read_text())
    for key in ("task", "split", "metrics", "majority", "precision", "seed"):
        assert found[key] == kept[key]
    assert not contents(tmp_path)


def test_predict_answers_each_row_of_the_test_set(run_dir: Path, tmp_path: Path) -> None:
    """GLUE's test files number their rows: a lost or moved row spoils a submission."""
    done = isinglass("predict", run_dir, cwd=tmp_path)
    assert done.status == 0, done.err
    check_predictions(done.out, rows=24)
    assert all(PROGRESS.fullmatch(line) for line in done.err.splitlines()), done.err


def test_predict_reads_a_file_and_writes_a_file(run_dir: Path, tmp_path: Path) -> None:
    """What is written to --output must not be written to standard output as well."""
    (tmp_path / "mine.txt").write_text("a cat\ta dog\nthe river\tthe sea\nrain\tsnow\n")
    done = isinglass("predict", run_dir, "--input", "mine.txt", "--output", "new/answers.tsv", cwd=tmp_path)
    assert (done.status, done.out) == (0, ""), done.err
    assert done.err.endswith("3 predictions written to new/answers.tsv\n")
    check_predictions((tmp_path / "new" / "answers.tsv").read_text(), rows=3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["answers.tsv"]


def test_submit_writes_a_zip_once_and_checks_any(tmp_path: Path) -> None:
    """A zip that the server refuses costs one of the few submissions of a day, so it must not look like a success."""
    write_sample_run(tmp_path / "bench", "wnli", rows=146)  # as many as the published test set has
    zip_file = tmp_path / "glue.zip"
    incomplete = isinglass("submit", "bench", "--output", "glue.zip", cwd=tmp_path)
    assert (incomplete.status, incomplete.out, zip_file.exists()) == (2, "", False)
    assert incomplete.err.startswith("isinglass: bench has no test predictions for CoLA.tsv, ")

    filled = ("submit", "bench", "--output", "glue.zip", "--partial", "majority")
    written = isinglass(*filled, cwd=tmp_path)
    assert (written.status, written.err) == (0, "")
    files = {line.split()[0]: line for line in written.out.splitlines() if ".tsv" in line}
    assert len(files) == 11
    assert re.fullmatch(r"WNLI.tsv +demo torch fp32 seed 1 +\d+\.\d\d +best of 1", files["WNLI.tsv"])
    assert re.fullmatch(r"RTE.tsv +every row entailment +- +-", files["RTE.tsv"])
    good = isinglass("submit", "--check", "glue.zip", cwd=tmp_path)
    assert good == Finished(0, "glue.zip: eleven files, each with the right rows, order and alphabet.\n", "")

    content = zip_file.read_bytes()
    refused = isinglass(*filled, cwd=tmp_path)
    assert (refused.status, refused.out, zip_file.read_bytes()) == (2, "", content)
    assert refused.err == "isinglass: glue.zip exists: choose another --output, or replace it with --overwrite.\n"
    replaced = isinglass(*filled[:-1], "absent", "--overwrite", cwd=tmp_path)
    assert (replaced.status, replaced.out.count("absent")) == (0, 10), replaced.err
    with zipfile.ZipFile(zip_file, "a") as archive:
        archive.writestr("RTE.tsv", "index\tprediction\n0\tyes\n")
    broken = isinglass("submit", "--check", "glue.zip", cwd=tmp_path)
    assert (broken.status, broken.err) == (2, "isinglass: glue.zip would not be taken: 11 problems.\n")
    problems = broken.out.splitlines()
    assert problems[0] == "glue.zip: no CoLA.tsv; expected all eleven files."
    assert problems[-2:] == [
        "RTE.tsv, line 2: the prediction 'yes'; expected entailment or not_entailment.",
        "RTE.tsv: 1 rows; expected 3000, as many as the test set has.",
    ]
    for neither_or_both in (("submit",), ("submit", "bench", "--check", "glue.zip")):
        unclear = isinglass(*neither_or_both, cwd=tmp_path)
        assert (unclear.status, unclear.out) == (2, "")
        assert "Name either a directory to make a submission of, or a zip to --check" in unclear.err


# --- help, tasks, version ---


@pytest.mark.parametrize("statement", ["import isinglass", "import isinglass.cli", "help"])
def test_help_imports_no_framework(statement: str, tmp_path: Path) -> None:
    """An import at the top of a file would make --help take seconds. Rich is allowed there, because it draws the panels."""
    heavy = set(HEAVY)
    if statement == "help":
        heavy.remove("rich")
        statement = (
            "from typer.testing import CliRunner; from isinglass.cli import app; "
            "results = [CliRunner().invoke(app, a) for a in (['--help'], ['train', '--help'], ['predict', '--help'])]; "
            "assert all(r.exit_code == 0 and 'Usage:' in r.output for r in results)"
        )
    code = f"import sys; {statement}; print(*sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, check=True)
    assert done.stdout.strip() == b""


def test_tasks_lists_every_task_with_sizes_and_majority_in_80_columns(tmp_path: Path) -> None:
    """A column that is too narrow ends in an ellipsis, and a truncated name is useless."""
    done = isinglass("tasks", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert "…" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    names = [line.split()[0] for line in done.out.splitlines() if line[:1].islower()]
    assert names == ["task", *TASKS]
    assert len(TASKS) == 11
    for task in TASKS.values():
        assert all(str(split.rows) in done.out for split in task.splits)
        assert all(f"{100 * value:.2f}" in done.out for scores in task.dev_majority for value in scores)
        assert all(str(name) in done.out for split in task.splits[:1] for name in split.text_columns)
        assert all(name in done.out for name in (*task.metrics, *(task.labels or ())))


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert isinglass("--version", cwd=tmp_path) == Finished(0, version("isinglass") + "\n", "")


# --- a user's mistakes ---

BAD_ROW = {
    "a missing column": (b"Quality\tid\t#1 String\tx\n1\t-\ta\tb\n", "line 1 has no column '#2 String'"),
    "a field too few": (b"Quality\t#1 String\t#2 String\n1\ta\tb\n1\ta\n", "line 3: 2 tab-separated fields"),
    "an unknown label": (b"Quality\t#1 String\t#2 String\nyes\ta\tb\n", "line 2: the label is 'yes'"),
    "broken UTF-8": (b"Quality\t#1 String\t#2 String\n1\ta\t\xff\n", "line 2, byte 5: 0xff is not UTF-8"),
    "an empty file": (b"", "is empty"),
    "a NUL byte": (b"Quality\t#1 String\t#2 String\n1\ta\0\tb\n", "line 2: a NUL byte"),
    "no file": (None, "dev.tsv does not exist"),
}
MISTAKES = {
    # arguments in a directory with glue/, model/, occupied/ (holds a file) and a-file; words that the one line must contain
    "unknown task": ("train mprc", "no task 'mprc' (did you mean 'mrpc'?)"),
    "unknown recipe": ("{train} --recipe clasic", "no recipe 'clasic' (did you mean 'classic'?)"),
    "unknown setting": ("{train} --set weight_decya=1", "no setting 'weight_decya' (did you mean 'weight_decay'?)"),
    "value out of range": ("{train} --learning-rate -1", "learning_rate is -1.0; it must be above 0"),
    "broken config file": ("{train} --config broken.toml", "broken.toml is not a .toml object of settings"),
    "no config file": ("{train} --config none.toml", "The config file none.toml cannot be read"),
    "no data": ("train mrpc --model model --data-dir nowhere --output-dir out", "nowhere is not a directory"),
    "no checkpoint": ("{train} --model occupied", "occupied is not a checkpoint: no config.json (it holds mine.txt)"),
    "other weights": ("{train} --model misfit", "has shape [40, 24]; config.json calls for [44, 24]"),
    "other architecture": (
        "{train} --model llama",
        f"model_type is 'llama'; the families served are {', '.join(FAMILIES[:1])}",
    ),
    "unknown backend": (
        "{train} --backend torhc",
        "backend is 'torhc' (did you mean 'torch'?); it must be one of torch, tensorflow, jax",
    ),
    "output not empty": ("{train} --output-dir occupied", "occupied is not empty: choose another --output-dir"),
    "output no run": ("{train} --output-dir occupied --overwrite", "occupied is not a run directory (no result.json)"),
    "output a file": ("{train} --output-dir a-file --overwrite", "a-file is a file: choose another --output-dir"),
    "output below a file": ("{train} --output-dir a-file/b/run", "a-file/b/run cannot be made in"),
    "output here": ("{train} --output-dir .", ". is the working directory"),
    "no training set": ("train ax --model model --data-dir glue --output-dir out", "AX has no training set: train mnli"),
    "evaluate nothing": ("evaluate occupied", "occupied is neither a run directory"),
    "evaluate a bare model": ("evaluate classifier", "name its task with --task"),
    "two test sets": (
        "predict classifier --task mnli --data-dir glue",
        "2 test sets: name one with --split test_matched or",
    ),
    "predictions there": ("predict classifier --task ax --data-dir glue --output a-file", "a-file exists: choose another"),
    "predictions below a file": ("predict classifier --task ax --output a-file/x", "a-file/x cannot be made in"),
    "predictions to a device": (
        "predict classifier --task ax --output /dev/null --overwrite",
        "/dev/null is a directory or",
    ),
    "input and split": ("predict classifier --task ax --input mine.txt --split test", "exclude each other"),
    "no input": ("predict classifier --task ax --input mine.txt", "mine.txt does not exist"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, glue: Path, model: Path, classifier: Path) -> Path:
    """Return a working directory in which every mistake of MISTAKES can be made."""
    directory = tmp_path_factory.mktemp("place")
    for name, target in (("glue", glue), ("model", model), ("classifier", classifier)):
        (directory / name).symlink_to(target)
    (directory / "occupied").mkdir()
    (directory / "occupied" / "mine.txt").write_text("mine")
    (directory / "a-file").write_text("mine")
    (directory / "broken.toml").write_text("epochs = = 3\n")
    for name, changes in (("misfit", {"intermediate_size": 44}), ("llama", {"model_type": "llama"})):
        shutil.copytree(model, directory / name)
        values = json.loads((model / "config.json").read_text())
        (directory / name / "config.json").write_text(json.dumps(values | changes))
    return directory


def check_one_line(done: Finished, words: str) -> None:
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("isinglass: ")
    assert words in done.err
    assert (done.status, done.out) == (2, "")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake: str, place: Path) -> None:
    """Guards against a traceback, a half-written run, or seconds of importing torch before a typo is found."""
    arguments, words = MISTAKES[mistake]
    train = "train mrpc --data-dir glue --model model --max-length 40 --epochs 1"
    if "--output-dir" not in arguments:
        train += " --output-dir out"
    before = contents(place)
    done = isinglass(*arguments.format(train=train).split(), cwd=place, lists_modules=True)
    check_one_line(done, words)
    assert "isinglass.errors" in done.modules
    assert "torch" not in done.modules
    assert contents(place) == before
    assert (place / "a-file").read_text() == "mine"


@pytest.mark.parametrize("damage", BAD_ROW)
def test_damaged_data_are_one_line_with_file_and_line_number(damage: str, model: Path, tmp_path: Path) -> None:
    """The damage must be found before torch is imported and before anything of the run is written."""
    content, words = BAD_ROW[damage]
    data = write_glue(TASKS["mrpc"], tmp_path / "data", rows=4)
    dev = data / "MRPC" / "dev.tsv"
    dev.unlink() if content is None else dev.write_bytes(content)
    before = contents(tmp_path)
    options = ("--data-dir", "data", "--model", model, "--max-length", 40, "--output-dir", "out")
    done = isinglass("train", "mrpc", *options, cwd=tmp_path, lists_modules=True)
    check_one_line(done, words)
    assert "data/MRPC/dev.tsv" in done.err
    assert "torch" not in done.modules
    assert contents(tmp_path) == before


def test_a_result_that_names_no_task_is_one_line(run_dir: Path, tmp_path: Path) -> None:
    """A result that was edited by hand or written by another program raised a KeyError."""
    result = json.loads((run_dir / "result.json").read_text())
    (tmp_path / "old-run" / "model").mkdir(parents=True)
    (tmp_path / "old-run" / "result.json").write_text(json.dumps(result | {"config": {}}))
    done = isinglass("evaluate", "old-run", cwd=tmp_path)
    check_one_line(done, "old-run/result.json does not name its task under 'config'")


def test_fp16_on_a_cpu_is_one_line(place: Path) -> None:
    """fp16 would run on a CPU, but too slowly and too inexactly to be of use."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    before = contents(place)
    options = ("--data-dir", "glue", "--model", "model", *QUICK, "--output-dir", "out", "--precision", "fp16")
    check_one_line(isinglass("train", "mrpc", *options, cwd=place), "fp16 does not run on a CPU")
    assert contents(place) == before


@pytest.mark.parametrize("arguments", ["train mrpc --epochs two", "train --colour", "evaluate", "tarin", "predict a b"])
def test_a_wrong_option_is_a_usage_error(arguments: str, tmp_path: Path) -> None:
    done = isinglass(*arguments.split(), cwd=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert done.err.startswith("Usage: ")


# --- interruptions and failing output ---


def test_ctrl_c_ends_a_command_with_one_line_and_leaves_nothing(run_dir: Path, tmp_path: Path) -> None:
    """Guards against a traceback of fifty lines. What happens to an interrupted run is tested in test_crash_safety."""
    process = subprocess.Popen(
        command("predict", run_dir, "--input", "-", "--output", "answers.tsv"),
        cwd=tmp_path,
        env=environment(PYTHONPROFILEIMPORTTIME="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while "isinglass.training.evaluation" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert lines == ["isinglass: interrupted; nothing was written of what was under way."]
    assert (process.returncode, out) == (130, "")
    assert not contents(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(tmp_path: Path) -> None:
    """Python writes the output again at exit and reports an ignored exception of its own."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("tasks"), cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE)
    assert done.stderr.decode() == "isinglass: Writing output: No space left on device.\n"
    assert done.returncode == 3


def test_a_run_that_cannot_be_written_is_one_line_and_leaves_nothing(glue: Path, model: Path, tmp_path: Path) -> None:
    """A full disk raises an error in a library below, and half a run is worse than none."""
    options = ("--data-dir", glue, "--model", model, *QUICK, "--output-dir", "run")
    limited = ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh", *command("train", "mrpc", *options)]  # 20 or 40 KiB a file
    done = subprocess.run(limited, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 1, done.stderr
    said = r"isinglass: The run could not be written to run \(.*too large.*\), and nothing is left of it\."
    assert re.fullmatch(said, lines[0])
    assert done.returncode == 3
    assert "accuracy" in done.stdout, "the scores at least are not lost"
    assert not contents(tmp_path)


def test_predict_reads_standard_input_and_ends_quietly_when_its_reader_does(run_dir: Path, tmp_path: Path) -> None:
    """`isinglass predict RUN_DIR --input - | head` ended with a traceback or an ignored BrokenPipeError."""
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -n 3', "sh", *command("predict", run_dir, "--input", "-")],
        cwd=tmp_path,
        env=environment(),
        input="a cat\ta dog\n" * 4000,  # more than a pipe holds
        capture_output=True,
        text=True,
        timeout=300,
    )
    check_predictions(done.stdout, rows=2)
    assert done.stderr == ""


def test_little_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    """Short output is written only when Python exits, too late for any handler, unless it is flushed before."""
    process = subprocess.Popen(command("--version"), env=environment(), cwd=tmp_path, stdout=-1, stderr=-1)
    with process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_names_are_printed_as_they_are_and_a_run_is_replaced_through_a_link(
    run_dir: Path, glue: Path, model: Path, tmp_path: Path
) -> None:
    """Guards against four errors that came only after training.

    Rich reads `[red]` as a colour and `:cat:` as an emoji. An escape sequence reaches the terminal. A name that is not UTF-8
    cannot be written. Removing a link failed.
    """
    name = "m [red]:cat:[/] \x1b[31m\r\n" + os.fsdecode(b"\xff")
    shutil.copytree(model, tmp_path / name)
    shutil.copytree(run_dir, tmp_path / "disk" / "run")
    (tmp_path / "disk" / "run" / "old").write_text("old")
    (tmp_path / "[bold]link").symlink_to(tmp_path / "disk" / "run")
    options = ("--data-dir", glue, "--model", f"./{name}", *QUICK, "--output-dir", "[bold]link", "--overwrite")
    done = isinglass("train", "wnli", *options, cwd=tmp_path)
    assert done.status == 0, done.err
    head, _, columns, *_ = done.out.splitlines()
    assert head == r"WNLI: ./m [red]:cat:[/] \x1b[31m\r\n\udcff, fp32, seed 42"
    assert columns.split() == ["split", "examples", "metric", "result", "majority"]
    assert "\x1b" not in done.out
    assert done.out.endswith("Run written to [bold]link\n")
    assert (tmp_path / "[bold]link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["run"]
    assert not (tmp_path / "disk" / "run" / "old").exists()
    result = json.loads((tmp_path / "disk" / "run" / "result.json").read_text(encoding="utf-8"))
    assert (result["task"], result["model"]) == ("wnli", f"./{name}")


def test_a_mistake_in_a_name_of_two_lines_is_one_line(tmp_path: Path) -> None:
    done = isinglass("train", "mr\npc\x1b[31m", cwd=tmp_path)
    check_one_line(done, r"There is no task 'mr\npc\x1b[31m'")


def on_a_terminal(columns: int, arguments: list[str], cwd: Path) -> tuple[int, str]:
    """Run in a terminal of `columns` columns; return the exit status and everything that was written to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        arguments, cwd=cwd, env=environment(TERM="xterm-256color"), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b"".join(iter(lambda: read(ours), b""))
    os.close(ours)
    return process.returncode, written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


def test_a_terminal_shows_a_bar_with_loss_and_speed_and_then_the_table(glue: Path, model: Path, tmp_path: Path) -> None:
    """80 columns must be enough. Without --output-dir the run gets a directory of its own below runs/."""
    options = ("--data-dir", glue, "--model", model, *QUICK)
    status, written = on_a_terminal(80, command("train", "wnli", *options), tmp_path)
    assert status == 0, written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")
    lines = [line.rstrip() for line in plain.split("\n")]
    bar = next(line for line in reversed(lines) if line.startswith("epoch 1/1"))
    assert re.fullmatch(r"epoch 1/1 +━+ +2/2 +loss \d\.\d{3}, [\d,]+ tokens/s +0:00:00", bar)
    assert len(bar) <= 80
    assert any(re.fullmatch(r"evaluate dev +━+ +24/24 +[\d,]+ tokens/s +0:00:00", line) for line in lines)
    assert any(re.fullmatch(r"dev +24 +accuracy +\d+\.\d\d +\d+\.\d\d", line) for line in lines)
    (run,) = (tmp_path / "runs").iterdir()
    assert f"Run written to runs/{run.name}" in lines
    assert run.name.startswith("wnli-tiny-fp32-seed42-")
