"""Examples as batches, in the layout that the settings ask for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.config import TrainConfig
from isinglass.data.examples import Labels
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.vocabulary import Vocabulary
from isinglass.packing import PackedBatch, pack_flat, pack_rows, plan_evaluation, row_counts, shard_step

ROW_MULTIPLE: Final = 8  # in the rows layout L is a multiple of this


@dataclass(frozen=True)
class Packer:
    """Batches in the layout that the config asks for; with `words`, their ids are rows of that vocabulary's table."""

    config: TrainConfig
    pad_token_id: int
    row_length: int
    words: Vocabulary | None = None

    @staticmethod
    def of(config: TrainConfig, checkpoint: Checkpoint, words: Vocabulary | None = None) -> "Packer":
        """`row_length` holds every example: `max_length`, rounded up. The checkpoint is the whole one."""
        length = -(-config.max_length // ROW_MULTIPLE) * ROW_MULTIPLE
        return Packer(config, checkpoint.blueprint.pad_token_id, length, words)

    def pack(
        self,
        tokens: TokenizedTexts,
        index: Int64[np.ndarray, " S"],
        labels: Labels | None,
    ) -> PackedBatch:
        """The examples `index` as one batch."""
        if self.config.uses_rows:
            batch = pack_rows(
                tokens,
                index,
                labels,
                row_length=self.row_length,
                row_counts=row_counts(len(index)),
                pad_token_id=self.pad_token_id,
            )
        else:
            batch = pack_flat(tokens, index, labels)
        return batch if self.words is None else replace(batch, input_ids=self.words.rows[batch.input_ids])

    def pack_parts(
        self, tokens: TokenizedTexts, index: Int64[np.ndarray, " S"], labels: Labels | None, parts: int
    ) -> list[PackedBatch]:
        """The examples `index` as so many micro-batches of about as many tokens each."""
        shards = shard_step(tokens.lengths[index], min(parts, len(index)))
        return [self.pack(tokens, index[shard], labels) for shard in shards]

    def evaluation_batches(self, tokens: TokenizedTexts, streams: int = 1) -> Sequence[PackedBatch]:
        """All examples of like length together, `streams` batches of at most `eval_tokens` tokens; in `rows`, as many
        examples in each batch as training has.
        """
        if self.config.uses_rows:
            size = self.config.batch_size
            return [
                self.pack(tokens, np.arange(i, min(i + size, len(tokens)), dtype=np.int64), None)
                for i in range(0, len(tokens), size)
            ]
        return [
            self.pack(tokens, index, None) for index in plan_evaluation(tokens.lengths, self.config.eval_tokens // streams)
        ]
