"""Data sets of the hub by name, in separate processes, with a local server that responds as the hub does."""

import io
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import COMMIT, CONVERTED, Hub, python, serving
from tests.tiny import save_tiny

NEWS = "fancyzhx/ag_news"
NAMES = ("World", "Sports", "Business")
QUICK = ("--epochs", "1", "--max-length", "24")
READ = """
import json, sys
from isinglass.config import resolve
from isinglass.data import open_data
from isinglass.errors import IsinglassError
found = []
for flags in map(json.loads, sys.argv[1:]):
    try:
        data = open_data(resolve(task="own", flags=flags))
        splits = {split.name: data.read(split) for split in data.task.splits}
        found.append({
            "labels": {name: examples.labels for name, examples in splits.items()},
            "first": {name: examples.where(0) for name, examples in splits.items()},
            "kind": data.task.kind.name,
            "notes": data.notes,
            "dataset": vars(data.dataset),
        })
    except IsinglassError as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def parquet(labels: object, features: Mapping[str, object] | None = None, **columns: object) -> bytes:
    """Return a Parquet file of texts and labels. `features` are noted as the library `datasets` does."""
    count = len(labels)
    table = pa.table({"text": [f"the cat w{i} sleeps" for i in range(count)], "label": labels, **columns})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def classes(names: tuple[str, ...] = NAMES) -> dict[str, object]:
    return {"label": {"names": [*names], "_type": "ClassLabel"}}


def card(text: str) -> bytes:
    return f"---\n{text}\n---\n# A data set\n".encode()


def card_of(*subsets: str, default: str | None = None, names: tuple[str, ...] = NAMES) -> bytes:
    """Return a card that names the files of subsets, and their classes."""
    lines = ["configs:"]
    for subset in subsets:
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split in ("train", "validation", "test"):
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
        lines += ["  default: true"] if subset == default else []
    lines.append("dataset_info:")
    for subset in subsets:
        lines += [f"- config_name: {subset}", "  features:", "  - name: label", "    dtype:", "      class_label:"]
        lines += ["        names:", *(f"          '{number}': {name}" for number, name in enumerate(names))]
    return card("\n".join(lines))


def add(hub: Hub, repo: str, **files: bytes | dict[str, bytes]) -> None:
    """Add a data set: `card` becomes its README.md, `files` the others."""
    content = dict(files.get("files", {}))
    if "card" in files:
        content["README.md"] = files["card"]
    hub.files |= {f"datasets/{repo}/{name}": value for name, value in content.items()}


def ints(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int64())


def read(home: Path, hub: Hub, *settings: Mapping[str, Any], **variables: str) -> list[Any]:
    """Return what `READ` prints for each of the settings."""
    done = python(home, hub.endpoint, "-c", READ, *map(json.dumps, settings), **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def news(hub: Hub) -> Hub:
    """A hub with a data set in two shards for training, and a test set."""
    files = {
        "data/train-00000-of-00002.parquet": parquet(ints(*[i % 3 for i in range(20)])),
        "data/train-00001-of-00002.parquet": parquet(ints(*[i % 3 for i in range(10)])),
        "data/test-00000-of-00001.parquet": parquet(ints(2, 1, 0, 1)),
    }
    names = "".join(f"          '{number}': {name}\n" for number, name in enumerate(NAMES))
    text = f"dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n{names}"
    add(hub, NEWS, card=card(text), files=files)
    return hub


def test_a_data_set_is_trained_on_by_its_name(news: Hub, model: Path, tmp_path: Path) -> None:
    """The commit, the subset and the names of the classes must be in the result; a finished run reads the same rows."""
    train = ("train", "--dataset", NEWS, "--model", model, *QUICK, "--output-dir", "run", "--json")
    done = python(tmp_path, news.endpoint, "-m", "isinglass", *train)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["task"] == "ag_news"
    assert result["examples"] == {"train": 27, "dev": 3, "test": 4}
    assert result["dataset"] == {"repo": NEWS, "subset": "default", "commit": COMMIT}
    assert f"The data set {NEWS} is the hub's at commit {COMMIT}." in result["notes"]
    assert [*json.loads((tmp_path / "run/model/config.json").read_text())["label2id"]] == sorted(NAMES)
    metadata = (tmp_path / "run/model/README.md").read_text()
    assert f"datasets:\n- {NEWS}" in metadata
    assert f"revision: {COMMIT}" in metadata
    news.commit = COMMIT[::-1]  # newer files, which are not those of the run
    news.requests.clear()
    done = python(tmp_path, news.endpoint, "-m", "isinglass", "evaluate", "run", "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["test"] == result["scores"]["test"]
    assert news.requests == []
    done = python(tmp_path, news.endpoint, "-m", "isinglass", "predict", "run", HF_HUB_OFFLINE="1")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5), done.stderr


def test_a_data_set_is_read_from_the_cache_without_the_hub(news: Hub, tmp_path: Path) -> None:
    """The list of the files must be cached too: the client's cache does not tell which files belong to a data set."""
    (first,) = read(tmp_path, news, {"dataset": NEWS})
    news.requests.clear()
    assert read(tmp_path, news, {"dataset": NEWS}, HF_HUB_OFFLINE="1") == [first]
    pinned = {"dataset": f"{NEWS}@{COMMIT}"}
    assert read(tmp_path, news, pinned, HF_HUB_OFFLINE="1") == [first]
    news.refusals[f"datasets/{NEWS}"] = None
    assert read(tmp_path, news, {"dataset": NEWS})[0]["notes"] == first["notes"]
    (tmp_path / "empty").mkdir()
    assert read(tmp_path / "empty", news, {"dataset": NEWS}, HF_HUB_OFFLINE="1") == [
        f"HubError: The hub cannot be reached and {NEWS} is not in its cache: "
        "check the name, or give files with --train-file."
    ]


def test_all_files_are_of_one_commit(news: Hub, tmp_path: Path) -> None:
    pinned = COMMIT[::-1]
    (found,) = read(tmp_path, news, {"dataset": f"{NEWS}@{pinned}"})
    assert found["dataset"]["commit"] == pinned
    assert {*news.revisions} == {pinned}
    assert read(tmp_path, news, {"dataset": f"{NEWS}@gone"}, {"dataset": f"{NEWS}@a b"}) == [
        f"HubError: {NEWS} on the hub has no commit, tag or branch 'gone': check the name, or give files with --train-file.",
        f"HubError: '{NEWS}@a b': a commit, a tag or a branch was expected after the @.",
    ]


def test_splits_are_used_by_their_names_and_replaced_by_files(hub: Hub, tmp_path: Path) -> None:
    """Files of a user's own in the place of a split, whose labels are names, belong to the same classes."""
    splits = {"train": [0, 1, 2, 1, 0], "validation": [1, 2], "test": [-1, -1], "unsupervised": [-1]}
    files = {f"plain/{name}-00000-of-00001.parquet": parquet(ints(*labels)) for name, labels in splits.items()}
    text = card_of("plain").replace(b"- split: test", b"- split: unsupervised\n    path: plain/uns*\n  - split: test")
    add(hub, "someone/reviews", card=text, files=files)
    (tmp_path / "mine.csv").write_text("text,label\na cat,Sports\na dog,World\n")
    name = {"dataset": "someone/reviews"}
    whole, replaced = read(tmp_path, hub, name, name | {"test_file": "mine.csv", "validation_file": "mine.csv"}, {})[:2]
    assert whole["labels"] == {
        "train": ["World", "Sports", "Business", "Sports", "World"],
        "dev": ["Sports", "Business"],
        "test": None,  # -1 is no class
    }
    assert "Splits of the data set that are not used: 'unsupervised'." in whole["notes"]
    assert whole["first"]["dev"] == "someone/reviews/plain/validation-00000-of-00001.parquet, row 1"
    assert replaced == "DataError: mine.csv is both dev and test set: a score on it would tell nothing."
    (replaced,) = read(tmp_path, hub, name | {"test_file": "mine.csv"})
    assert (replaced["labels"]["test"], replaced["labels"]["dev"]) == (["Sports", "World"], ["Sports", "Business"])


def test_names_of_classes_come_from_the_card_or_else_from_the_files(hub: Hub, tmp_path: Path) -> None:
    """A list of classes, as several libraries wrote it, makes a task of several labels."""
    lists = pa.array([[0], [2, 1], [], [1]], pa.list_(pa.int64()))
    label = classes()["label"]
    forms = {
        "List": {"feature": label, "_type": "List"},
        "Sequence": {"feature": label, "_type": "Sequence"},
        "old": [label],
    }
    for form, feature in forms.items():
        add(hub, f"lists/{form}", files={"train.parquet": parquet(lists, {"label": feature, "text": {"_type": "Value"}})})
    names = "".join(f"        '{number}': {name}\n" for number, name in enumerate(NAMES))
    yaml = f"dataset_info:\n- features:\n  - name: label\n    sequence:\n      class_label:\n       names:\n{names}"
    add(hub, "lists/card", card=card(yaml), files={"train.parquet": parquet(lists)})
    for found in read(tmp_path, hub, *({"dataset": f"lists/{form}"} for form in (*forms, "card"))):
        assert found["kind"] == "multilabel"
        rows = [*found["labels"]["train"], *found["labels"]["dev"]]
        assert sorted(rows) == [[], ["Business", "Sports"], ["Sports"], ["World"]]
    other = ("a", "b", "c")
    file = parquet(ints(0, 1, 2, 1, 0, 2), classes(other))
    add(hub, "both/card", card=card_of("default"), files={"default/train-00000-of-00001.parquet": file})
    add(hub, "only/file", files={"train.parquet": file})
    both, file_only = read(tmp_path, hub, {"dataset": "both/card"}, {"dataset": "only/file"})
    assert {*both["labels"]["train"]} == {*NAMES}  # as the library `datasets` has it
    assert {*file_only["labels"]["train"]} == {*other}


def test_what_the_hub_converted_is_read_where_there_is_no_parquet(hub: Hub, tmp_path: Path) -> None:
    """The converted files have commits of their own: a run is pinned to theirs, and finds the subset without a card."""
    add(hub, "some/csv", card=card_of("a", "b", default="b"), files={"a.csv": b"x", "b.csv": b"x"})
    for subset, names in {"a": NAMES, "b": NAMES[::-1]}.items():
        for split in ("train", "partial-test"):
            content = parquet(ints(0, 1, 2, 1, 0, 2), classes(names), split=[split] * 6)
            hub.converted[f"datasets/some/csv/{subset}/{split}/0000.parquet"] = content
    add(hub, "no/parquet", files={"a.csv": b"x"})
    default, a, unknown, none, pinned = read(
        tmp_path,
        hub,
        {"dataset": "some/csv"},
        {"dataset": "some/csv", "subset": "a"},
        {"dataset": "some/csv", "subset": "A1"},
        {"dataset": "no/parquet"},
        {"dataset": f"some/csv@{COMMIT}"},
    )
    assert isinstance(default, dict), default
    assert default["dataset"] == {"repo": "some/csv", "subset": "b", "commit": CONVERTED}
    assert default["labels"]["test"] == [NAMES[2 - number] for number in (0, 1, 2, 1, 0, 2)]
    assert default["notes"][:3] == [
        f"The data set some/csv has no Parquet files; those that the hub made of it are of commit {CONVERTED}.",
        "Subset: 'b', the data set's default; others are 'a' (--subset).",
        "Of very large data sets the hub converts a part only: the splits 'test' are not complete.",
    ]
    assert a["labels"]["test"] == [NAMES[number] for number in (0, 1, 2, 1, 0, 2)]
    assert unknown == "HubError: some/csv has no subset 'A1' (did you mean 'a'?); it has 'a', 'b'."
    assert none == (
        "HubError: no/parquet on the hub has no Parquet files, and the hub made none (refs/convert/parquet): "
        "download its files, and give them with --train-file."
    )
    assert pinned == (
        f"HubError: some/csv has no Parquet files at {COMMIT}: leave the revision out, or give files with --train-file."
    )
    (again,) = read(tmp_path, hub, {"dataset": f"some/csv@{CONVERTED}", "subset": "b"}, HF_HUB_OFFLINE="1")
    assert again["labels"] == default["labels"]


MISTAKES = [
    (
        {"dataset": "two/subsets"},
        "HubError: two/subsets has 2 subsets: name one with --subset; they are 'raw', 'simple'.",
    ),
    (
        {"dataset": "two/subsets", "subset": "simpel"},
        "HubError: two/subsets has no subset 'simpel' (did you mean 'simple'?); it has 'raw', 'simple'.",
    ),
    (
        {"dataset": "only/test"},
        "HubError: only/test (subset 'default') has no train set among its splits 'extra', 'test': "
        "give one with --train-file.",
    ),
    (
        {"dataset": "gated/one"},
        "HubError: gated/one is gated: accept its terms on the hub and log in with `hf auth login`.",
    ),
    (
        {"dataset": "nobody/has"},
        "HubError: The hub has no dataset 'nobody/has', or it is private (`hf auth login`): "
        "check the name, or give files with --train-file.",
    ),
    ({"dataset": "busy/hub"}, "HubError: busy/hub could not be looked up on the hub ("),
    (
        {"dataset": "./reviews.csv"},
        "HubError: dataset is './reviews.csv'; a name on the hub (USER/NAME) was expected: give files with --train-file.",
    ),
    ({"dataset": "not a/name"}, "HubError: 'not a/name' is neither a directory nor a name on the hub"),
    (
        {"dataset": "many/classes"},
        "DataError: many/classes/train.parquet, row 3: 'label' is 3; 0 to 2 were expected, the numbers of its classes.",
    ),
    (
        {"dataset": "no/label"},
        "DataError: no/label/train.parquet, row 2: the column 'label' is empty: fill it in, or leave such rows out with "
        "--drop-incomplete.",
    ),
    ({"dataset": "bad/yaml"}, "DataError: bad/yaml/README.md: the YAML at its top cannot be read ("),
    (
        {"dataset": "bad/configs"},
        "DataError: bad/configs/README.md: configs.0.config_name is {'data_files': 'x'}, which is not understood: "
        "name another commit",
    ),
    (
        {"dataset": "bad/names"},
        "DataError: bad/names/README.md: the classes of 'label' are not understood (two have the same name): ",
    ),
    (
        {"dataset": "bad/metadata"},
        "DataError: bad/metadata/train.parquet: the features in its metadata cannot be read (",
    ),
    ({"dataset": "cut/off"}, "DataError: cut/off/train.parquet (at "),
]


def test_mistakes_are_said_in_one_sentence(hub: Hub, tmp_path: Path) -> None:
    """Nothing about a data set that cannot be had, or read, ends in a traceback or in another choice made in silence."""
    good = parquet(ints(0, 1, 2, 1, 0, 2), classes())
    subsets = {f"{subset}/train-00000-of-00001.parquet": good for subset in ("raw", "simple")}
    add(hub, "two/subsets", card=card_of("raw", "simple"), files=subsets)
    add(hub, "only/test", files={"test.parquet": good, "extra.parquet": good})
    for name in ("gated/one", "busy/hub"):
        add(hub, name, files={"train.parquet": good})
    hub.refusals |= {"datasets/gated/one": (403, "GatedRepo"), "datasets/busy/hub": (500, "")}
    add(hub, "many/classes", files={"train.parquet": parquet(ints(0, 1, 3), classes())})
    add(hub, "no/label", files={"train.parquet": parquet(ints(0, -1, 2), classes())})
    add(hub, "bad/yaml", card=card("a: [b"), files={"train.parquet": good})
    add(hub, "bad/configs", card=card("configs:\n- data_files: x"), files={"train.parquet": good})
    twice = card_of("default", names=("a", "b", "a"))
    add(hub, "bad/names", card=twice, files={"default/train-00000-of-00001.parquet": good})
    add(hub, "bad/metadata", files={"train.parquet": parquet(ints(0, 1), [1])})
    add(hub, "cut/off", files={"train.parquet": good[:-6]})
    for found, (_, expected) in zip(read(tmp_path, hub, *(flags for flags, _ in MISTAKES)), MISTAKES, strict=True):
        assert found[: len(expected)] == expected
        assert "\n" not in found


def test_settings_that_need_a_data_set_say_so(hub: Hub, tmp_path: Path) -> None:
    assert read(tmp_path, hub, {"subset": "a"}, {"dataset": NEWS, "data_dir": "x"}, {"test_file": "x.csv"}) == [
        "ConfigError: subset is a part of a data set on the hub: name that with --dataset.",
        "ConfigError: data_dir is for GLUE's layout and dataset for a data set of the hub: leave one of them out.",
        "ConfigError: validation_file and test_file belong to a train_file or a dataset: name that too.",
    ]


@pytest.mark.slow
def test_a_data_set_is_tuned_and_benched_by_its_name(news: Hub, model: Path, tmp_path: Path) -> None:
    """A search must not read the test set, and its recipe is for any data; the runs of a bench read the same rows."""
    tune = ("tune", "--dataset", NEWS, "--model", model, "--trials", "1", "--search", "epochs=1:2", "--set", "max_length=24")
    done = python(tmp_path, news.endpoint, "-m", "isinglass", *tune)
    assert done.returncode == 0, done.stderr
    assert not any("data/test" in request for request in news.requests)
    assert "dataset" not in tomllib.loads((tmp_path / "tune/ag_news/recipe.toml").read_text())
    bench = ("bench", "--dataset", NEWS, "--models", model, "--set", "epochs=1", "--set", "max_length=24", "--predict-test")
    done = python(tmp_path, news.endpoint, "-m", "isinglass", *bench)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "bench/ag_news/results.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert (result["dataset"]["repo"], {*result["predictions"]}) == (NEWS, {"dev", "test"})
    done = python(tmp_path, news.endpoint, "-m", "isinglass", *bench)
    assert len((tmp_path / "bench/ag_news/results.jsonl").read_text().splitlines()) == 1
