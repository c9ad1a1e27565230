"""A run on its own words alone ends with the weights of a run on all of them."""

from dataclasses import replace

import numpy as np
import pytest

from isinglass.config import TrainConfig, resolve
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.checkpoint import Checkpoint, load_checkpoint
from isinglass.models.vocabulary import WORDS, Vocabulary
from isinglass.tasks import TASKS
from isinglass.training import trainer
from isinglass.training.packer import Packer
from isinglass.training.trainer import train
from tests.tiny import FAMILIES, random_tokens, save_tiny, write_glue


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_holds_the_rows_of_the_words_met(family: str, tmp_path):
    checkpoint = load_checkpoint(save_tiny(tmp_path, family))
    tokens = random_tokens([5, 9], seed=1)
    words = Vocabulary.of(TrainConfig(), checkpoint, [tokens])
    assert set(words.ids) == {*tokens.input_ids.tolist(), checkpoint.config.pad_token_id}
    table = words.table(checkpoint)
    assert table.config.vocab_size == len(words.ids) < checkpoint.config.vocab_size
    np.testing.assert_array_equal(
        table.weights[WORDS][words.rows[tokens.input_ids]], checkpoint.weights[WORDS][tokens.input_ids]
    )
    assert words.ids[table.config.pad_token_id] == checkpoint.config.pad_token_id
    for layout in ("flat", "rows"):
        config = TrainConfig(layout=layout, max_length=16)
        whole, own = (Packer.of(config, checkpoint, each).pack(tokens, np.arange(2), None) for each in (None, words))
        np.testing.assert_array_equal(words.ids[own.input_ids], whole.input_ids)

    moved = replace(table, weights={**table.weights, WORDS: table.weights[WORDS] + 1})
    back = words.whole(moved.weights, checkpoint)[WORDS]
    np.testing.assert_array_equal(back[words.ids], checkpoint.weights[WORDS][words.ids] + 1)
    others = np.setdiff1d(np.arange(len(back)), words.ids)
    np.testing.assert_array_equal(back[others], checkpoint.weights[WORDS][others])


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_training_ends_with_the_weights_of_a_run_on_all_words(backend: str, tmp_path, monkeypatch):
    """Of words that only the dev set has, and of those that no text has, too: they stay as they were."""
    write_glue(TASKS["rte"], tmp_path, rows=24)
    model = save_tiny(tmp_path / "model", "bert")
    flags = {"data_dir": str(tmp_path), "model": str(model), "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
    config = resolve(task="rte", flags={**flags, "backend": backend, "max_length": 40})
    own = train(config)

    class Whole(Vocabulary):
        @staticmethod
        def of(config: TrainConfig, checkpoint: Checkpoint, texts: list[TokenizedTexts]) -> Vocabulary:
            return Vocabulary.of(replace(config, weight_decay=0.1), checkpoint, texts)

    monkeypatch.setattr(trainer, "Vocabulary", Whole)
    whole = train(config)
    sizes = [
        len(Vocabulary.of(each, load_checkpoint(model), []).ids) for each in (config, replace(config, weight_decay=0.1))
    ]
    assert sizes[0] == 1 and sizes[1] == load_checkpoint(model).config.vocab_size
    np.testing.assert_allclose([s.loss for s in own.steps], [s.loss for s in whole.steps], rtol=1e-5)
    begun = load_checkpoint(model).weights
    assert own.weights.keys() == whole.weights.keys()
    for name, array in whole.weights.items():
        np.testing.assert_allclose(own.weights[name], array, rtol=0, atol=2e-4, err_msg=name)
    still = (whole.weights[WORDS] == begun[WORDS]).all(1)
    assert still.any() and not still.all()
    np.testing.assert_array_equal((own.weights[WORDS] == begun[WORDS]).all(1), still)
