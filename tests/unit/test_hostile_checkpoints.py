"""Untrusted checkpoints: real malicious files, loaded as users load them. Each is refused in one sentence without harm."""

import json
import logging
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isinglass.errors import CheckpointError, IsinglassError
from isinglass.models.checkpoint import load_checkpoint, save_checkpoint
from isinglass.models.source import load_model
from isinglass.names import printable
from tests.tiny import save_tiny

MIB = 2**20
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
SIZES = (
    "hidden_size",
    "vocab_size",
    "num_hidden_layers",
    "max_position_embeddings",
    "intermediate_size",
    "num_attention_heads",
)
LOAD_ALL = """
import json, sys
from isinglass.errors import IsinglassError
from isinglass.models.source import load_model
for name in sys.argv[1:]:
    try:
        load_model(name)
        print("loaded")
    except IsinglassError as error:
        print(error)
"""


class Payload:
    """An object that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sound"), "bert", labels=("0", "1"), max_position_embeddings=140)


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid checkpoint, for a test to damage."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def refusal(directory: Path, file: str) -> str:
    """Return the message with which `load_model` refuses a checkpoint. It must name the file and need little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            load_model(str(directory))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert str(directory / file) in said
    assert "\n" not in said
    assert len(said) < len(str(directory)) + 500
    print(peak / MIB)
    assert peak < 32 * MIB
    return said


def predict(directory: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `isinglass predict` on a pair of texts, in a process with a limit of one minute."""
    (home / "texts.tsv").write_text("a cat\ta dog\n")
    command = [sys.executable, "-m", "isinglass", "predict", directory, "--task", "mrpc", "--input", "texts.tsv"]
    return subprocess.run([*map(str, command)], cwd=home, capture_output=True, text=True, timeout=60)


def change_config(directory: Path, file: str = CONFIG, **changes: object) -> None:
    values = json.loads((directory / file).read_text()) | changes
    (directory / file).write_text(json.dumps(values))


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a safetensors file, whose header may be false."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[object], begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# Code


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG, TOKENIZER, "tokenizer_config.json", "pytorch_model.bin"])
def test_a_pickle_is_never_unpickled_whatever_it_is_called(file: str, model: Path, tmp_path: Path) -> None:
    """Unpickling runs code of the file: a checkpoint could do anything to the user's files."""
    marker, control = tmp_path / "was here", tmp_path / "control"
    pickle.loads(pickle.dumps(Payload(control))).close()
    assert control.exists()
    (model / file).write_bytes(pickle.dumps(Payload(marker)))
    if file == "pytorch_model.bin":
        (model / WEIGHTS).unlink()
        with pytest.raises(
            CheckpointError, match=r"no model\.safetensors \(it holds .*pytorch_model\.bin.*a pickle can run code"
        ):
            load_model(str(model))
    else:
        refusal(model, file)
    assert not marker.exists()


def test_code_beside_a_checkpoint_is_not_run_and_not_handed_on(model: Path, tmp_path: Path, caplog) -> None:
    """`auto_map` lets `transformers` import a file of the checkpoint. A run saved from it must not allow this later."""
    marker = tmp_path / "was here"
    (model / "modeling_x.py").write_text(f"open({str(marker)!r}, 'w')\nclass X: pass\nclass XTokenizer: pass\n")
    code = {"custom_code": True, "trust_remote_code": True, "custom_pipelines": {"x": {"impl": "modeling_x.X"}}}
    change_config(
        model, auto_map={"AutoModelForSequenceClassification": "modeling_x.X", "AutoConfig": "modeling_x.X"}, **code
    )
    change_config(model, "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_x.XTokenizer", None]}, **code)
    with caplog.at_level(logging.WARNING):
        checkpoint = load_model(str(model))
    assert (
        "names code of its own (auto_map, custom_code, custom_pipelines, trust_remote_code), which is not run" in caplog.text
    )
    assert "plain Bert" in caplog.text
    saved = tmp_path / "saved"
    saved.mkdir()
    save_checkpoint(checkpoint, checkpoint.weights, saved)
    for file in (CONFIG, "tokenizer_config.json"):
        assert not {"auto_map", *code} & json.loads((saved / file).read_text()).keys()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(saved)
    AutoTokenizer.from_pretrained(saved)
    assert not marker.exists()


# Weights


WEIGHT = entry([2, 3], 0, 24)
OVERLONG = {f"w{i}": entry([0], 0, 0) for i in range(20_000)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "its header would have 0 bytes, and the file has 0", id="empty"),
        pytest.param(b"\x10\0\0", "its header would have 16 bytes, and the file has 3", id="three bytes"),
        pytest.param(safetensors(b"{}", length=8 * 10**18), "would have 8,000,000,000,000,000,000 bytes", id="8 EB"),
        pytest.param(safetensors(b"{}" * 500, length=100 * MIB), "would have 104,857,600 bytes", id="100 MB in 1 kB"),
        pytest.param(safetensors(b"{}", length=2**64 - 1), "would have 18,446,744,073,709,551,615 bytes", id="2**64"),
        pytest.param(safetensors(b"not json"), "its header, line 1: not JSON", id="not JSON"),
        pytest.param(safetensors(b"\xff\xfe{}"), "its header is not UTF-8", id="not UTF-8"),
        pytest.param(safetensors([]), "its header: a JSON object was expected", id="list"),
        pytest.param(safetensors(b"null"), "its header is null", id="null"),
        pytest.param(safetensors(b'{"a":' + b"[" * 10**6), "its header", id="endless nesting"),
        pytest.param(safetensors(b'{"a":' * 900 + b"1" + b"}" * 900), "nests more than 32 levels", id="nesting"),
        pytest.param(safetensors(b'{"a":1' + b"0" * 10**5 + b"}"), "thousands of digits", id="digits"),
        pytest.param(safetensors(b'{"a":NaN}'), "holds NaN; JSON has finite numbers only", id="NaN"),
        pytest.param(
            safetensors(b'{"w":' + json.dumps(WEIGHT).encode() + b',"w":' + json.dumps(WEIGHT).encode() + b"}", bytes(24)),
            "names 'w' twice",
            id="twice",
        ),
        pytest.param(safetensors(OVERLONG), "bytes; at most 1,000,000 were expected", id="20,000 arrays"),
        pytest.param(safetensors({"w": 7}), "'w' is of kind None", id="no entry"),
        pytest.param(safetensors({"w": entry([2, 3], 0, 24, "F64")}, bytes(24)), "'w' is of kind 'F64'", id="kind"),
        pytest.param(safetensors({"w": entry([2, 3], 0, 24, [1])}, bytes(24)), "'w' is of kind [1]", id="kind a list"),
        pytest.param(safetensors({"w": entry([2, 3], 0, 10**15)}, bytes(24)), "there are 24 bytes of data", id="beyond"),
        pytest.param(safetensors({"w": entry([2, 3], -24, 0)}, bytes(24)), "there are 24 bytes of data", id="before"),
        pytest.param(safetensors({"w": entry([2, 3], 24, 0)}, bytes(24)), "has those from 24 to 0", id="backwards"),
        pytest.param(safetensors({"w": entry([-2, -3], 0, 24)}, bytes(24)), "has shape [-2, -3]", id="negative"),
        pytest.param(safetensors({"w": entry([2.0, 3], 0, 24)}, bytes(24)), "has shape [2.0, 3]", id="float"),
        pytest.param(safetensors({"w": entry([True, 6], 0, 24)}, bytes(24)), "has shape [True, 6]", id="bool"),
        pytest.param(safetensors({"w": entry(["2", 3], 0, 24)}, bytes(24)), "has shape ['2', 3]", id="text"),
        pytest.param(safetensors({"w": {**WEIGHT, "shape": None}}, bytes(24)), "has shape None", id="no shape"),
        pytest.param(
            safetensors({"w": {**WEIGHT, "data_offsets": [0, 24, 24]}}, bytes(24)), "bytes [0, 24, 24]", id="offsets"
        ),
        pytest.param(
            safetensors({"w": entry([2, 4], 0, 24)}, bytes(24)), "takes 32 bytes, and has those from 0", id="too large"
        ),
        pytest.param(safetensors({"w": entry([2**62, 4], 0, 0)}), "has shape [4611686018427387904, 4]", id="overflow to 0"),
        pytest.param(safetensors({"w": entry([24] * 5, 0, 24)}, bytes(24)), "takes 31,850,496 bytes", id="large product"),
        pytest.param(safetensors({"w": entry([1] * 9, 0, 4)}, bytes(4)), "has shape [1, 1, 1, 1, 1, 1, ...]", id="axes"),
        pytest.param(safetensors({"v": WEIGHT, "w": entry([3], 12, 24)}, bytes(24)), "overlap at byte 12", id="overlap"),
        pytest.param(safetensors({"v": WEIGHT, "w": WEIGHT}, bytes(24)), "overlap at byte 0", id="the same bytes"),
        pytest.param(safetensors({"v": WEIGHT, "w": entry([1], 28, 32)}, bytes(32)), "leave a gap at byte 24", id="gap"),
        pytest.param(safetensors({"w": entry([1], 4, 8)}, bytes(8)), "leave a gap at byte 0", id="gap before"),
        pytest.param(safetensors({"w": WEIGHT}, bytes(30)), "its arrays end at byte 24 of 30", id="bytes after"),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(content: bytes, expected: str, model: Path) -> None:
    """Otherwise memory would be allocated as a header claims, or memory outside of the file would be read."""
    (model / WEIGHTS).write_bytes(content)
    assert expected in refusal(model, WEIGHTS)


def test_a_header_of_90_mb_is_not_read(model: Path) -> None:
    """A header of a million arrays takes a gigabyte as a dictionary, for a model that has none of them."""
    with open(model / WEIGHTS, "wb") as stream:
        stream.write(struct.pack("<Q", 90 * MIB))
        stream.truncate(8 + 90 * MIB)
    assert "its header has 94,371,840 bytes; at most 1,000,000 were expected" in refusal(model, WEIGHTS)


def test_reading_takes_no_more_memory_than_the_arrays_that_are_asked_for(model: Path) -> None:
    """Weights of a pretraining head, however large, must be skipped without reading them."""
    weights = load_file(model / WEIGHTS) | {"cls.huge": np.zeros((64, MIB // 4), np.float32)}
    save_file(weights, model / WEIGHTS)
    del weights
    tracemalloc.start()
    load_checkpoint(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (model / WEIGHTS).stat().st_size > 64 * MIB > 16 * peak


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_weight_that_is_not_finite_is_refused(value: float, kind: type, model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    spoilt = weights["bert.encoder.layer.1.output.dense.weight"].astype(kind)
    spoilt[3, 3] = value
    save_file(weights | {"bert.encoder.layer.1.output.dense.weight": spoilt}, model / WEIGHTS)
    assert "bert.encoder.layer.1.output.dense.weight holds NaN or infinity" in refusal(model, WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"classifier.weight": (2, 5)}, "classifier.weight has shape [2, 5]; config.json calls for [2, 24]", id="width"
        ),
        pytest.param({"classifier.weight": ()}, "classifier.weight has shape []", id="no axis"),
        pytest.param({"classifier.bias": (3,)}, "weight and bias of head.output have 2 and 3 rows", id="bias"),
        pytest.param({"classifier.bias": None}, "weight and bias of head.output have 2 and None rows", id="no bias"),
        pytest.param({"classifier.weight": (0, 24), "classifier.bias": (0,)}, "has shape [0, 24]", id="no output"),
        pytest.param({"bert.embeddings.LayerNorm.gamma": (24,)}, "holds a LayerNorm twice", id="two names"),
        pytest.param({"\x1b[2J" + "x" * 10**5: (1,)}, "the first '\\x1b[2Jxxxx", id="a name to print"),
    ],
)
def test_weights_that_make_no_model_are_refused(
    changes: dict[str, tuple[int, ...] | None], expected: str, model: Path
) -> None:
    """A head without a bias would cause a KeyError, and one of another width an error in the framework."""
    weights = load_file(model / WEIGHTS)
    for name, shape in changes.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = np.zeros(shape, np.float32)
    save_file(weights, model / WEIGHTS)
    assert expected in refusal(model, WEIGHTS)


# config.json


@pytest.mark.parametrize(
    "value",
    [
        *("1000000000000", "2147483647", "-1", "0", "24.0", '"24"', "true", "false", "null", "[]", "{}", "1e999", "NaN"),
        *("-Infinity", "1" + "0" * 4000, "1" + "0" * 10**5, "-" + "9" * 10**5, '"' + "x" * 10**6 + '"', "[" * 10**5),
        *("[" * 900 + "]" * 900, "[" * 31 + "]" * 31),
    ],
    ids=lambda value: value if len(value) < 15 else f"{value[:4]}... of {len(value)}",
)
def test_no_size_in_a_config_is_believed(value: str, model: Path) -> None:
    """Each size is compared with the shapes of the weights before memory is allocated or a loop runs up to it."""
    values = json.loads((model / CONFIG).read_text())
    for key in SIZES:
        (model / CONFIG).write_text(json.dumps(values | {key: "here"}).replace('"here"', value))
        refusal(model, "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": ["bert"]}, "model_type is ['bert']; the families served"),
        ({"model_type": "bert" * 10**6}, "model_type is 'bertbert"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": "roberta", "pad_token_id": "one"}, "pad_token_id is 'one'; a whole number"),
        ({"model_type": "roberta", "pad_token_id": [1]}, "pad_token_id is [1]; a whole number"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"hidden_act": {"gelu": 1}}, "hidden_act is {'gelu': 1}; served are gelu"),
        ({"hidden_act": "x" * 10**6}, "hidden_act is 'xxxx"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps is 1000"),
        ({"layer_norm_eps": -1e-12}, "layer_norm_eps is -1e-12; a number from 0 to 1"),
        ({"hidden_dropout_prob": 1e999}, "JSON has finite numbers only"),
        ({"hidden_dropout_prob": False}, "hidden_dropout_prob is False"),
        ({"position_embedding_type": ["absolute"]}, "position_embedding_type is ['absolute']"),
        ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers is 2147483647; a whole number from 1 to 1000"),
        ({"id2label": {str(i): "x" for i in range(10**5)}}, "id2label is {'0': 'x', '1': 'x', "),
        ({"id2label": ["0", "1"]}, "id2label is ['0', '1']; the head has 2 outputs"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "a label in id2label is ['b']"),
    ],
)
def test_a_config_of_the_wrong_kinds_is_said_in_one_sentence(changes: dict[str, object], expected: str, model: Path) -> None:
    change_config(model, **changes)
    assert expected in refusal(model, WEIGHTS if "weights" in expected else CONFIG)


def test_a_config_that_names_a_size_twice_is_refused(model: Path) -> None:
    """Given two values, one reader uses the first and another the last."""
    text = (model / CONFIG).read_text()
    (model / CONFIG).write_text(text.replace('"hidden_size"', '"hidden_size": 48, "hidden_size"', 1))
    assert "names 'hidden_size' twice" in refusal(model, CONFIG)


@pytest.mark.parametrize("file", [CONFIG, TOKENIZER, "tokenizer_config.json"])
def test_a_file_of_a_gigabyte_is_not_read(file: str, model: Path) -> None:
    os.truncate(model / file, 2**30)
    assert "has 1,073,741,824 bytes, and at most" in refusal(model, file)


@pytest.mark.parametrize(
    "label", ["\x1b]0;pwned\x07", "a\tb", "a\nb", "a\rb", "\u202eyes", "\u2066yes", "\u2028", "\0", "\ud800"]
)
def test_a_label_that_would_forge_output_is_refused(label: str, model: Path) -> None:
    """Labels are printed and written to tab-separated files: a tab would add a column, and a line break a row."""
    change_config(model, id2label={"0": "no", "1": label})
    assert "a label in id2label is" in refusal(model, CONFIG)
    assert label not in refusal(model, CONFIG)


def test_labels_of_any_language_load(model: Path) -> None:
    labels = ("нет, [bold]нет[/bold]", "是 🙂")
    change_config(model, id2label=dict(enumerate(labels)))
    assert load_checkpoint(model).label_names == labels


# Names and special files


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../etc",
            "a/../../b",
            "a/..",
            "..",
            "./",
            "/etc/passwd",
            "/dev/zero",
            "~nobody-of-that-name/x",
            "",
            "a\0b",
            "/a\0b",
        ),
        *("a\nb", "a\nb/c", "\x1b]0;pwned\x07", "\u202ea/b", "a\udcff", "a" * 10_000, "/" + "a" * 10_000, "a/" * 5_000),
        *("a" * 200, "a/" + "b" * 3_000, "https://example.org/x", "datasets/x", "a/b@main", "a?b", "a%2f..%2fb"),
    ],
    ids=lambda name: ascii(name[:20]),
)
def test_no_name_leads_astray(name: str, tmp_path: Path, monkeypatch) -> None:
    """A name must not lead out of the hub's cache or to a traceback. The hub cannot be reached here."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsinglassError) as caught:
        load_model(name)
    said = printable(str(caught.value))
    assert "\n" not in said
    assert len(said) < 10_500
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, TOKENIZER, "tokenizer_config.json"])
def test_what_is_no_regular_file_is_not_opened(file: str, sound: Path, tmp_path: Path) -> None:
    """Reading a pipe would block forever, and reading /dev/zero would fill the memory."""
    spoil: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "directory": Path.mkdir,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "broken link": lambda path: path.symlink_to("nowhere"),
        "loop": lambda path: path.symlink_to(path),
    }
    for name, put in spoil.items():
        shutil.copytree(sound, tmp_path / name)
        (tmp_path / name / file).unlink()
        put(tmp_path / name / file)
    command = [sys.executable, "-c", LOAD_ALL, *(str(tmp_path / name) for name in spoil)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    expected = [f"{tmp_path / name / file} is not a regular file: put the file itself there." for name in spoil]
    assert done.stdout.splitlines() == expected


def test_a_link_to_a_file_is_the_users_own(model: Path, tmp_path: Path) -> None:
    """The hub's cache consists of such links."""
    (model / WEIGHTS).rename(tmp_path / "elsewhere")
    (model / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    load_checkpoint(model)


# Random damage, and the command line


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_no_damage_makes_loading_fail_in_another_way(file: str, model: Path) -> None:
    """Whatever bytes are changed, removed or repeated, the checkpoint must load or be refused in one sentence."""
    whole = (model / file).read_bytes()
    rng = random.Random(0)
    said = []
    for _ in range(150):
        content = bytearray(whole)
        reach = min(len(whole), rng.choice((64, 4000)))
        for at in rng.choices(range(reach), k=rng.choice((1, 3, 20))):
            content[at] = rng.choice((rng.randrange(256), ord(rng.choice('{}[]",:0-9e'))))
        start, stop = sorted(rng.choices(range(reach), k=2))
        content[start:stop] = rng.choice((content[start:stop],) * 4 + (b"", content[start:stop] * 2))
        (model / file).write_bytes(content)
        try:
            load_checkpoint(model)
        except CheckpointError as error:
            said.append(str(error))
    assert len(said) > 100
    assert not any("\n" in one for one in said)


def pickled(model: Path) -> None:
    (model / WEIGHTS).write_bytes(pickle.dumps(Payload(model.parent / "was here")))


def piped(model: Path) -> None:
    (model / CONFIG).unlink()
    os.mkfifo(model / CONFIG)


def oversized(model: Path) -> None:
    change_config(model, num_hidden_layers=10**12)


def forged(model: Path) -> None:
    change_config(model, id2label={"0": "0", "1": "\x1b]0;pwned\x07\t1\n"})


def exponential(model: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    change_config(model, TOKENIZER, pre_tokenizer=split)


def unknown(model: Path) -> None:
    tokens = json.loads((model / TOKENIZER).read_text())["model"]
    change_config(model, TOKENIZER, model=tokens | {"unk_token": "\x1b[31m"})


@pytest.mark.parametrize(
    "spoil", [pickled, piped, oversized, forged, exponential, unknown], ids=lambda spoil: spoil.__name__
)
def test_the_command_line_says_it_in_one_line(spoil: Callable[[Path], None], model: Path, tmp_path: Path) -> None:
    """The exit status must be 2, without standard output, a traceback, or anything that a terminal would interpret."""
    spoil(model)
    done = predict(model, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"isinglass: {model}")
    assert done.stderr.rstrip("\n").isprintable()
    assert not (tmp_path / "was here").exists()


def test_a_sound_checkpoint_answers_all_the_same(model: Path, tmp_path: Path) -> None:
    done = predict(model, tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_what_a_terminal_would_obey_is_printed_as_text() -> None:
    """Escape sequences set titles and colours, and bidirectional marks make one text look like another."""
    marks = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029\ufeff\u200b\u00a0\ud800"
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    for character in (*marks, *controls):
        assert printable(f"a{character}b").isprintable()
        assert character not in printable(character)
    assert printable("[bold]Größe 是 🙂[/bold]") == "[bold]Größe 是 🙂[/bold]"
