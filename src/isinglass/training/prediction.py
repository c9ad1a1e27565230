"""The outputs of a model for all examples of a split, batch by batch."""

import logging
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Backend
from isinglass.data.tokenization import TokenizedTexts
from isinglass.errors import DeviceMemoryError
from isinglass.packing import PackedBatch
from isinglass.training.observers import REPORT_SECONDS, Observers, Progress
from isinglass.training.preparation import Packer

logger = logging.getLogger(__name__)


def predict(
    backend: Backend,
    packer: Packer,
    tokens: TokenizedTexts,
    name: str,
    observers: Observers = (),
    group: ProcessGroup = ProcessGroup(),
) -> Float32[np.ndarray, "N outputs"]:
    """Return the model's outputs for all examples, in the order of their file.

    A batch that does not fit into memory is halved. A text read in windows gets the mean of their outputs. The processes of
    a group share the batches, and each returns all outputs.

    Args:
        name: of the split, for the observers.

    Raises:
        DeviceMemoryError: a single example does not fit into memory.
    """
    pending = _PendingBatches(packer, tokens, backend.parallel_batches, group)
    meter = _Meter(name, pending.num_examples, observers)
    outputs = np.zeros((len(tokens), 0), np.float32)
    while pending:
        started = time.perf_counter()
        batches = pending.take()
        try:
            predicted = backend.predict(batches)
        except DeviceMemoryError as error:
            pending.retry_smaller(batches, error)
            continue
        if meter.examples == 0:
            outputs = np.zeros((len(tokens), predicted[0].shape[1]), np.float32)
        for batch, batch_outputs in zip(batches, predicted, strict=True):
            outputs[batch.example_index] = batch_outputs
        meter.add(batches)
        if time.perf_counter() - started < REPORT_SECONDS:
            pending.take_more_at_once()
    return tokens.per_text(_sum_over_processes(outputs, meter.examples, group))


def _sum_over_processes(
    outputs: Float32[np.ndarray, "N outputs"], predicted: int, group: ProcessGroup
) -> Float32[np.ndarray, "N outputs"]:
    """Return the outputs of all processes. What other processes predict is 0 in `outputs`."""
    shares = group.gather(np.array([predicted, outputs.shape[1]]))
    assert sum(int(share[0]) for share in shares) == len(outputs), "every example is predicted once"
    if predicted == 0:  # there are fewer batches than processes
        outputs = np.zeros((len(outputs), max(int(share[1]) for share in shares)), np.float32)
    total: Float32[np.ndarray, "N outputs"] = np.sum(group.gather(outputs), axis=0)
    return total


class _PendingBatches:
    """The batches of this process that are still to be predicted, and how many go to the backend together.

    More batches are handed over together than the backend runs in parallel, so that its threads seldom wait for each other.
    """

    def __init__(self, packer: Packer, tokens: TokenizedTexts, parallel: int, group: ProcessGroup) -> None:
        batches = packer.evaluation_batches(tokens, parallel)[group.rank :: group.size]
        self.num_examples = sum(batch.num_examples for batch in batches)
        self._packer = packer
        self._tokens = tokens
        self._batches = [*reversed(batches)]  # the next one is the last
        self._is_parallel = parallel > 1
        self._at_once = parallel

    def __bool__(self) -> bool:
        return bool(self._batches)

    def take(self) -> list[PackedBatch]:
        """Return the batches to predict next, and remove them."""
        return [self._batches.pop() for _ in range(min(self._at_once, len(self._batches)))]

    def take_more_at_once(self) -> None:
        """Hand over twice as many batches from now on, where the backend runs several in parallel."""
        if self._is_parallel:
            self._at_once *= 2

    def retry_smaller(self, batches: Sequence[PackedBatch], error: DeviceMemoryError) -> None:
        """Put back batches that did not fit into memory together: one at a time, or a single one in halves.

        Raises:
            DeviceMemoryError: it is a single example.
        """
        if len(batches) > 1:
            logger.warning(f"{error} Batches are predicted one at a time from here on.")
            self._is_parallel, self._at_once = False, 1
            self._batches += reversed(batches)
            return
        (batch,) = batches
        if batch.num_examples == 1:
            raise error
        logger.warning(f"{error} The batch is halved.")
        halves = np.array_split(batch.example_index, 2)
        self._batches += [self._packer.pack(self._tokens, half, None) for half in halves]


class _Meter:
    """Counts what is predicted, and tells the observers at most every REPORT_SECONDS."""

    def __init__(self, split: str, total: int, observers: Observers) -> None:
        self.examples = 0
        self._split = split
        self._total = total
        self._observers = observers
        self._tokens = 0
        self._began = self._reported = time.perf_counter()

    def add(self, batches: Sequence[PackedBatch]) -> None:
        """Count these batches."""
        self.examples += sum(batch.num_examples for batch in batches)
        self._tokens += sum(batch.num_tokens for batch in batches)
        now = time.perf_counter()
        if self.examples < self._total and now - self._reported < REPORT_SECONDS:
            return
        self._reported = now
        progress = Progress(
            stage=f"evaluate {self._split}",
            done=self.examples,
            total=self._total,
            tokens_per_second=self._tokens / (now - self._began),
        )
        for observer in self._observers:
            observer.on_prediction_step(progress)
