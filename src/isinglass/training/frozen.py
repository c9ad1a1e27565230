"""The vectors of an untouched encoder: what its head would read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Float32

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, create_backend
from isinglass.config import TrainConfig
from isinglass.models.blueprint import HEAD_DENSE, HEAD_OUTPUT, Head
from isinglass.models.checkpoint import Checkpoint
from isinglass.models.vocabulary import trim_vocabulary, used_vocabulary
from isinglass.training.evaluation import predict
from isinglass.training.observers import Observers
from isinglass.training.preparation import Packer, PreparedSplit

Vectors = Float32[np.ndarray, "N H"]

IDENTITY: Final = Head(activation="linear")


def encode(
    model: Checkpoint,
    config: TrainConfig,
    splits: Sequence[PreparedSplit],
    observers: Observers = (),
    group: ProcessGroup = ProcessGroup(),
) -> list[Vectors]:
    """Return the vector that the head reads of each example: of its first token, or the mean of all, as the model pools.

    A text read in windows has the mean of their vectors. The processes of a group share the work, and each returns all
    vectors.

    Args:
        model: its head, if it has one, is not used.
        splits: their texts; labels are not used.

    Raises:
        DeviceMemoryError: a single example does not fit into memory.
    """
    config = replace(config, compile=False, weight_decay=0.0)  # these are for training steps, of which there are none
    vocabulary = used_vocabulary(config, model.blueprint, [split.tokens for split in splits])
    encoder = trim_vocabulary(with_identity_head(model), vocabulary)
    objective = Objective(kind="classification", num_outputs=model.blueprint.hidden_size)
    backend = create_backend(config, encoder, objective)
    packer = Packer(config, encoder, vocabulary)
    return [predict(backend, packer, split.tokens, split.name, observers, group) for split in splits]


def with_identity_head(model: Checkpoint) -> Checkpoint:
    """Return the encoder with a head that hands on what it reads: both products are the identity, H outputs."""
    H = model.blueprint.hidden_size
    blueprint = replace(model.blueprint, head=IDENTITY)
    identity = np.eye(H, dtype=np.float32)
    weights = model.encoder_weights
    for name in (HEAD_DENSE, HEAD_OUTPUT):
        weights |= {f"{name}.weight": identity, f"{name}.bias": np.zeros(H, np.float32)}
    return replace(model, blueprint=blueprint, weights=weights, label_names=None)
