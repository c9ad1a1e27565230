"""Our encoder against `transformers`' own classes with the same random weights: logits, loss and gradients in fp32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from isinglass.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from isinglass.models.files import read_header, read_safetensors
from tests.backends.gradients import loss_and_gradients
from tests.backends.variants import VARIANTS, backend_for, pack
from tests.tiny import FAMILIES, random_tokens, reference_model, save_tiny, tiny_config, tiny_tokenizer, types_of

LENGTHS = [5, 1, 17, 3, 40, 41, 8, 2]
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
INDEX = np.arange(len(LENGTHS))


def save_reference(directory: Path, family: str, **changes: object):
    """Save a reference model; return it and its checkpoint as loaded by isinglass."""
    model = reference_model(tiny_config(family, **changes))
    model.save_pretrained(directory)
    tiny_tokenizer(family).save(str(directory / "tokenizer.json"))
    return model, load_checkpoint(directory)


def padded_inputs(tokens, pad: int) -> dict[str, torch.Tensor]:
    """Return the examples as `transformers` expects them: padded to the longest, with a mask."""
    n, width = len(tokens), int(tokens.lengths.max())
    ids, types, mask = np.full((n, width), pad), np.zeros((n, width), int), np.zeros((n, width), int)
    for i in range(n):
        a, b = tokens.offsets[i], tokens.offsets[i + 1]
        ids[i, : b - a], types[i, : b - a], mask[i, : b - a] = tokens.input_ids[a:b], tokens.token_type_ids[a:b], 1
    return {k: torch.from_numpy(v) for k, v in {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}.items()}


def reference_logits(model, tokens, family: str) -> torch.Tensor:
    inputs = padded_inputs(tokens, model.config.pad_token_id)
    if family == "distilbert":
        del inputs["token_type_ids"]
    return model(**inputs).logits


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_those_of_transformers(family: str, variant: str, tmp_path: Path) -> None:
    """Guards against errors in names, fused weights, positions, masks, the first-token shortcut and backward passes."""
    model, checkpoint = save_reference(tmp_path, family)
    tokens = random_tokens(LENGTHS, types=types_of(family))
    batch = pack(variant, tokens, INDEX, LABELS, pad=model.config.pad_token_id)
    backend = backend_for(variant, checkpoint, batch_size=10)

    expected = reference_logits(model, tokens, family)
    logits = np.empty((len(LENGTHS), 3), np.float32)
    logits[batch.example_index] = backend.predict([batch])[0]
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=0, atol=1e-5)

    loss = F.cross_entropy(expected, torch.from_numpy(LABELS))
    loss.backward()
    found_loss, gradients = loss_and_gradients(backend, batch)
    assert found_loss == pytest.approx(loss.item(), abs=1e-6)
    names = names_in_files(checkpoint)
    compared = 0
    for canonical, found in gradients.items():
        reference = dict(model.named_parameters())[names[canonical]].grad
        expected_gradient = np.zeros_like(found) if reference is None else reference.numpy()
        scale = max(1.0, float(np.abs(expected_gradient).max()))
        np.testing.assert_allclose(found / scale, expected_gradient / scale, rtol=0, atol=1e-5, err_msg=canonical)
        compared += found.size
    assert compared == sum(p.numel() for p in model.parameters()), "every parameter was compared"


def names_in_files(checkpoint: Checkpoint) -> dict[str, str]:
    arrays = checkpoint.family.arrays(checkpoint.blueprint, 3)
    return {parameter.name: array.name for array in arrays for parameter in array.parameters}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *(("bert", {"hidden_act": name}) for name in ("gelu_new", "gelu_python", "relu", "silu", "gelu_pytorch_tanh")),
        ("bert", {"layer_norm_eps": 0.5}),
        ("bert", {"type_vocab_size": 5}),
        ("bert", {"pad_token_id": 7}),
        ("roberta", {"pad_token_id": 3}),
        ("xlm-roberta", {"pad_token_id": 0, "max_position_embeddings": 60}),
        ("electra", {"embedding_size": 24}),
        ("distilbert", {"activation": "relu"}),
    ],
)
@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]])
def test_every_config_value_counts(family: str, changes: dict[str, object], variant: str, tmp_path: Path) -> None:
    """Guards against a value that is read but not used: each change must move the reference's logits and ours alike."""
    model, checkpoint = save_reference(tmp_path, family, **changes)
    tokens = random_tokens(LENGTHS, types=types_of(family))
    batch = pack(variant, tokens, INDEX, None, pad=model.config.pad_token_id)
    expected = reference_logits(model, tokens, family).detach().numpy()[batch.example_index]
    np.testing.assert_allclose(backend_for(variant, checkpoint).predict([batch])[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_checkpoint_is_the_same_files_content(family: str, variant: str, tmp_path: Path) -> None:
    """Loading and saving must return every weight of the checkpoint under its own name."""
    _, checkpoint = save_reference(tmp_path / "a", family)
    (tmp_path / "b").mkdir()
    save_checkpoint(checkpoint, backend_for(variant, checkpoint).weights(), tmp_path / "b")
    before, after = (
        read_safetensors(tmp_path / x / "model.safetensors", read_header(tmp_path / x / "model.safetensors")) for x in "ab"
    )
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_bare_encoder_without_prefix_and_with_gamma_and_beta_loads(tmp_path: Path) -> None:
    """bert-base-cased calls LayerNorm's parameters gamma and beta; all-MiniLM-L6-v2 has no `bert.` prefix."""
    from safetensors.numpy import save_file

    directory = save_tiny(tmp_path / "plain", "bert")
    expected = load_checkpoint(directory).weights
    weights = read_safetensors(directory / "model.safetensors", read_header(directory / "model.safetensors"))
    renamed = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in weights.items()
    }
    assert any("gamma" in name for name in renamed) and not any(name.startswith("bert.") for name in weights)
    save_file(renamed | {"cls.predictions.bias": np.zeros(3, np.float32)}, directory / "model.safetensors")
    found = load_checkpoint(directory).weights
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
