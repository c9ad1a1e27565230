"""The export to ONNX: the same logits in another engine, and an output directory that is complete or absent."""

import errno
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from isinglass.config import TrainConfig
from isinglass.errors import CheckpointError, MissingDependencyError, OutputExistsError, StorageError
from isinglass.export import onnx as export
from isinglass.export.compare import onnx_outputs
from isinglass.export.onnx import AXES, INT8, MODEL, OPSET, export_onnx, export_run, quantize
from isinglass.models.checkpoint import Checkpoint, load_checkpoint
from isinglass.runs.directory import FinishedModel
from isinglass.tasks import get_task
from tests.backends.variants import backend_for, in_file_order, pack
from tests.parity.test_transformers_parity import reference_logits, save_reference
from tests.tiny import FAMILIES, random_tokens, reference_model, save_tiny, tiny_config, tiny_tokenizer, types_of

BESIDE = {"config.json", "tokenizer.json"}
LABELS = ("not_entailment", "entailment")  # RTE's labels, not in the task's order


def some_tokens(family: str, longest: int = 70, seed: int = 0):
    lengths = np.random.default_rng(seed).integers(1, longest + 1, 30).tolist()
    return random_tokens([1, longest, *lengths], seed, types=types_of(family))


def exported(checkpoint: Checkpoint, directory: Path) -> Path:
    directory.mkdir()
    return export_onnx(checkpoint, directory)


def finished(directory: Path, family: str = "bert", **changes: object) -> FinishedModel:
    return FinishedModel(
        checkpoint=load_checkpoint(save_tiny(directory, family, labels=LABELS, **changes)),
        config=TrainConfig(max_length=64),
        task=get_task("rte"),
    )


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_the_torch_backend(family: str, tmp_path: Path) -> None:
    """Covers examples from one token to the maximum length, alone and among others that cause padding."""
    _, checkpoint = save_reference(tmp_path / "reference", family)
    tokens = some_tokens(family, checkpoint.blueprint.max_length)
    batch = pack("torch-flat", tokens, np.arange(len(tokens)), None)
    expected = in_file_order(batch, backend_for("torch-flat", checkpoint).predict([batch])[0])

    path = exported(checkpoint, tmp_path / "onnx")
    onnx.checker.check_model(path, full_check=True)
    types = {"token_type_ids"} if family in ("bert", "electra") else set()
    assert {one.name for one in onnx.load(path).graph.input} == {"input_ids", "attention_mask"} | types
    for batch_size in (1, 7, 64):
        found = onnx_outputs(path, tokens, checkpoint.blueprint.embeddings.pad_token_id, batch_size=batch_size, threads=1)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *(("bert", {"hidden_act": name}) for name in ("gelu_new", "gelu_python", "relu", "silu", "swish", "tanh")),
        ("bert", {"layer_norm_eps": 0.5}),
        ("bert", {"type_vocab_size": 5}),
        ("bert", {"type_vocab_size": 1}),
        ("bert", {"num_hidden_layers": 1}),
        ("roberta", {"pad_token_id": 3}),
        ("roberta", {"type_vocab_size": 2}),
        ("electra", {"embedding_size": 24}),
        ("distilbert", {"activation": "relu"}),
    ],
)
def test_every_config_value_counts(family: str, changes: dict[str, object], tmp_path: Path) -> None:
    """Guards against a value that the graph ignores: each change must move the reference's logits and ours alike."""
    model, checkpoint = save_reference(tmp_path / "reference", family, **changes)
    tokens = random_tokens([5, 1, 17, 40, 2], types=max(1, checkpoint.blueprint.embeddings.token_types))
    path = exported(checkpoint, tmp_path / "onnx")
    found = onnx_outputs(path, tokens, checkpoint.blueprint.embeddings.pad_token_id, threads=1)
    np.testing.assert_allclose(found, reference_logits(model, tokens, family).detach().numpy(), rtol=0, atol=1e-5)


def test_a_regression_has_one_output_and_no_labels(tmp_path: Path) -> None:
    """The prediction is the output itself, as in `transformers`."""
    model = reference_model(tiny_config("distilbert"), num_labels=1)
    model.save_pretrained(tmp_path / "reference")
    tiny_tokenizer("distilbert").save(str(tmp_path / "reference" / "tokenizer.json"))
    path = exported(load_checkpoint(tmp_path / "reference"), tmp_path / "onnx")
    tokens = random_tokens([3, 30, 1])
    found = onnx_outputs(path, tokens, 0, threads=1)
    assert found.shape == (3, 1)
    np.testing.assert_allclose(found, reference_logits(model, tokens, "distilbert").detach().numpy(), rtol=0, atol=1e-5)
    assert {prop.key for prop in onnx.load(path).metadata_props} == {"max_length", "problem_type"}
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["problem_type"] == "regression"


def test_an_attention_mask_of_nothing_gives_finite_numbers(tmp_path: Path) -> None:
    """Guards against 0 / 0 in the softmax, because a server may fill a batch with examples that are all padding."""
    _, checkpoint = save_reference(tmp_path / "reference", "bert")
    session = onnxruntime.InferenceSession(exported(checkpoint, tmp_path / "onnx"))
    ids = np.arange(12).reshape(2, 6)
    mask = np.array([[1] * 6, [0] * 6])
    both, one = (
        session.run(None, {"input_ids": ids[:n], "attention_mask": mask[:n], "token_type_ids": ids[:n] * 0})[0]
        for n in (2, 1)
    )
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both[:1], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_quantises_every_layer_and_mostly_agrees(family: str, tmp_path: Path) -> None:
    """Guards against a quantiser that leaves products in float32 because it does not see that their weights are constant."""
    sizes = (
        dict(dim=96, hidden_dim=384)
        if family == "distilbert"
        else dict(hidden_size=96, intermediate_size=384, embedding_size=96 if family == "bert" else 48)
    )
    _, checkpoint = save_reference(tmp_path / "reference", family, **sizes, initializer_range=0.05)
    directory = tmp_path / "onnx"
    full, small = exported(checkpoint, directory), quantize(directory)
    assert small == directory / INT8 and names_in(directory) == {MODEL, INT8, *BESIDE}
    onnx.checker.check_model(small, full_check=True)

    model = onnx.load(small)
    modules = checkpoint.blueprint.modules(num_outputs=3)
    linear = sum(parameter.role == "matrix" for module in modules for parameter in module.parameters)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["MatMulInteger"] == linear
    assert kinds["MatMul"] == 2 * checkpoint.blueprint.num_hidden_layers, "of activations with one another"
    assert small.stat().st_size < 0.45 * full.stat().st_size
    assert list(model.metadata_props) == list(onnx.load(full).metadata_props) and model.producer_name == "isinglass"

    tokens = some_tokens(family)
    expected, found = (
        onnx_outputs(path, tokens, checkpoint.blueprint.embeddings.pad_token_id, threads=1) for path in (full, small)
    )
    assert 0 < np.abs(found - expected).max() < 0.2 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_weights_that_one_file_cannot_hold_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """protobuf accepts no message of 2 GiB. This test lowers the limit."""
    model = finished(tmp_path / "model")
    plain = export_run(model, tmp_path / "plain", int8=True)
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    split = export_run(model, tmp_path / "split", int8=True)
    assert {path.name for path in plain.files} == {MODEL, INT8, "tokenizer_config.json", *BESIDE}
    assert {path.name for path in split.files} - {path.name for path in plain.files} == {f"{MODEL}_data", f"{INT8}_data"}
    assert (tmp_path / "split" / MODEL).stat().st_size < 0.5 * (tmp_path / "plain" / MODEL).stat().st_size
    tokens = random_tokens([5, 9])
    for name in (MODEL, INT8):
        outputs = [onnx_outputs(tmp_path / each / name, tokens, 0, threads=1) for each in ("plain", "split")]
        np.testing.assert_array_equal(*outputs)


def test_an_export_says_what_a_user_of_it_must_know(tmp_path: Path) -> None:
    """Axes, labels and length must be in the returned value, in the model itself and in config.json."""
    model = finished(tmp_path / "model")
    done = export_run(model, tmp_path / "onnx")
    assert {path.name for path in done.files} == names_in(tmp_path / "onnx") == {MODEL, "tokenizer_config.json", *BESIDE}
    assert (done.label_names, done.max_length) == (LABELS, 64)
    assert [each.version for each in onnx.load(tmp_path / "onnx" / MODEL).opset_import] == [OPSET]
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / MODEL)
    assert {one.name: tuple(one.shape) for one in session.get_inputs()} == dict.fromkeys(done.inputs, AXES)
    assert {one.type for one in session.get_inputs()} == {"tensor(int64)"}
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("logits", ["batch", 2])]
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties.pop("label_names")) == [*LABELS]
    assert properties == {"max_length": "64", "problem_type": "single_label_classification"}
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["id2label"] == {"0": LABELS[0], "1": LABELS[1]}
    assert names_in(tmp_path) == {"model", "onnx"}, "nothing is left beside it"


def test_a_tokenizer_of_transformers_feeds_the_model(tmp_path: Path) -> None:
    """The output of `AutoTokenizer` for the directory must match the inputs of the model by name and type."""
    from transformers import AutoTokenizer

    export_run(finished(tmp_path / "model"), tmp_path / "onnx")
    texts = ["the cat sleeps", "a dog"]
    inputs = AutoTokenizer.from_pretrained(tmp_path / "onnx")(texts, texts, padding=True, return_tensors="np")
    (logits,) = onnxruntime.InferenceSession(tmp_path / "onnx" / MODEL).run(None, dict(inputs))
    assert logits.shape == (2, 2)


def test_an_existing_output_is_refused_and_only_an_export_is_replaced(tmp_path: Path) -> None:
    """Guards against deleting a user's files by --overwrite."""
    model, directory = finished(tmp_path / "model"), tmp_path / "onnx"
    export_run(model, directory, int8=True)
    with pytest.raises(OutputExistsError, match=r"not empty.*--overwrite"):
        export_run(model, directory)
    export_run(model, directory, overwrite=True)
    assert INT8 not in names_in(directory), "of the earlier export nothing is left"

    (directory / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds 'notes\.txt' too"):
        export_run(model, directory, overwrite=True)
    with pytest.raises(OutputExistsError, match=f"no {MODEL}"):
        export_run(model, tmp_path / "model", overwrite=True)
    with pytest.raises(OutputExistsError, match="is a file"):
        export_run(model, directory / "notes.txt", overwrite=True)
    with pytest.raises(OutputExistsError, match="working directory"):
        export_run(model, Path(), overwrite=True)
    assert (directory / "notes.txt").read_text() == "mine"
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("file", [MODEL, INT8])
def test_a_full_disk_leaves_what_was_there(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file fills the disk, the earlier export must stay complete."""
    model, directory = finished(tmp_path / "model"), tmp_path / "onnx"
    export_run(model, directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    save = onnx.save

    def full(proto: onnx.ModelProto, path: Path, **options: object) -> None:
        if path.name == file:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(proto, path, **options)

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(StorageError, match="No space left on device"):
        export_run(model, directory, int8=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert names_in(tmp_path) == {"model", "onnx"}


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    """Guards against exporting random numbers."""
    checkpoint = load_checkpoint(save_tiny(tmp_path / "model"))
    with pytest.raises(CheckpointError, match="no trained classification head"):
        export_run(FinishedModel(checkpoint=checkpoint, config=TrainConfig(), task=get_task("rte")), tmp_path / "onnx")
    assert names_in(tmp_path) == {"model"}


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra must be named before anything is written."""
    model = finished(tmp_path / "model")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {package}: `pip install 'isinglass\[onnx\]'`"):
        export_run(model, tmp_path / "onnx", int8=True)
    assert names_in(tmp_path) == {"model"}
