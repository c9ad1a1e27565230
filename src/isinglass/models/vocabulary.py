"""The words that a run meets: those whose embeddings no text of it asks for need not be trained.

Without weight decay AdamW leaves a row alone whose gradient was zero in every step, because its moments stay zero. So a run
trains on a table of the rows that its texts have, and puts them back where they belong: the same weights, with less to keep
and to update in each step. With weight decay, which shrinks all rows, the table is the whole one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Int32, Int64

from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.checkpoint import Checkpoint, Weights

WORDS: Final = "embeddings.word_embeddings.weight"
CHUNK: Final = 1 << 20  # tokens looked at together: they may lie on disk


@dataclass(frozen=True)
class Vocabulary:
    """A run's words.

    Attributes:
        ids: int64 (U,), the tokenizer's, ascending.
        rows: int32 (V,), of each of the tokenizer's ids the row in the run's table; 0 where it has none.
    """

    ids: Int64[np.ndarray, " U"]
    rows: Int32[np.ndarray, " V"]

    @staticmethod
    def of(config: TrainConfig, checkpoint: Checkpoint, texts: Iterable[TokenizedTexts]) -> "Vocabulary":
        """The words of `texts`, all that the run trains on and scores, and the pad id; all there are with weight decay."""
        met = np.full(checkpoint.config.vocab_size, config.weight_decay > 0)
        met[checkpoint.config.pad_token_id] = True
        for tokens in texts:
            for start in range(0, len(tokens.input_ids), CHUNK):
                met[tokens.input_ids[start : start + CHUNK]] = True
        rows = np.where(met, np.cumsum(met) - 1, 0).astype(np.int32)
        return Vocabulary(np.flatnonzero(met), rows)

    def table(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with these words alone."""
        config = checkpoint.config
        small = replace(config, vocab_size=len(self.ids), pad_token_id=int(self.rows[config.pad_token_id]))
        return replace(checkpoint, config=small, weights={**checkpoint.weights, WORDS: checkpoint.weights[WORDS][self.ids]})

    def whole(self, weights: Weights, checkpoint: Checkpoint) -> Weights:
        """Weights of `table(checkpoint)` after training, and the rows of all other words as they were."""
        words = checkpoint.weights[WORDS].copy()
        words[self.ids] = weights[WORDS]
        return {**weights, WORDS: words}
