"""Examples as batches, in the layout that the settings ask for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Int64

from isinglass.config import TrainConfig
from isinglass.data.tokenization import TokenizedTexts
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.vocabulary import Vocabulary
from isinglass.packing import PackedBatch, pack_flat, pack_rows, plan_evaluation, row_counts, shard_step
from isinglass.tasks import Labels

ROW_MULTIPLE: Final = 8  # in the rows layout L is a multiple of this


@dataclass(frozen=True)
class Packer:
    """What makes batches of examples.

    Attributes:
        row_length: L of the rows layout, which holds every example: `max_length`, rounded up.
        vocabulary: if there is one, token ids become rows of its embedding table.
    """

    config: TrainConfig
    pad_token_id: int
    row_length: int
    vocabulary: Vocabulary | None = None

    @staticmethod
    def of(config: TrainConfig, model: Checkpoint, vocabulary: Vocabulary | None = None) -> "Packer":
        """Return the packer for a model with its complete vocabulary."""
        length = -(-config.max_length // ROW_MULTIPLE) * ROW_MULTIPLE
        return Packer(config, model.blueprint.pad_token_id, length, vocabulary)

    def pack(self, tokens: TokenizedTexts, index: Int64[np.ndarray, " S"], labels: Labels | None) -> PackedBatch:
        """Return the examples `index` as one batch."""
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
        if self.vocabulary is None:
            return batch
        return replace(batch, input_ids=self.vocabulary.rows[batch.input_ids])

    def pack_parts(
        self, tokens: TokenizedTexts, index: Int64[np.ndarray, " S"], labels: Labels | None, parts: int
    ) -> list[PackedBatch]:
        """Return the examples `index` as `parts` micro-batches of about the same number of tokens."""
        shards = shard_step(tokens.lengths[index], min(parts, len(index)))
        return [self.pack(tokens, index[shard], labels) for shard in shards]

    def evaluation_batches(self, tokens: TokenizedTexts, parallel: int = 1) -> Sequence[PackedBatch]:
        """Return all examples in batches.

        In the flat layout examples of similar length are together, and `parallel` batches have at most `eval_tokens` tokens.
        In the rows layout a batch has as many examples as in training.
        """
        if self.config.uses_rows:
            starts = range(0, len(tokens), self.config.batch_size)
            ends = [min(start + self.config.batch_size, len(tokens)) for start in starts]
            plan: Iterator[Int64[np.ndarray, " S"]] = map(np.arange, starts, ends)
        else:
            plan = plan_evaluation(tokens.lengths, self.config.eval_tokens // parallel)
        return [self.pack(tokens, index, None) for index in plan]
