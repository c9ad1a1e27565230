"""The gradient of the word embedding."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from isinglass.backends.torch.batch import MicroBatchGradient
from isinglass.backends.torch.process_group import TorchProcessGroup
from isinglass.packing import PackedBatch


class WordGradient:
    """The gradient of the word embedding, in one buffer that is kept from step to step.

    Only the rows of a step's tokens are added to and cleared again, not those of the whole vocabulary.
    """

    def __init__(self, word: nn.Parameter, pad_token_id: int) -> None:
        self._word = word
        self._pad_token_id = pad_token_id
        self._touched: list[Tensor] = []  # token ids whose rows may not be zero

    def add(self, gradient: MicroBatchGradient) -> None:
        """Add what a micro-batch contributes."""
        of_rows, batch = gradient.embeddings, gradient.batch
        if of_rows is None:
            return
        if self._word.grad is None:
            self._word.grad = torch.zeros_like(self._word)
        self._touched.append(batch.input_ids)
        token_ids = batch.input_ids
        if batch.word_rows is not None:  # a GPU would add up in any order: first add up each word's rows by themselves
            sorted_rows = of_rows[batch.word_rows.order]
            of_rows = torch.segment_reduce(sorted_rows, "sum", offsets=batch.word_rows.bounds, unsafe=True)
            token_ids = batch.word_rows.token_ids
        self._word.grad.index_add_(0, token_ids, of_rows)
        self._word.grad[self._pad_token_id] = 0  # as nn.Embedding(padding_idx) has it

    def average(self, group: TorchProcessGroup, batches: Sequence[PackedBatch]) -> None:
        """Replace the gradient by its mean over all processes; `batches` are those of this process in the step."""
        if self._word.grad is not None:
            token_ids = np.unique(np.concatenate([batch.input_ids.ravel() for batch in batches]))
            self._touched = group.average_rows(self._word.grad, token_ids.astype(np.int64))

    def clear(self) -> None:
        """Set the gradient to zero."""
        for token_ids in self._touched:
            assert self._word.grad is not None
            self._word.grad.index_fill_(0, token_ids, 0)
        self._touched = []
