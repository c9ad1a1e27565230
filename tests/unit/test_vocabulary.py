"""A run on only the used token ids ends with the weights of a run on all of them."""

from dataclasses import replace

import numpy as np
import pytest

from isinglass.config import TrainConfig, resolve
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.blueprint import WORD_TABLE, Blueprint
from isinglass.models.checkpoint import load_checkpoint
from isinglass.models.vocabulary import Vocabulary, restore_vocabulary, trim_vocabulary, used_vocabulary
from isinglass.tasks import TASKS
from isinglass.training import trainer
from isinglass.training.preparation import Packer
from isinglass.training.trainer import train
from tests.tiny import FAMILIES, random_tokens, save_tiny, write_glue


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trimmed_table_holds_the_rows_of_the_used_ids(family: str, tmp_path):
    checkpoint = load_checkpoint(save_tiny(tmp_path, family))
    tokens = random_tokens([5, 9], seed=1)
    vocabulary = used_vocabulary(TrainConfig(), checkpoint.blueprint, [tokens])
    table = WORD_TABLE
    assert set(vocabulary.ids) == {*tokens.input_ids.tolist(), checkpoint.blueprint.embeddings.pad_token_id}
    trimmed = trim_vocabulary(checkpoint, vocabulary)
    assert trimmed.blueprint.embeddings.vocab_size == len(vocabulary.ids) < checkpoint.blueprint.embeddings.vocab_size
    np.testing.assert_array_equal(
        trimmed.weights[table][vocabulary.rows[tokens.input_ids]], checkpoint.weights[table][tokens.input_ids]
    )
    assert vocabulary.ids[trimmed.blueprint.embeddings.pad_token_id] == checkpoint.blueprint.embeddings.pad_token_id
    for layout in ("flat", "rows"):
        config = TrainConfig(layout=layout, max_length=16)
        whole, own = (Packer(config, checkpoint, each).pack(tokens, np.arange(2), None) for each in (None, vocabulary))
        np.testing.assert_array_equal(vocabulary.ids[own.input_ids], whole.input_ids)

    moved = {**trimmed.weights, table: trimmed.weights[table] + 1}
    restored = restore_vocabulary(moved, checkpoint, vocabulary)[table]
    np.testing.assert_array_equal(restored[vocabulary.ids], checkpoint.weights[table][vocabulary.ids] + 1)
    others = np.setdiff1d(np.arange(len(restored)), vocabulary.ids)
    np.testing.assert_array_equal(restored[others], checkpoint.weights[table][others])


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_training_ends_with_the_weights_of_a_run_on_all_ids(backend: str, tmp_path, monkeypatch):
    """Rows of ids that only the dev set has, and of ids that no text has, must stay unchanged."""
    write_glue(TASKS["rte"], tmp_path, rows=24)
    model = save_tiny(tmp_path / "model", "bert")
    flags = {"data_dir": str(tmp_path), "model": str(model), "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    config = resolve(task="rte", flags={**flags, "backend": backend, "max_length": 40})
    own = train(config)

    def all_ids(config: TrainConfig, blueprint: Blueprint, texts: list[TokenizedTexts]) -> Vocabulary:
        return used_vocabulary(replace(config, weight_decay=0.1), blueprint, texts)

    monkeypatch.setattr(trainer, "used_vocabulary", all_ids)
    whole = train(config)
    blueprint, table = load_checkpoint(model).blueprint, WORD_TABLE
    sizes = [len(used_vocabulary(each, blueprint, []).ids) for each in (config, replace(config, weight_decay=0.1))]
    assert sizes == [1, blueprint.embeddings.vocab_size]
    np.testing.assert_allclose([s.loss for s in own.steps], [s.loss for s in whole.steps], rtol=1e-5)
    begun = load_checkpoint(model).weights
    assert own.model.weights.keys() == whole.model.weights.keys()
    for name, array in whole.model.weights.items():
        np.testing.assert_allclose(own.model.weights[name], array, rtol=0, atol=2e-4, err_msg=name)
    still = (whole.model.weights[table] == begun[table]).all(1)
    assert still.any() and not still.all()
    np.testing.assert_array_equal((own.model.weights[table] == begun[table]).all(1), still)
