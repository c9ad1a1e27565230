"""The hub through its own client, in separate processes, with a local server that responds as the hub does."""

import io
import json
import logging
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import COMMIT, Hub, call, printed, python, serving
from tests.tiny import save_tiny

GLUE = "datasets/nyu-mll/glue"
MRPC_TRAIN = f"{GLUE}/mrpc/train-00000-of-00001.parquet"
MODEL = "someone/tiny"
TRAIN = ("-m", "isinglass", "train", "mrpc", "--epochs", "1", "--max-length", "40", "--json")
LOAD_SPLITS = """
import json, sys
from isinglass.data.glue import PublishedFiles
from isinglass.errors import IsinglassError
from isinglass.tasks import TASKS
found = []
for task, split in (name.split("/") for name in sys.argv[1:]):
    try:
        read = PublishedFiles(task=TASKS[task], data_dir=None).read(TASKS[task].split(split))
        found.append({"texts": [*map(list, read.texts)], "labels": read.labels, "where": read.where(0)})
    except IsinglassError as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""
LOAD_MODELS = """
import json, sys
from isinglass.errors import IsinglassError
from isinglass.models.source import load_model
found = []
for name in sys.argv[1:]:
    try:
        found.append(len(load_model(name).weights))
    except IsinglassError as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""
DAMAGE = """
import collections, json, random
from isinglass.data.glue import HUB_REPO, read_hub
from isinglass.hub import fetch
from isinglass.errors import DataError
from isinglass.tasks import TASKS
task = TASKS["mrpc"]
path = fetch(HUB_REPO, "mrpc/train-00000-of-00001.parquet", repo_type="dataset", instead="")
whole = path.read_bytes()
rng = random.Random(0)
outcomes = collections.Counter()
for _ in range(200):
    content = bytearray(whole)
    for at in rng.choices(range(len(content)), k=rng.choice((1, 3, 20))):
        content[at] = rng.randrange(256)
    path.write_bytes(content)
    try:
        read_hub(task, task.train)
        outcomes["read"] += 1
    except DataError as error:
        outcomes["in one line" if len(str(error).splitlines()) == 1 else str(error)] += 1
print(json.dumps(outcomes))
"""
VERBOSITY = """
import json, logging
from huggingface_hub import hf_hub_download
from isinglass.data.glue import HUB_REPO
from isinglass.hub import fetch
fetch(HUB_REPO, "mrpc/train-00000-of-00001.parquet", repo_type="dataset", instead="")
print(json.dumps(logging.getLogger("huggingface_hub").level))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def refused(tmp_path_factory) -> Iterator[subprocess.Popen[str]]:
    """Start a run with no server at the endpoint, before all other tests, because the client retries for 23 s."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))  # bound, but not listening
        endpoint = f"http://127.0.0.1:{port.getsockname()[1]}"
        with subprocess.Popen(**call(tmp_path_factory.mktemp("refused"), endpoint, *TRAIN, "--model", MODEL)) as process:
            yield process
            process.kill()


def message(status: int, output: str, errors: str) -> str:
    """Return the single line on standard error of a command that ended with a user's mistake (exit status 2)."""
    assert (status, output, errors.count("\n")) == (2, "", 1), errors
    assert errors.startswith("isinglass: ")
    return errors.removeprefix("isinglass: ").rstrip("\n")


def mistake(home: Path, endpoint: str, *options: object, **variables: str) -> str:
    """Return the message of `isinglass train mrpc` with these options."""
    done = python(home, endpoint, *TRAIN, *options, **variables)
    return message(done.returncode, done.stdout, done.stderr)


def parquet(**columns: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def mrpc(rows: int = 4, **changes: object) -> bytes:
    """Return a Parquet file with MRPC's columns on the hub. A change to None omits the column."""
    columns = {
        "sentence1": [f"the cat w{i} sleeps" for i in range(rows)],
        "sentence2": [f"a dog w{i} runs" for i in range(rows)],
        "label": pa.array([i % 2 for i in range(rows)], pa.int64()),
        "idx": pa.array(range(rows), pa.int32()),
        **changes,
    }
    return parquet(**{name: column for name, column in columns.items() if column is not None})


def test_a_split_is_downloaded_once_and_then_read_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    """A file outside the client's cache would be downloaded by each run, and would be missing offline."""
    hub.files[MRPC_TRAIN] = mrpc(sentence1=["Yes\tno", " é\u2028 ", '"', ""], label=pa.array([1, 0, 0, 1]))
    load = ("-c", LOAD_SPLITS, "mrpc/train")
    (first,) = printed(python(tmp_path, hub.endpoint, *load))
    assert first["texts"] == [["Yes\tno", " é\u2028 ", '"', ""], [f"a dog w{i} runs" for i in range(4)]]
    assert first["labels"] == ["1", "0", "0", "1"]
    assert first["where"] == "nyu-mll/glue/mrpc/train-00000-of-00001.parquet, row 1"
    assert hub.requests == [f"HEAD {MRPC_TRAIN}", f"GET {MRPC_TRAIN}"]
    hub.requests.clear()
    assert printed(python(tmp_path, hub.endpoint, *load)) == [first]
    assert hub.requests == [f"HEAD {MRPC_TRAIN}"]
    hub.requests.clear()
    assert printed(python(tmp_path, hub.endpoint, *load, HF_HUB_OFFLINE="1")) == [first]
    assert hub.requests == []


def test_the_hubs_integers_get_the_names_that_they_have_there(hub: Hub, tmp_path: Path) -> None:
    """MNLI's integers are not in the order of the labels in the files. On a test set, -1 means no label."""
    texts = {"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"]}
    hub.files[f"{GLUE}/mnli/train-00000-of-00001.parquet"] = parquet(**texts, label=[0, 1, 2])
    hub.files[f"{GLUE}/mnli/validation_mismatched-00000-of-00001.parquet"] = parquet(**texts, label=[2, 2, 0])
    hub.files[f"{GLUE}/mnli/test_matched-00000-of-00001.parquet"] = parquet(**texts, label=[-1, -1, -1])
    train, dev, test = printed(
        python(tmp_path, hub.endpoint, "-c", LOAD_SPLITS, "mnli/train", "mnli/dev_mismatched", "mnli/test_matched")
    )
    assert train["texts"] == dev["texts"] == test["texts"] == [["a", "b", "c"], ["d", "e", "f"]]
    assert train["labels"] == ["entailment", "neutral", "contradiction"]
    assert dev["labels"] == ["contradiction", "contradiction", "entailment"]
    assert test["labels"] is None


def test_a_score_stays_a_number(hub: Hub, tmp_path: Path) -> None:
    """STS-B's label is a float32: read as an integer it would lose its fraction."""
    texts = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    hub.files[f"{GLUE}/stsb/train-00000-of-00001.parquet"] = parquet(**texts, label=pa.array([3.8, 0], pa.float32()))
    (train,) = printed(python(tmp_path, hub.endpoint, "-c", LOAD_SPLITS, "stsb/train"))
    assert [float(label) for label in train["labels"]] == pytest.approx([3.8, 0])


def test_a_task_trains_with_model_and_data_from_the_hub(hub: Hub, model: Path, tmp_path: Path) -> None:
    """What the client prints on standard output would break the JSON, and its messages must not be shown."""
    hub.add_model(MODEL, model)
    hub.files[MRPC_TRAIN] = mrpc(40)
    hub.files[MRPC_TRAIN.replace("train", "validation")] = mrpc(12)
    done = python(tmp_path, hub.endpoint, *TRAIN, "--model", MODEL)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["task"], result["model"], result["split"]) == ("mrpc", MODEL, "dev")
    assert result["examples"] == {"train": 40, "dev": 12}
    assert result["notes"][:2] == [
        f"The model {MODEL} is the hub's at commit {COMMIT}.",
        f"nyu-mll/glue/mrpc/train-00000-of-00001.parquet is the hub's at commit {COMMIT}.",
    ]
    assert all(line.startswith(("train ", "evaluate ")) for line in done.stderr.splitlines()), done.stderr
    assert sorted(hub.requests) == sorted(f"{method} {file}" for method in ("GET", "HEAD") for file in hub.files)


def test_a_name_is_asked_of_the_hub_and_a_path_is_not(hub: Hub, model: Path, tmp_path: Path) -> None:
    """Guards against sending a mistyped path to a server, and against preferring a hub model to a directory of its name."""
    hub.add_model("tiny", model)
    hub.add_model(MODEL, model)
    (tmp_path / MODEL).mkdir(parents=True)
    tiny, *others = printed(
        python(tmp_path, hub.endpoint, "-c", LOAD_MODELS, "tiny", MODEL, "./tiny", "tiny/", "some/one/tiny", tmp_path / "x")
    )
    assert tiny > 0
    assert others[0] == (
        f"CheckpointError: {MODEL} is not a checkpoint: no config.json (it holds nothing); give the directory that holds it."
    )
    assert [other.split(" is not a directory;")[0] for other in others[1:]] == [
        f"CheckpointError: {path}" for path in ("tiny", "tiny", "some/one/tiny", tmp_path / "x")
    ]
    assert {request.split(" ")[1].partition("/")[0] for request in hub.requests} == {"tiny"}


def test_a_model_without_tokenizer_config_loads_again_offline(hub: Hub, model: Path, tmp_path: Path) -> None:
    """The cache must also record that the hub lacks this file. Offline it looked like a file that was not downloaded."""
    hub.add_model(MODEL, model)
    del hub.files[f"{MODEL}/tokenizer_config.json"]
    load = ("-c", LOAD_MODELS, MODEL)
    (weights,) = printed(python(tmp_path, hub.endpoint, *load))
    assert isinstance(weights, int)
    hub.requests.clear()
    assert printed(python(tmp_path, hub.endpoint, *load, HF_HUB_OFFLINE="1")) == [weights]
    assert hub.requests == []


def test_all_files_of_a_model_are_of_one_commit_which_is_said(hub: Hub, model: Path, tmp_path: Path) -> None:
    """Files requested at `main` could come from different commits: newly pushed weights beside the old config."""
    hub.add_model(MODEL, model)
    load = f"import logging; logging.basicConfig(level=logging.INFO)\n{LOAD_MODELS}"
    done = python(tmp_path, hub.endpoint, "-c", load, MODEL)
    assert done.returncode == 0, done.stderr
    assert f"The model {MODEL} is the hub's at commit {COMMIT}." in done.stderr
    asked = dict.fromkeys(zip((request.split("/")[-1] for request in hub.requests), hub.revisions, strict=True))
    assert [*asked] == [
        ("config.json", "main"),
        ("model.safetensors", COMMIT),
        ("tokenizer.json", COMMIT),
        ("tokenizer_config.json", COMMIT),
    ]
    hub.commit = COMMIT[::-1]
    hub.requests.clear()
    done = python(tmp_path, hub.endpoint, "-c", load, MODEL)
    assert f"The model {MODEL} is the hub's at commit {COMMIT[::-1]}." in done.stderr
    assert {request.split("/")[-1] for request in hub.requests} == {path.name for path in model.iterdir()}


def test_a_pinned_commit_is_kept_to_whatever_is_the_newest(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.add_model(MODEL, model)
    pinned = COMMIT[::-1]
    load = f"import logging; logging.basicConfig(level=logging.INFO)\n{LOAD_MODELS}"
    done = python(tmp_path, hub.endpoint, "-c", load, f"{MODEL}@{pinned}")
    assert done.returncode == 0, done.stderr
    assert f"is the hub's at commit {pinned}." in done.stderr
    assert {*hub.revisions} == {pinned}
    for revision in ("", "../main", "a b", "main/x"):
        (said,) = printed(python(tmp_path, hub.endpoint, "-c", LOAD_MODELS, f"{MODEL}@{revision}"))
        assert said.startswith(("HubError: ", "CheckpointError: "))


def test_offline_with_an_empty_cache_is_said_in_one_line(hub: Hub, model: Path, tmp_path: Path) -> None:
    """HF_HUB_OFFLINE must be respected, and the message must name the option that needs no hub, for a model or for data."""
    hub.add_model(MODEL, model)
    assert mistake(tmp_path, hub.endpoint, "--model", MODEL, HF_HUB_OFFLINE="1") == (
        f"The hub cannot be reached and {MODEL}/config.json is not in its cache: give a checkpoint directory with --model."
    )
    assert mistake(tmp_path, hub.endpoint, "--model", model, HF_HUB_OFFLINE="1") == (
        "The hub cannot be reached and nyu-mll/glue/mrpc/train-00000-of-00001.parquet is not in its cache: "
        "give GLUE's files with --data-dir."
    )
    assert hub.requests == []


def test_a_model_that_the_hub_lacks_hides_or_holds_in_part_is_said_in_one_line(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    """Four responses of the hub require four different actions by the user."""
    hub.add_model(MODEL, model)
    del hub.files[f"{MODEL}/model.safetensors"]
    hub.refusals["gated/tiny"] = 403, "GatedRepo"
    assert mistake(tmp_path, hub.endpoint, "--model", "nobody/tiny") == (
        "The hub has no model 'nobody/tiny', or it is private (`hf auth login`): give a checkpoint directory with --model."
    )
    assert mistake(tmp_path, hub.endpoint, "--model", MODEL) == (
        f"{MODEL} on the hub has no model.safetensors: "
        "choose a model with config.json, model.safetensors and tokenizer.json."
    )
    assert mistake(tmp_path, hub.endpoint, "--model", "gated/tiny") == (
        "gated/tiny is gated: accept its terms on the hub and log in with `hf auth login`."
    )


def test_other_answers_of_the_hub_are_errors_of_ours_too(hub: Hub, tmp_path: Path) -> None:
    """A gated repository returns 401 without a login. A broken connection is not an OSError in the client's library."""
    hub.refusals |= {"gated/tiny": (401, "GatedRepo"), "broken/tiny": None, "moved/tiny": (404, "RevisionNotFound")}
    names = ("gated/tiny", "broken/tiny", "moved/tiny", "not a/name")
    gated, broken, moved, unnamed = printed(python(tmp_path, hub.endpoint, "-c", LOAD_MODELS, *names))
    assert gated == "HubError: gated/tiny is gated: accept its terms on the hub and log in with `hf auth login`."
    for name, said in (("broken/tiny", broken), ("moved/tiny", moved)):
        assert said.startswith(f"HubError: {name}/config.json could not be downloaded from the hub (")
        assert said.endswith("): give a checkpoint directory with --model.")
        assert "\n" not in said
    assert unnamed == (
        "HubError: 'not a/name' is neither a directory nor a name on the hub (USER/NAME): "
        "give a checkpoint directory with --model."
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(mrpc()[:-6], " is not a readable Parquet file: ", id="cut off"),
        pytest.param(
            mrpc(sentence2=None),
            " has no column 'sentence2' (did you mean 'sentence1'?); found 'sentence1', 'label', 'idx'.",
            id="no column",
        ),
        pytest.param(
            mrpc(label=[0, 1, 2, 0]), ", row 3: 'label' is 2; 0 to 1 were expected, the numbers of its classes.", id="label"
        ),
        pytest.param(
            mrpc(sentence2=["a", "b", None, "d"]),
            ", row 3: the column 'sentence2' is null; a text was expected.",
            id="null",
        ),
    ],
)
def test_damaged_data_are_said_in_one_line_that_names_the_file(
    content: bytes, expected: str, hub: Hub, model: Path, tmp_path: Path
) -> None:
    """Guards against a traceback from Arrow, the text `None`, or training on a label of another task."""
    hub.files[MRPC_TRAIN] = content
    said = mistake(tmp_path, hub.endpoint, "--model", model)
    assert said.startswith("nyu-mll/glue/mrpc/train-00000-of-00001.parquet")
    assert expected in said


def test_missing_labels_rows_and_files_are_said(hub: Hub, tmp_path: Path) -> None:
    """A training set whose labels are missing, or hidden as in a test set, cannot be trained on."""
    hub.files[MRPC_TRAIN] = mrpc(label=None)
    hub.files[f"{GLUE}/mrpc/validation-00000-of-00001.parquet"] = mrpc(label=pa.array([0, None, 1, 1], pa.int64()))
    hub.files[f"{GLUE}/mrpc/test-00000-of-00001.parquet"] = mrpc(0)
    hub.files[f"{GLUE}/rte/train-00000-of-00001.parquet"] = mrpc(label=[0, -1, 1, 1])
    splits = ("mrpc/train", "mrpc/dev", "mrpc/test", "rte/train", "rte/dev")
    assert printed(python(tmp_path, hub.endpoint, "-c", LOAD_SPLITS, *splits)) == [
        "DataError: nyu-mll/glue/mrpc/train-00000-of-00001.parquet has no column 'label'; "
        "found 'sentence1', 'sentence2', 'idx'.",
        "DataError: nyu-mll/glue/mrpc/validation-00000-of-00001.parquet, row 2: "
        "the label is missing (null or -1); MRPC needs one.",
        "DataError: nyu-mll/glue/mrpc/test-00000-of-00001.parquet has no rows; at least one was expected.",
        "DataError: nyu-mll/glue/rte/train-00000-of-00001.parquet, row 2: the label is missing (null or -1); RTE needs one.",
        "HubError: nyu-mll/glue on the hub has no file rte/validation-00000-of-00001.parquet: "
        "give GLUE's files with --data-dir.",
    ]


def test_no_damage_to_a_file_makes_the_reader_fail_in_another_way(hub: Hub, tmp_path: Path) -> None:
    """A damaged page raises an OSError in Arrow, and a damaged text a UnicodeDecodeError."""
    hub.files[MRPC_TRAIN] = mrpc(40)
    outcomes = printed(python(tmp_path, hub.endpoint, "-c", DAMAGE))
    assert set(outcomes) == {"read", "in one line"}


def test_the_clients_own_log_is_there_for_who_asks_for_it(hub: Hub, tmp_path: Path) -> None:
    """Silencing the client permanently would also hide its warnings in a program that uses it for other purposes."""
    hub.files[MRPC_TRAIN] = mrpc()
    assert printed(python(tmp_path, hub.endpoint, "-c", VERBOSITY)) == logging.WARNING
    asked = python(tmp_path, hub.endpoint, "-c", VERBOSITY, HF_HUB_VERBOSITY="info")
    assert json.loads(asked.stdout) == logging.INFO
    assert "unauthenticated requests" in asked.stderr


@pytest.mark.slow
def test_an_endpoint_that_refuses_is_said_in_one_line(refused: subprocess.Popen[str]) -> None:
    """The client logs eleven lines about its retries, each of them twice if a program logs to standard error."""
    output, errors = refused.communicate(timeout=60)
    assert message(refused.returncode, output, errors) == (
        f"The hub cannot be reached and {MODEL}/config.json is not in its cache: give a checkpoint directory with --model."
    )
