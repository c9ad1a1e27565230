"""The backends under test, each with the layouts that it supports."""

import os

import numpy as np

from isinglass.backends.protocol import Backend, Objective, create_backend
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import Checkpoint
from isinglass.packing import PackedBatch, pack_flat, pack_rows

KERAS = os.environ.get("ISINGLASS_TEST_KERAS", "tensorflow")  # or jax: one process has one Keras backend
VARIANTS = ("torch-flat", "torch-rows", f"{KERAS}-rows")


def backend_for(
    variant: str, checkpoint: Checkpoint, num_outputs: int = 3, objective: Objective | None = None, **settings: object
) -> Backend:
    name, layout = variant.split("-")
    objective = objective or Objective(kind="regression" if num_outputs == 1 else "classification", num_outputs=num_outputs)
    return create_backend(TrainConfig(backend=name, layout=layout, **settings), checkpoint, objective)


def pack(variant: str, tokens, index, labels, row_length: int = 64, pad: int = 0) -> PackedBatch:
    if variant.endswith("flat"):
        return pack_flat(tokens, index, labels)
    counts = (4, 8, 16) if variant.startswith("torch") else (16,)  # one shape, so that Keras traces once
    return pack_rows(tokens, index, labels, row_length=row_length, row_counts=counts, pad_token_id=pad)


def in_file_order(batch: PackedBatch, outputs: np.ndarray) -> np.ndarray:
    return outputs[np.argsort(batch.example_index)]
