"""A model's outputs for all examples of a split, batch by batch."""

import logging
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64

from isinglass.backends.process_group import ProcessGroup, SingleProcess
from isinglass.backends.protocol import Backend
from isinglass.data.tokenization import TokenizedTexts
from isinglass.errors import DeviceMemoryError
from isinglass.tasks import Task
from isinglass.training.packer import Packer
from isinglass.training.progress import PROGRESS_SECONDS, Progress

logger = logging.getLogger(__name__)


def predict(
    backend: Backend,
    packer: Packer,
    tokens: TokenizedTexts,
    name: str,
    on_progress: Callable[[Progress], None] = lambda _: None,
    group: ProcessGroup | None = None,
) -> Float32[np.ndarray, "N outputs"]:
    """The model's outputs for all examples, in the order of their file; a batch that does not fit into memory is halved.

    A text read in windows has the mean of their outputs. The processes of a group share the batches, and all return all.
    """
    group = group or SingleProcess()
    outputs = np.zeros((len(tokens), 0), np.float32)
    done = tokens_done = 0
    started = last_report = time.perf_counter()
    streams = backend.streams
    waiting = [*reversed(packer.evaluation_batches(tokens, streams)[group.rank :: group.size])]
    total = sum(batch.num_examples for batch in waiting)
    ahead = streams  # batches handed over together: more than its streams, so that these seldom wait for each other
    while waiting:
        began = time.perf_counter()
        batches = [waiting.pop() for _ in range(min(ahead, len(waiting)))]
        try:
            predicted = backend.predict(batches)
        except DeviceMemoryError as error:
            if len(batches) > 1:
                logger.warning(f"{error} Batches are predicted one at a time from here on.")
                streams = ahead = 1
                waiting += reversed(batches)
                continue
            (batch,) = batches
            if batch.num_examples == 1:
                raise
            logger.warning(f"{error} The batch is halved.")
            waiting += [packer.pack(tokens, half, None) for half in np.array_split(batch.example_index, 2)]
            continue
        for batch, found in zip(batches, predicted, strict=True):
            if done == 0:
                outputs = np.zeros((len(tokens), found.shape[1]), np.float32)
            outputs[batch.example_index] = found
            done += batch.num_examples
            tokens_done += batch.num_tokens
        now = time.perf_counter()
        if streams > 1 and now - began < PROGRESS_SECONDS:
            ahead *= 2
        if now - last_report >= PROGRESS_SECONDS or done == total:
            last_report = now
            speed = tokens_done / (now - started)
            on_progress(
                Progress(
                    stage=f"evaluate {name}",
                    epoch=0,
                    epochs=0,
                    done=done,
                    total=total,
                    loss=None,
                    tokens_per_second=speed,
                )
            )
    shares = group.gather(np.array([done, outputs.shape[1]]))
    assert sum(int(share[0]) for share in shares) == len(tokens), "every example is predicted once"
    if done == 0:  # there are fewer batches than processes
        outputs = np.zeros((len(tokens), max(int(share[1]) for share in shares)), np.float32)
    return tokens.per_text(np.sum(group.gather(outputs), axis=0))  # what others predict is 0 here


def probabilities(outputs: Float32[np.ndarray, "N outputs"], task: Task) -> Float64[np.ndarray, "N outputs"]:
    """Softmax over the outputs, or of a multi-label task the logistic function of each, in float64."""
    if task.is_multilabel:
        return 0.5 + 0.5 * np.tanh(0.5 * outputs.astype(np.float64))
    shifted = outputs.astype(np.float64) - outputs.max(1, keepdims=True)
    exponentials = np.exp(shifted)
    chances: Float64[np.ndarray, "N outputs"] = exponentials / exponentials.sum(1, keepdims=True)
    return chances
