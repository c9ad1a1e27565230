"""The part of a vocabulary that a run uses: embeddings of token ids that no text of it contains need no training.

Without weight decay AdamW leaves a row alone whose gradient is zero in every step, because its moments stay zero. So a run
trains on the used rows alone and puts them back at its end: the weights are the same, and each step stores and updates less.
With weight decay, which shrinks all rows, nothing is trimmed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Int32, Int64

from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.blueprint import WORD_TABLE, Blueprint
from isinglass.models.checkpoint import Checkpoint, Weights

CHUNK: Final = 1 << 20  # tokens read at once: they may lie on disk


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that a run uses.

    Attributes:
        ids: int64 (U,), ascending.
        rows: int32 (V,), token id -> row of the trimmed table; 0 for ids that are not used.
    """

    ids: Int64[np.ndarray, " U"]
    rows: Int32[np.ndarray, " V"]


def used_vocabulary(config: TrainConfig, blueprint: Blueprint, texts: Iterable[TokenizedTexts]) -> Vocabulary:
    """Return the token ids of `texts` and the pad id; with weight decay, all ids of the model.

    Args:
        texts: all that the run trains on and scores.
    """
    is_used = np.full(blueprint.embeddings.vocab_size, config.weight_decay > 0)
    is_used[blueprint.embeddings.pad_token_id] = True
    for tokens in texts:
        for start in range(0, len(tokens.input_ids), CHUNK):
            is_used[tokens.input_ids[start : start + CHUNK]] = True
    rows = np.where(is_used, np.cumsum(is_used) - 1, 0).astype(np.int32)
    return Vocabulary(np.flatnonzero(is_used), rows)


def trim_vocabulary(checkpoint: Checkpoint, vocabulary: Vocabulary) -> Checkpoint:
    """Return the checkpoint with the embeddings of the used token ids alone."""
    blueprint = checkpoint.blueprint
    pad_token_id = int(vocabulary.rows[blueprint.embeddings.pad_token_id])
    embeddings = replace(blueprint.embeddings, vocab_size=len(vocabulary.ids), pad_token_id=pad_token_id)
    return replace(
        checkpoint,
        blueprint=replace(blueprint, embeddings=embeddings),
        weights={**checkpoint.weights, WORD_TABLE: checkpoint.weights[WORD_TABLE][vocabulary.ids]},
    )


def restore_vocabulary(weights: Weights, checkpoint: Checkpoint, vocabulary: Vocabulary) -> Weights:
    """Return `weights`, trained on the trimmed checkpoint, with the unused rows of the original `checkpoint` put back."""
    table = checkpoint.weights[WORD_TABLE].copy()
    table[vocabulary.ids] = weights[WORD_TABLE]
    return {**weights, WORD_TABLE: table}
