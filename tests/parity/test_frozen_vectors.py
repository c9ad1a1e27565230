"""The vectors of the frozen encoder against the hidden states of `transformers`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isinglass.config import TrainConfig
from isinglass.data.examples import Examples
from isinglass.models.checkpoint import load_checkpoint
from isinglass.training.frozen import encode
from isinglass.training.preparation import PreparedSplit
from tests.backends.variants import VARIANTS
from tests.parity.test_transformers_parity import padded_inputs
from tests.tiny import FAMILIES, random_tokens, reference_model, tiny_config, tiny_tokenizer, types_of

LENGTHS = [5, 1, 17, 3, 40, 41, 8, 2]


def split_of(tokens, name: str = "train") -> PreparedSplit:
    texts = [f"text {i}" for i in range(len(tokens))]
    examples = Examples(texts=(texts,), labels=None, origin="texts.csv", line_numbers=[*range(len(tokens))])
    return PreparedSplit(name=name, examples=examples, tokens=tokens, labels=None)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_the_first_hidden_states_of_transformers(family: str, variant: str, tmp_path: Path) -> None:
    """A trained head, frozen layers and weight decay must not matter."""
    model = reference_model(tiny_config(family))
    model.save_pretrained(tmp_path)
    tiny_tokenizer(family).save(str(tmp_path / "tokenizer.json"))
    backend, layout = variant.split("-")
    config = TrainConfig(backend=backend, layout=layout, max_length=64, batch_size=8, freeze_layers=1, weight_decay=0.1)
    splits = [random_tokens(LENGTHS, types=types_of(family)), random_tokens(LENGTHS[::-1], 1, types=types_of(family))]

    found = encode(load_checkpoint(tmp_path), config, [split_of(tokens) for tokens in splits])

    for vectors, tokens in zip(found, splits, strict=True):
        inputs = padded_inputs(tokens, model.config.pad_token_id)
        if family == "distilbert":
            del inputs["token_type_ids"]
        with torch.no_grad():
            expected = model.base_model(**inputs).last_hidden_state[:, 0].numpy()
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


def test_the_vector_of_a_text_in_windows_is_the_mean_of_theirs(tmp_path: Path) -> None:
    reference_model(tiny_config("bert")).save_pretrained(tmp_path)
    tiny_tokenizer("bert").save(str(tmp_path / "tokenizer.json"))
    model, tokens = load_checkpoint(tmp_path), random_tokens([5, 9, 4, 7])
    windows = replace(tokens, source=np.array([0, 1, 1, 1]))
    (each,), (of_texts,) = (encode(model, TrainConfig(), [split_of(part)]) for part in (tokens, windows))
    np.testing.assert_allclose(of_texts, np.stack([each[0], each[1:].mean(0)]), rtol=0, atol=1e-6)
